"""One commit exported on two machines that have nothing in common but the commit: the bytes are the same.

The machines are clean Debian roots of their own, each with its host name, time, time zone, locale, umask, user, number
of processors and file system; one works as root on an overlay, the other as nobody on a tmpfs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koguma.images.importing import Devices, ImportOptions, import_source
from koguma.images.repository import Repository
from tests.integration.images import trees
from tests.property.images.test_images_formats_round_trip import WideGardener
from tests.unit.images.making import make_repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="clean roots need root"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
]
LIBRARIES = ("libffi8", "libssl3", "libbz2-1.0", "liblzma5", "zlib1g", "libsqlite3-0", "util-linux", "mount")
TOOLS = ("erofs-utils", "faketime")
FORMATS = ("squashfs", "erofs", "tar", "oci-archive")
SOURCE = Path(__file__).resolve().parents[3] / "src"

_ENTER = """set -eu
mount --make-rprivate /
cd "$1"; shift
mkdir -p mnt
pivot_root . mnt
cd /
exec "$@"
"""
"""A root is entered for good and not by chroot: in a chroot nobody could make a user namespace."""
_SCRIPT = """set -eu
umount -l /mnt
hostname "$1"; umask "$2"; cd /exports
shift 2
exec "$@"
"""


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    tar = trees.debian_tar("bookworm", folder / "root.tar", *LIBRARIES, *TOOLS)
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xpf", tar], check=True)
    tar.unlink()
    return root


def _interpreter() -> list[Path]:
    """What a Python of this machine is made of: its own directories and those it finds modules in."""
    places = {Path(sys.prefix), Path(sys.base_prefix), SOURCE, *(Path(entry) for entry in sys.path if entry)}
    places |= {Path(entry) for entry in site.getsitepackages()}
    found = sorted(place.resolve() for place in places if place.is_dir())
    return [place for place in found if not any(place != other and place.is_relative_to(other) for other in found)]


@contextmanager
def _machine(clean: Path, work: Path, repository: Path, *, tmpfs: bool) -> Iterator[Path]:
    """A root of its own with this machine's Python, and a copy of the repository at /exports/repository."""
    for name in ("upper", "scratch", "root"):
        (work / name).mkdir(parents=True)
    root = work / "root"
    mounted: list[Path] = []

    def mount(target: Path, *arguments: str | Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *arguments, target], check=True)
        mounted.append(target)

    try:
        mount(root, "-t", "overlay", "-o", f"lowerdir={clean},upperdir={work}/upper,workdir={work}/scratch", "clean")
        for place in _interpreter():
            mount(root / place.relative_to("/"), "--bind", "-o", "ro", place)
            for parent in list(place.relative_to("/").parents)[:-1]:
                (root / parent).chmod(0o755)  # it may be in root's home, where nobody may look
        mount(root / "proc", "-t", "proc", "proc")
        mount(root / "dev", "--bind", "/dev")
        if tmpfs:
            mount(root / "exports", "-t", "tmpfs", "-o", "mode=1777", "exports")
        (root / "exports").mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", repository, root / "exports" / "repository"], check=True)
        yield root
    finally:
        for target in reversed(mounted):
            subprocess.run(["umount", target], check=True)


def _export(
    root: Path, environment: dict[str, str], before: list[str], after: list[str], formats: tuple[str, ...] = FORMATS
) -> dict[str, str]:
    """Export in a machine; returns the digests."""
    digests = {}
    for image_format in formats:
        command = [sys.executable, "-m", "koguma", "image", "--repo", "/exports/repository", "export", "main"]
        command += ["--format", image_format, "-o", f"/exports/{image_format}"]
        done = subprocess.run(
            ["unshare", "--uts", "--mount", "--fork", *before, "sh", "-c", _ENTER, "sh", root,
             "/bin/sh", "-c", _SCRIPT, "sh", environment["HOSTNAME"], environment["UMASK"], *after, *command],
            env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "PYTHONPATH": str(SOURCE), **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        digests[image_format] = hashlib.sha256((root / "exports" / image_format).read_bytes()).hexdigest()
    return digests


def _repository(path: Path, tree: Path) -> Repository:
    repository = make_repository(path)
    repository.commit_tree(tree, "main", "m", remember=False)
    return repository


FIRST = {"HOSTNAME": "first", "UMASK": "022", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
SECOND = {
    "HOSTNAME": "second.example.org", "UMASK": "077", "LC_ALL": "POSIX", "TZ": "XYZ-9", "HOME": "/nowhere",
    "USER": "somebody",
}  # fmt: skip
LATER = ["faketime", "-f", "+400d"]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.mark.parametrize("kind", ["debian", "garden"])
def test_two_clean_machines_export_the_same_bytes(clean_root: Path, tmp_path: Path, kind: str) -> None:
    tree = clean_root
    if kind == "garden":
        tree = tmp_path / "tree"
        tree.mkdir()
        gardener = WideGardener(11)
        gardener.name_bytes = 254
        gardener.grow(os.fsencode(tree))
    _repository(tmp_path / "repository", tree).close()

    with _machine(clean_root, tmp_path / "one", tmp_path / "repository", tmpfs=False) as root:
        first = _export(root, FIRST, [], [])
    with _machine(clean_root, tmp_path / "two", tmp_path / "repository", tmpfs=True) as root:
        second = _export(root, SECOND, ["taskset", "--cpu-list", "0"], LATER)
    with _machine(clean_root, tmp_path / "three", tmp_path / "repository", tmpfs=True) as root:
        subprocess.run(["chown", "-R", "65534:65534", root / "exports" / "repository"], check=True)
        # erofs is made from a checkout with owners, which needs root.
        nobody = _export(root, FIRST, [], AS_NOBODY, tuple(name for name in FORMATS if name != "erofs"))

    assert set(first) == set(FORMATS)
    assert first == second
    assert nobody == {name: digest for name, digest in first.items() if name != "erofs"}


def test_an_image_comes_in_and_goes_out_without_root(clean_root: Path, tmp_path: Path) -> None:
    """Owners, devices and capabilities are content here: nobody imports a tar of root and exports a squashfs of it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    gardener = WideGardener(12)
    gardener.acls = False
    gardener.grow(os.fsencode(tree))
    attributes = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax"]
    subprocess.run(["tar", "-C", tree, *attributes, "-cf", tmp_path / "t.tar", "."], check=True, capture_output=True)
    expected = _repository(tmp_path / "expected", tree)
    expected.export("main", "squashfs", tmp_path / "expected.squashfs")
    imported = import_source(expected, str(tmp_path / "t.tar"), "tar", "m", options=ImportOptions(devices=Devices.KEEP))
    assert imported.commit.tree == expected.resolve("main").tree

    with _machine(clean_root, tmp_path / "one", tmp_path / "expected", tmpfs=True) as root:
        shutil.rmtree(root / "exports" / "repository")
        shutil.copy(tmp_path / "t.tar", root / "exports" / "t.tar")
        koguma = f"{sys.executable} -m koguma image --repo /exports/repository"
        script = f"{koguma} init; {koguma} import -b main --devices=keep /exports/t.tar"
        script += f"; {koguma} export main -o /exports/squashfs"
        done = subprocess.run(
            ["unshare", "--mount", "--fork", "sh", "-c", _ENTER, "sh", root, *AS_NOBODY, "/bin/sh", "-ec", script],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(SOURCE), "HOME": "/exports"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = (root / "exports" / "squashfs").read_bytes()

    assert made == (tmp_path / "expected.squashfs").read_bytes()
