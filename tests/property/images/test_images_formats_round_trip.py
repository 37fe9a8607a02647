# ruff: noqa: PTH115, PTH118, PTH123, PTH208 - names are bytes that no Path can hold
"""Random trees go out as every format and come back; two witnesses that know nothing of us compare them.

One is rsync; the other is a walk of our own that uses nothing but lstat, readlink, listxattr and open, in the manner of
mtree: it also sees what rsync does not compare, such as which names are one file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.images.errors import ToolError
from koguma.images.formats import export_as
from koguma.images.importing import Devices, ImportOptions, import_source
from koguma.images.repository import Repository
from tests.property.images.test_images_round_trip import Gardener, _mounted, differences, few

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed"),
]
seeds = st.integers(0, 2**32)
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
KEEP = ImportOptions(devices=Devices.KEEP, keep_times=True)


class WideGardener(Gardener):
    """Grows everything a root can hold: also ACLs, capabilities, names of 255 bytes, files of many pages with holes."""

    acls = True
    name_bytes = 255

    def _name(self) -> bytes:
        if self._random.random() < 0.1:
            return bytes(self._random.choice(b"ab\x80\xff \n\\") for _ in range(self.name_bytes))
        return super()._name()

    def _write(self, path: bytes, *, sparse: bool) -> None:
        super()._write(path, sparse=sparse)
        if sparse and self._random.random() < 0.5:
            with open(path, "r+b") as file:
                file.seek(self._random.randrange(1 << 21))
                file.write(self._random.randbytes(9000))
                file.truncate(1 << 21)

    def _decorate(self, path: bytes) -> None:
        super()._decorate(path)
        kind = os.lstat(path).st_mode
        chance = self._random.random()
        if stat.S_ISREG(kind) and chance < 0.2:
            os.setxattr(path, "security.capability", CAPABILITY)
        elif stat.S_ISLNK(kind) and chance < 0.3:
            os.setxattr(path, "trusted.note", b"of a link", follow_symlinks=False)
        elif self.acls and stat.S_ISREG(kind) and chance < 0.3:
            os.setxattr(path, "system.posix_acl_access", ACL)
        elif self.acls and stat.S_ISDIR(kind) and chance < 0.2:
            os.setxattr(path, "system.posix_acl_default", ACL)
        elif stat.S_ISDIR(kind) and chance < 0.4:
            os.setxattr(path, "user.large", self._random.randbytes(3000))
        os.utime(path, ns=(0, self._random.randrange(-(10**18), 2 * 10**18)), follow_symlinks=False)


def witness(top: bytes, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Everything a path has, by path. Of a hard-linked file the first path stands for its identity."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        whole = os.path.join(top, path) if path else top
        status = os.lstat(whole)
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if stat.S_ISREG(kind):
            with open(whole, "rb") as file:
                content = (status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        elif stat.S_ISLNK(kind):
            content = os.readlink(whole)
        elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            content = status.st_rdev
        elif stat.S_ISDIR(kind):
            waiting += sorted((os.path.join(path, name) for name in os.listdir(whole)), reverse=True)
        try:
            names = sorted(os.listxattr(whole, follow_symlinks=False))
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # a squashfs in which nothing has an attribute says so
                raise
            names = []
        xattrs = tuple((name, os.getxattr(whole, name, follow_symlinks=False)) for name in names)
        same = None if stat.S_ISDIR(kind) else (first.setdefault(status.st_ino, path), status.st_nlink)
        time = status.st_mtime_ns if times else None
        mode = stat.S_IMODE(status.st_mode)
        found[path] = (kind, mode, status.st_uid, status.st_gid, content, xattrs, same, time)
    return found


def _planted(base: Path, seed: int, *, acls: bool = True, name_bytes: int = 255) -> Path:
    tree = base / "tree"
    tree.mkdir()
    gardener = WideGardener(seed)
    gardener.acls, gardener.name_bytes = acls, name_bytes
    gardener.grow(os.fsencode(tree))
    os.chown(tree, seed % 3 * 1000, seed % 2 * 7)
    tree.chmod(0o2751)
    return tree


@few
@given(seeds)
def test_a_checkout_is_the_tree_to_the_last_attribute(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    base = tmp_path_factory.mktemp("trip")
    tree = _planted(base, seed)
    repository = Repository.init(base / "repository")
    repository.commit_tree(tree, "main", "m", keep_times=True)

    repository.checkout("main", base / "out")

    assert differences(tree, base / "out") == ""
    assert witness(os.fsencode(tree)) == witness(os.fsencode(base / "out"))


@few
@given(seeds, st.sampled_from(["squashfs", "erofs"]))
def test_a_mounted_root_image_is_the_tree(
    tmp_path_factory: pytest.TempPathFactory, seed: int, image_format: str
) -> None:
    if image_format == "erofs" and shutil.which("mkfs.erofs") is None:
        pytest.skip("erofs-utils are not installed")
    base = tmp_path_factory.mktemp("trip")
    # squashfs has no place for ACLs, and mkfs.erofs 1.5 fails on the longest names.
    erofs = image_format == "erofs"
    tree = _planted(base, seed, acls=erofs, name_bytes=254 if erofs else 255)
    repository = Repository.init(base / "repository")
    repository.commit_tree(tree, "main", "m")
    export_as(repository, "main", image_format, base / "image")
    (base / "mnt").mkdir()

    with _mounted("-t", image_format, "-o", "loop,ro", str(base / "image"), str(base / "mnt")):
        assert differences(tree, base / "mnt", "--no-times") == ""
        before, after = (witness(os.fsencode(path), times=False) for path in (tree, base / "mnt"))
    assert before == after


@pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="erofs-utils are not installed")
def test_an_erofs_has_the_longest_names_or_the_error_names_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ("n" * 255)).write_text("x")
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(tree, "main", "m")
    (tmp_path / "mnt").mkdir()
    try:
        export_as(repository, "main", "erofs", tmp_path / "image")
    except ToolError as error:
        assert "255 bytes" in str(error)  # noqa: PT017 - an erofs-utils that can do it is right, too
        return
    with _mounted("-t", "erofs", "-o", "loop,ro", str(tmp_path / "image"), str(tmp_path / "mnt")):
        assert differences(tree, tmp_path / "mnt", "--no-times") == ""


@few
@given(seeds, st.sampled_from(["tar", "oci", "oci-archive"]), st.sampled_from(["zstd", "gzip", "none"]))
def test_an_archive_comes_back_as_the_tree_it_was(
    tmp_path_factory: pytest.TempPathFactory, seed: int, image_format: str, compression: str
) -> None:
    base = tmp_path_factory.mktemp("trip")
    tree = _planted(base, seed)
    commit = Repository.init(base / "repository").commit_tree(tree, "main", "m", keep_times=True).commit
    compressed = None if image_format == "tar" else compression
    export_as(Repository.open(base / "repository"), "main", image_format, base / "image", compression=compressed)
    other = Repository.init(base / "other")

    source = f"{base / 'image'}" if image_format == "tar" else f"{image_format}:{base / 'image'}"
    again = import_source(other, source, "main", "m", options=KEEP).commit

    assert again.tree == commit.tree
    other.checkout("main", base / "out")
    assert witness(os.fsencode(tree)) == witness(os.fsencode(base / "out"))


@few
@given(seeds)
def test_gnu_tar_and_our_tar_mean_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """GNU tar unpacks what we export, and we import what GNU tar packs."""
    base = tmp_path_factory.mktemp("trip")
    tree = _planted(base, seed, acls=False)  # GNU tar 1.34 writes ACLs with names of this machine's users
    repository = Repository.init(base / "repository")
    commit = repository.commit_tree(tree, "main", "m").commit
    export_as(repository, "main", "tar", base / "ours.tar")
    attributes = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    (base / "out").mkdir()

    subprocess.run(["tar", "-C", base / "out", *attributes, "-xpf", base / "ours.tar"], check=True, capture_output=True)
    subprocess.run(
        ["tar", "-C", tree, *attributes, "--format=pax", "--sparse", "-cf", base / "theirs.tar", "."],
        check=True,
        capture_output=True,
    )

    again = import_source(
        repository, str(base / "theirs.tar"), "again", "m", options=ImportOptions(devices=Devices.KEEP)
    )
    assert again.commit.tree == commit.tree
    assert witness(os.fsencode(tree), times=False) == witness(os.fsencode(base / "out"), times=False)


@few
@given(seeds)
def test_a_base_and_its_difference_are_the_new_tree(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    base = tmp_path_factory.mktemp("trip")
    tree = _planted(base, seed)
    gardener = WideGardener(seed)
    repository = Repository.init(base / "repository")
    repository.commit_tree(tree, "one", "m")
    gardener.change(os.fsencode(tree))
    changed = repository.commit_tree(tree, "two", "m").commit

    export_as(repository, "two", "oci-archive", base / "image", base="one")

    options = ImportOptions(devices=Devices.KEEP)
    again = import_source(repository, f"oci-archive:{base / 'image'}", "again", "m", options=options).commit
    assert again.tree == changed.tree


@few
@given(seeds)
@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_a_base_and_its_difference_as_the_new_tree(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """umoci restores no trusted attributes: those are left out of the comparison."""
    base = tmp_path_factory.mktemp("trip")
    tree = _planted(base, seed, acls=False)
    gardener = WideGardener(seed)
    gardener.acls = False
    repository = Repository.init(base / "repository")
    repository.commit_tree(tree, "one", "m")
    gardener.change(os.fsencode(tree))
    repository.commit_tree(tree, "two", "m")
    export_as(repository, "two", "oci", base / "image", base="one", compression="gzip")

    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{base / 'image'}:two", base / "out"], check=True, capture_output=True
    )

    def plain(top: Path) -> dict[bytes, tuple[object, ...]]:
        found = {}
        for path, item in witness(os.fsencode(top), times=False).items():
            xattrs: tuple[tuple[str, bytes], ...] = item[5]  # type: ignore[assignment]
            kept = tuple(pair for pair in xattrs if not pair[0].startswith("trusted."))
            found[path] = (*item[:5], kept, *item[6:])
        return found

    assert plain(tree) == plain(base / "out")
