"""What a tree lies on and what is mounted in it: which times tell of a change, and which names are another tree's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from koguma.images import scan
from koguma.images.errors import TreeError
from koguma.images.importing import ImportOptions, import_source
from koguma.images.mounts import Mount, mount_of, mounts_below, read_mounts
from koguma.images.repository import Repository
from koguma.images.statcache import has_ctimes
from koguma.images.trees import DIRECTORY, EMPTY_DIGEST, FILE, lookup
from tests.unit.images.making import let_age, make_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
WHOLE_FILE_SYSTEM = ImportOptions(one_file_system=True)


class _Status:
    """What lstat said, but for what a test says otherwise."""

    def __init__(self, status: os.stat_result, said: dict[str, int]) -> None:
        self._status = status
        self.__dict__.update(said)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._status, name)


@pytest.fixture
def saying(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, dict[str, int]]], None]:
    """Makes the walk see other statuses: by the files' names, `*` for all."""
    look = scan._Walk._list

    def say(said: dict[str, dict[str, int]]) -> None:
        def told(walk: scan._Walk, absolute: bytes) -> tuple[list[tuple[bytes, Any]], bool]:
            found, linked = look(walk, absolute)
            return [
                (name, _Status(status, said.get("*", {}) | said.get(name.decode(), {}))) for name, status in found
            ], linked

        monkeypatch.setattr(scan._Walk, "_list", told)

    return say


@contextmanager
def bound(source: Path, point: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", source, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_change_behind_a_ctime_of_whole_seconds_is_noticed(
    repository: Repository, tmp_path: Path, saying: Callable[[dict[str, dict[str, int]]], None]
) -> None:
    saying({"*": {"st_ctime_ns": 1_700_000_000 * 10**9}})
    tree = make_tree(tmp_path / "tree", {"d/a": "1"})
    repository.commit_tree(tree, "main", "m")

    (tree / "d/a").write_text("2")

    assert repository.commit_tree(tree, "main", "m").created


def test_files_with_one_inode_number_on_two_devices_are_two(
    repository: Repository, tmp_path: Path, saying: Callable[[dict[str, dict[str, int]]], None]
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "one", "b": "other"})
    (tree / "a2").hardlink_to(tree / "a")
    (tree / "b2").hardlink_to(tree / "b")
    lower, upper = {"st_ino": 7, "st_dev": 1}, {"st_ino": 7, "st_dev": 2}
    saying({"a": lower, "a2": lower, "b": upper, "b2": upper})

    commit = repository.commit_tree(tree, "main", "m").commit
    repository.checkout(commit.id, tmp_path / "out")

    assert [(tmp_path / "out" / name).read_text() for name in ("a", "a2", "b", "b2")] == [
        "one",
        "one",
        "other",
        "other",
    ]


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [
        ("ext4", {}, True),
        ("squashfs", {}, False),
        ("fuse.sshfs", {}, False),
        ("nfs4", {}, False),
        ("overlay", {"lowerdir": "ext4", "upperdir": "ext4"}, True),
        ("overlay", {"lowerdir": "fuse", "upperdir": "ext4"}, False),
        ("overlay", {"lowerdir+": "squashfs", "upperdir": "ext4"}, False),
    ],
)
def test_only_file_systems_that_keep_ctimes_are_trusted_and_overlays_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, layers: dict[str, str], expected: bool
) -> None:
    mounts = {1: Mount(0, b"/", kind, b"rw")}
    numbers = {b"tree": 1}
    options = [b"rw", b"lowerdir=/not/seen/from/here"]
    for number, (name, below) in enumerate(layers.items(), 2):
        path = os.fsencode(tmp_path / "with, a: colon" / str(number))
        (tmp_path / "with, a: colon" / str(number)).mkdir(parents=True)
        numbers[path] = number
        mounts[number] = Mount(0, b"/", below, b"rw")
        written = path.replace(b":", b"\\134:").replace(b",", b"\\054").replace(b" ", b"\\040")
        options.append(name.encode() + b"=" + written)
    mounts[1] = mounts[1]._replace(options=b",".join(options))
    monkeypatch.setattr("koguma.images.statcache.mount_of", numbers.__getitem__)

    assert has_ctimes(b"tree", mounts) is expected


def test_a_mount_that_cannot_be_seen_is_not_trusted(tmp_path: Path) -> None:
    assert mount_of(tmp_path) > 0
    assert not has_ctimes(os.fsencode(tmp_path), {})


def test_of_a_tree_without_ctimes_every_file_is_read_every_time(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    let_age()
    repository.commit_tree(tree, "main", "m")
    monkeypatch.setattr(scan, "has_ctimes", lambda *_: False)
    read: list[int] = []

    assert not repository.commit_tree(tree, "main", "m", progress=read.append).created
    assert sum(read) == 1


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_bind_mount_inside_a_tree_is_refused_by_its_name(repository: Repository, tmp_path: Path, kind: str) -> None:
    tree = make_tree(tmp_path / "tree", {"var/cache/mine": "1", "etc/file": "2"})
    outer = make_tree(tmp_path / "outer", {"secret": "3"})
    source, point = (outer, tree / "var/cache") if kind == "directory" else (outer / "secret", tree / "etc/file")

    with bound(source, point), pytest.raises(TreeError, match=f"mounts inside, got '{point}'"):
        repository.commit_tree(tree, "main", "m")

    assert repository.refs.all() == []


@pytest.mark.root
@needs_root
def test_with_one_file_system_a_bind_mount_is_empty_and_its_place_is_read_again_afterwards(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"var/cache/mine": "1", "etc/file": "2"})
    outer = make_tree(tmp_path / "outer", {"secret": "3"})
    let_age()
    whole = repository.commit_tree(tree, "main", "m").commit

    # The file is mounted over itself: nothing that lstat says of it is other than before.
    with bound(outer, tree / "var/cache"), bound(tree / "etc/file", tree / "etc/file"):
        commit = import_source(repository, str(tree), "main", "m", options=WHOLE_FILE_SYSTEM).commit

    read, root = repository.objects.read, repository.root(commit)
    cache, file = lookup(read, root, b"var/cache"), lookup(read, root, b"etc/file")
    assert cache is not None
    assert file is not None
    assert (cache.kind, lookup(read, root, b"var/cache/secret"), lookup(read, root, b"var/cache/mine")) == (
        DIRECTORY,
        None,
        None,
    )
    assert (file.kind, file.size, file.digest) == (FILE, 0, EMPTY_DIGEST)
    assert repository.commit_tree(tree, "main", "m").commit.tree == whole.tree


@pytest.mark.root
@needs_root
def test_a_tree_that_is_a_mount_itself_is_committed(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    (tmp_path / "point").mkdir()
    with bound(tree, tmp_path / "point"):
        tree_id = repository.commit_tree(tmp_path / "point", "main", "m").commit.tree

    assert repository.commit_tree(tree, "main", "m").commit.tree == tree_id


@pytest.mark.root
@needs_root
def test_a_mount_that_another_hides_is_in_nobodys_way(repository: Repository, tmp_path: Path) -> None:
    tree, other = make_tree(tmp_path / "tree", {"d/a": "1"}), make_tree(tmp_path / "other", {"d/b": "2"})
    with bound(tmp_path / "other", tree / "d"), bound(other, tree):
        assert mounts_below(tree, read_mounts()) == [os.fsencode(tree)]
        assert repository.commit_tree(tree, "main", "m").created
