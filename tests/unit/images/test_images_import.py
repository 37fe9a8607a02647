"""Tar files, ordinary and hostile. What is refused leaves the repository as it was."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.diskimage import is_disk_image
from koguma.images.errors import TreeError
from koguma.images.importing import ImportOptions, Repeated, import_source, import_tar
from koguma.images.repository import Repository
from koguma.images.tarstream import tar_stream
from koguma.images.trees import lookup
from tests.unit.images.archives import header
from tests.unit.images.making import make_tree


def _tar(*members: tuple[str, dict[str, object], bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, values, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in values.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    file.seek(0)
    return file


def test_a_tar_of_a_tree_gives_the_same_tree_as_the_directory(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path / "tree", {"a": "1", "d/b": "2" * 70_000, "x" * 150: "long", "m.py": "", "__pycache__/m.c.pyc": ""}
    )
    (tree / "d" / "link").symlink_to("y" * 140)
    (tree / "hard").hardlink_to(tree / "d" / "b")
    os.mkfifo(tree / "fifo")
    os.setxattr(tree / "a", "user.binary", b"\xff\0\n=")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tree, arcname=".", filter=_with_xattrs(tree))

    imported = import_source(repository, str(tmp_path / "t.tar.gz"), "tar", "m").commit

    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree


def _with_xattrs(tree: Path) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    def add(member: tarfile.TarInfo) -> tarfile.TarInfo:
        path = tree / member.name
        for name in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, name, follow_symlinks=False)
            member.pax_headers |= {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}  # type: ignore[operator]
        return member

    return add


def test_our_own_tar_stream_is_read_back_as_the_same_tree(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1", "d/b": "2" * 513, "n" * 200: "long", "empty": ""})
    (tree / "link").symlink_to("z" * 300)
    (tree / "hard").hardlink_to(tree / "d" / "b")
    os.setxattr(tree / "a", "user.binary", b"\xff\0\n=" * 99)
    os.setxattr(tree / "a", "user.odd=%3D%25%", b"1")
    commit = repository.commit_tree(tree, "main", "m").commit
    stream = b"".join(tar_stream(repository.objects, repository.root(commit)))

    assert import_tar(repository, io.BytesIO(stream), "stream", "again", "m").commit.tree == commit.tree
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        assert archive.getmember("a").size == 1


def test_a_name_that_comes_twice_is_the_last_one_when_that_is_asked_for(repository: Repository) -> None:
    file = _tar(("a", {}, b"first"), ("a", {}, b"second!"))
    options = ImportOptions(repeated=Repeated.LAST)

    commit = import_tar(repository, file, "t", "main", "m", options=options).commit

    entry = lookup(repository.objects.read, repository.root(commit), b"a")
    assert entry is not None
    assert repository.objects.read(entry.digest) == b"second!"


def test_options_of_another_kind_of_source_are_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(_tar(("a", {}, b"1")).getvalue())
    directory = make_tree(tmp_path / "tree", {"a": "1"})

    for source in (str(tmp_path / "t.tar"), str(directory), "-"):
        with pytest.raises(
            TreeError, match=f"only an OCI image has a platform to choose, got .*linux/arm64 for {source}"
        ):
            import_source(repository, source, "main", "m", options=ImportOptions(platform="linux/arm64"))
    for source in (str(tmp_path / "t.tar"), str(directory), "-", f"oci:{directory}"):
        with pytest.raises(TreeError, match=f"only a disk image has partitions, got --partition 2 for {source}"):
            import_source(repository, source, "main", "m", options=ImportOptions(partition=2))


def test_a_disk_image_is_not_taken_for_a_tar_nor_a_tar_for_one() -> None:
    ext = bytearray(4096)
    ext[0x438:0x43A] = b"\x53\xef"
    ext[0x44C] = 1
    mbr = bytes(510) + b"\x55\xaa" + bytes(4096)
    odd = ext[512:] + bytes(512)
    for disk in (bytes(ext), mbr, b"XFSB" + bytes(4096), b"QFI\xfb" + bytes(4096), b"hsqs" + bytes(4096)):
        assert is_disk_image(io.BytesIO(disk))
    named = _tar(("hsqs", {}, bytes(odd))).getvalue()
    old = header(b"QFI\xfb", size=4096, magic=bytes(8)) + bytes(odd)
    for magic in (b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        assert not is_disk_image(io.BytesIO(magic + bytes(ext)[len(magic) :]))
        assert not is_disk_image(io.BytesIO(magic + mbr[len(magic) :]))
    for other in (named, old, b"", bytes(4096), bytes(ext).replace(b"\1", b"\2")):
        assert not is_disk_image(io.BytesIO(other))


DIRECTORY, SYMLINK, HARD_LINK = {"type": tarfile.DIRTYPE}, tarfile.SYMTYPE, tarfile.LNKTYPE

HOSTILE = {
    "outside": [("../evil", {}, b"x")],
    "outside, hidden": [("a/../../evil", {}, b"x")],
    "absolute": [("/etc/passwd", {}, b"x")],
    "through a link": [("etc", {"type": SYMLINK, "linkname": "/etc"}, b""), ("etc/passwd", {}, b"x")],
    "through a file": [("a", {}, b"x"), ("a/b", {}, b"x")],
    "hard link outside": [("a", {"type": HARD_LINK, "linkname": "../../etc/shadow"}, b"")],
    "hard link to an absolute name": [("a", {"type": HARD_LINK, "linkname": "/etc/shadow"}, b"")],
    "hard link to nothing": [("a", {"type": HARD_LINK, "linkname": "b"}, b"")],
    "hard link to a directory": [("d", DIRECTORY, b""), ("a", {"type": HARD_LINK, "linkname": "d"}, b"")],
    "symbolic link to nothing": [("a", {"type": SYMLINK, "linkname": ""}, b"")],
    "too deep": [("d/" * 600 + "x", {}, b"x")],
    "twice": [("a", {}, b"first"), ("./a", {}, b"second")],
    "long name": [("n" * 256, {}, b"x")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_tar_is_refused_and_nothing_of_it_stays(
    repository: Repository, members: list[tuple[str, dict[str, object], bytes]]
) -> None:
    with pytest.raises(TreeError):
        import_tar(repository, _tar(*members), "hostile.tar", "main", "m")

    assert repository.refs.all() == []
    assert list((repository.path / "packs").iterdir()) == []


@pytest.mark.parametrize("cut", [10, 700, 1500])
def test_a_truncated_tar_is_refused(repository: Repository, cut: int) -> None:
    data = _tar(("a", {}, bytes(2000))).getvalue()[:cut]

    with pytest.raises(TreeError, match="tar"):
        import_tar(repository, io.BytesIO(data), "cut.tar", "main", "m")
