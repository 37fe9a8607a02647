"""Builds stage 1: a Debian kernel and a small initramfs with Koguma's stage-1 program, signed and put into place.

Called by `koguma image build-stage1`. Needs root, mmdebstrap, cpio, zstd and kmod on the building machine.
`stage1_contents` says what goes in; the program itself is `node/stage1`.

1. Extract Debian packages, from the mirrors that this machine's apt uses.
2. Lay out the system and the drivers, each in a directory of its own.
3. Pack them into an initramfs of two cpio archives: the system compressed as a whole, since all of it is used at
   every boot; the drivers stored, since each is compressed by itself and few are used. What only registration and
   rescue need goes likewise into a second one, `tools`, which a boot does not fetch; the tools for disks into a third,
   `disks`, which only a machine fetches that writes or empties its disk. `local.efi` starts a disk that was written.
4. Describe the files in a manifest, sign it, rename the whole into `boot/stage1/<id>`, move `current`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import zstandard

from koguma.images import stage1_contents, stage1_disks
from koguma.images.aptsources import machine_sources, mirror_lines
from koguma.images.build import node_directory
from koguma.images.errors import ToolError
from koguma.images.files import remove_tree, sync_directory, sync_file
from koguma.images.signing import sign_manifest
from koguma.images.tools import last_words, run_tool, with_own_mounts

MANIFEST_FORMAT = "koguma-stage1/1"
STAGE1_FILES = {"kernel": "kernel", "initrd": "initrd", "tools": "tools", "disks": "disks", "loader": "local.efi"}
COMPRESSION_LEVEL = 19
ARCHIVE_TIMEOUT_S = 300
KEPT_BUILDS = 3
"""`current` and the ones before it, so that a machine that is fetching an older build just now can finish."""


def build_stage1(
    repository: Path, *, suite: str = "bookworm", progress: Callable[[str], None] = lambda _message: None
) -> str:
    """Build stage 1 into `<repository>/boot/stage1/<id>`, make it current and return its id.

    `progress` is told each piece of work as it starts. Raises ToolError, or ManifestError when there is no key.
    """
    shelf = repository / "boot/stage1"
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=shelf) as scratch:
        work = Path(scratch)
        packages = work / "packages"
        progress("extracting Debian packages")
        _extract_packages(packages, suite, work)
        progress("choosing programs and modules")
        stage1_contents.lay_out_system(packages, node_directory(), work / "system")
        stage1_contents.lay_out_tools(packages, work / "system", work / "tools")
        _copy_trusted_keys(repository, work / "system/etc/koguma/trusted")
        progress("choosing and compressing drivers")
        stage1_contents.lay_out_drivers(packages, work / "drivers", work / "tool-drivers")
        progress("packing kernel and initramfs")
        result = work / "result"
        result.mkdir(mode=0o755)
        release = stage1_contents.kernel_release(packages)
        shutil.copyfile(packages / f"boot/vmlinuz-{release}", result / "kernel")
        stage1_disks.lay_out_disks(packages, work / "system", work / "disks")
        _pack(work / "system", work / "drivers", result / "initrd")
        _pack(work / "tools", work / "tool-drivers", result / "tools")
        (result / "disks").write_bytes(_compressed(work / "disks"))
        stage1_disks.make_local_loader(packages, result / "local.efi")
        progress("signing")
        manifest = _manifest(result, release)
        build_id = hashlib.sha256(manifest).hexdigest()
        (result / "manifest.json").write_bytes(manifest)
        (result / "manifest.sig").write_bytes(sign_manifest(manifest, repository / "keys"))
        _put_into_place(result, shelf, build_id)
    _remove_old_builds(shelf)
    return build_id


def _extract_packages(target: Path, suite: str, work: Path) -> None:
    """From the mirrors that this machine uses; where they say nothing of Debian, from mmdebstrap's own."""
    packages = ",".join((*stage1_contents.PACKAGES, *stage1_disks.PACKAGES))
    command = ["mmdebstrap", "--variant=extract", f"--include={packages}", suite, str(target)]
    if lines := mirror_lines(suite, ["main"], machine_sources()):
        sources = work / "sources.list"
        sources.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command.append(str(sources))
    run_tool(with_own_mounts(command), timeout_s=1800)
    # From Debian 13 on, packages bring nothing outside /usr, and the links to it come with an installation only.
    for name in ("bin", "sbin", "lib", "lib64"):
        if not (target / name).exists():
            (target / name).symlink_to(f"usr/{name}")


def _copy_trusted_keys(repository: Path, target: Path) -> None:
    keys = sorted((repository / "keys/trusted").glob("*.pem"))
    if not keys:
        raise ToolError(f"stage 1 must trust at least one key, got none ({repository / 'keys/trusted'})")
    for key in keys:
        shutil.copyfile(key, target / key.name)


def _pack(system: Path, drivers: Path, target: Path) -> None:
    """An archive after another must start at a multiple of four bytes; drivers go first because they are aligned."""
    stored = _archive(drivers)
    target.write_bytes(stored + b"\0" * (-len(stored) % 4) + _compressed(system))


def _compressed(folder: Path) -> bytes:
    archive = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_content_size=False).compress(_archive(folder))
    return archive + b"\0" * (-len(archive) % 4)


def _archive(folder: Path) -> bytes:
    """A directory as a newc archive; same content, same bytes."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    for name in names:
        os.utime(folder / name, (0, 0), follow_symlinks=False)
    done = subprocess.run(
        ["cpio", "--quiet", "--null", "--create", "--format=newc", "--reproducible", "--owner=0:0"],
        cwd=folder,
        input="".join(f"{name}\0" for name in names).encode(),
        capture_output=True,
        check=False,
        timeout=ARCHIVE_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise ToolError(f"cpio failed with status {done.returncode}: {last_words(done.stderr)}")
    return done.stdout


def _manifest(result: Path, release: str) -> bytes:
    files = {}
    for role, name in STAGE1_FILES.items():
        data = (result / name).read_bytes()
        files[role] = {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"format": MANIFEST_FORMAT, "architecture": "x86_64", "kernel_version": release, "files": files}
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def _put_into_place(result: Path, shelf: Path, build_id: str) -> None:
    for file in result.iterdir():
        file.chmod(0o644)
        sync_file(file)
    sync_directory(result)
    target = shelf / build_id
    if not target.exists():
        result.rename(target)
    link = shelf / f".current.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(build_id)
    link.rename(shelf / "current")
    sync_directory(shelf)


def _remove_old_builds(shelf: Path) -> None:
    current = (shelf / "current").resolve()
    builds = [path for path in shelf.iterdir() if path.is_dir() and not path.is_symlink() and len(path.name) == 64]
    by_age = sorted(builds, key=lambda path: path.stat().st_mtime, reverse=True)
    for build in by_age[KEPT_BUILDS:]:
        if build != current:
            remove_tree(build)
