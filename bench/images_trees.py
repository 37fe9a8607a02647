"""The Debian trees that `bench/images.py` measures with: made once by mmdebstrap from this machine's apt sources.

v1 is a suite as it was released; v2 has its updates and security fixes, and packages added. Both have a kernel and an
initramfs, so they are what a machine boots. `growing_tree` makes a small one that is n times as large.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from koguma.images.aptsources import apt_settings, machine_sources, mirror_lines
from koguma.images.tools import with_own_mounts

SUITE = "bookworm"
_BASE = ("systemd-sysv", "dbus", "openssh-server", "iproute2", "linux-image-amd64", "initramfs-tools", "zstd")
_MORE = ("python3-setuptools", "vim", "git", "man-db", "openvswitch-switch", "libpython3-dev", "gcc")
_ADDED = ("nginx-light", "tcpdump", "strace")

_GROWING = ("systemd-sysv", "openssh-server")
SCALES = {"small": _BASE, "full": (*_BASE, *_MORE)}


@dataclass(frozen=True)
class Trees:
    v1: Path
    v2: Path


def trees(folder: Path, scale: str) -> Trees:
    """The two trees below `folder`, made when they are not there."""
    made = Trees(folder / scale / "v1", folder / scale / "v2")
    packages = SCALES[scale]
    if not made.v1.is_dir():
        _make(made.v1, packages, fixes=False)
    if not made.v2.is_dir():
        _make(made.v2, (*_with_kernel_of(made.v1, packages), *_ADDED), fixes=True)
    return made


def growing_tree(folder: Path, count: int) -> Path:
    """A small tree, `count` times; what is beside the first has contents of its own, so nothing is stored only once."""
    small = folder / "growing" / "1"
    if not small.is_dir():
        _make(small, _GROWING, fixes=False)
    return small if count == 1 else _times(small, count, folder / "growing" / str(count))


def added_sources() -> str:
    """A shell line that gives v1's apt the updates and security fixes that v2 was made with."""
    lines = mirror_lines(SUITE, ("main",), machine_sources())[1:]
    words = " ".join(f"'{line}'" for line in lines)
    return f"printf '%s\\n' {words} > /etc/apt/sources.list.d/fixes.list; apt-get update -q; "


def _times(tree: Path, count: int, destination: Path) -> Path:
    if not destination.is_dir():
        temporary = destination.with_name(f".{destination.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for number in range(count):
            copy = temporary / f"part{number:02}" if number else temporary
            subprocess.run(["cp", "-aT", "--reflink=auto", str(tree), str(copy)], check=True)
            if number:
                _make_unlike(copy, number)
        temporary.rename(destination)
    return destination


def _with_kernel_of(tree: Path, packages: tuple[str, ...]) -> tuple[str, ...]:
    """The same packages with the tree's own kernel: a new one would be half of all bytes, no everyday upgrade."""
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*"))
    return tuple(f"linux-image-{kernels[-1]}" if name == "linux-image-amd64" else name for name in packages)


def _make_unlike(tree: Path, number: int) -> None:
    """Append a line to every regular file, so that its content is none that another copy has."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                with path.open("ab") as file:
                    file.write(b"copy %d\n" % number)


def _make(tree: Path, packages: tuple[str, ...], *, fixes: bool) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True)
    lines = mirror_lines(SUITE, ("main",), machine_sources())
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=f".{tree.name}-") as scratch:
        work = Path(scratch)
        work.chmod(0o755)
        (work / "sources.list").write_text("".join(f"{line}\n" for line in (lines if fixes else lines[:1])))
        (work / "apt.conf").write_text(apt_settings())
        hook = f'mkdir -p "$1/etc/apt/apt.conf.d"; cp {work}/apt.conf "$1/etc/apt/apt.conf.d/00bench"'
        command = [
            "mmdebstrap", "--variant=minbase", "--format=directory", f"--setup-hook={hook}",
            f"--include={','.join(packages)}", SUITE, str(work / "root"),
        ]  # fmt: skip
        if lines:
            command.append(str(work / "sources.list"))
        print(f"making {tree}", flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            with_own_mounts(command),
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed with status {done.returncode}: {done.stderr[-2000:]}")
        shutil.rmtree(work / "root" / "dev")  # OSTree does not take device nodes
        (work / "root" / "dev").mkdir()
        (work / "root").rename(tree)
