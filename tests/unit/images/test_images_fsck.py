from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from koguma.images.commits import Commit
from koguma.images.fsck import fsck
from koguma.images.objects import BLOB, COMMIT, TREE
from koguma.images.packfiles import remove_packs
from koguma.images.refs import RefKind
from koguma.images.repack import copy_objects
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, Entry, encode, encode_root, lookup
from tests.unit.images.making import make_tree


@pytest.fixture
def filled(repository: Repository, tmp_path: Path) -> Repository:
    tree = make_tree(tmp_path / "tree", {"a": "1", "d/b": "2" * 1000})
    repository.commit_tree(tree, "main", "first")
    make_tree(tree, {"d/c": "3"})
    repository.commit_tree(tree, "main", "second")
    return repository


def test_a_whole_repository_has_no_problems(filled: Repository) -> None:
    report = fsck(filled)

    assert (report.packs, report.problems) == (2, ())


def test_a_flipped_byte_in_any_pack_is_found(filled: Repository) -> None:
    for pack in (filled.path / "packs").glob("*.pack"):
        original = pack.read_bytes()
        for at in range(16, len(original), 37):
            damaged = bytearray(original)
            damaged[at] ^= 0x40
            pack.write_bytes(damaged)
            assert fsck(Repository.open(filled.path)).problems, f"byte {at} of {pack.name}"
        pack.write_bytes(original)
    assert fsck(Repository.open(filled.path)).problems == ()


def test_what_is_lost_is_found_though_a_file_has_the_bytes_of_the_tree_that_needs_it(
    repository: Repository, tmp_path: Path
) -> None:
    only = repository.commit_tree(make_tree(tmp_path / "only", {"d/lost": "1"}), "main", "first").commit
    folder, lost = (lookup(repository.objects.read, repository.root(only), path) for path in (b"d", b"d/lost"))
    assert folder
    assert lost
    (pack,) = repository.objects.packs()
    files: dict[str, str | bytes] = {"0": repository.objects.read(folder.digest)}
    repository.commit_tree(make_tree(tmp_path / "copy", files), "z", "its bytes")
    copy_objects(repository.objects, [pack], pack.places().keys() - {lost.digest})
    remove_packs(repository.objects.directory, [pack.name])

    problems = fsck(Repository.open(repository.path)).problems

    assert [problem for problem in problems if lost.digest.hex() in problem and "/d/lost" in problem]


def test_a_tree_that_lies_about_a_size_is_found(repository: Repository) -> None:
    with repository.objects.writing() as writer:
        content = writer.add(BLOB, b"three")
        tree = writer.add(TREE, encode([Entry(b"liar", FILE, 0o644, 0, 0, 3, content)]))
        root = writer.add(TREE, encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=tree)))
        commit = writer.add(COMMIT, Commit(root.hex(), (), "me", 1, "from elsewhere").to_bytes())
        writer.finish()
        repository.refs.update(RefKind.BRANCH, "main", commit.hex(), old=None, author="me", reason="test")

    (problem,) = fsck(Repository.open(repository.path)).problems

    assert f"must have the 3 bytes its tree says, object {content.hex()} has 5" in problem
    assert "/liar in commit" in problem


def test_a_repository_that_may_only_be_read_is_checked(filled: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def read_only(path: Path, flags: int, *arguments: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return really_open(path, flags, *arguments)

    monkeypatch.setattr(os, "open", read_only)

    assert fsck(filled).problems == ()


def test_a_directory_among_the_refs_is_found(filled: Repository) -> None:
    (filled.path / "refs/heads/folder").mkdir()

    (problem,) = fsck(filled).problems
    assert problem.startswith("a ref must be a file, got a directory")


def test_damage_is_found_however_deep_it_lies(repository: Repository) -> None:
    with repository.objects.writing() as writer:
        tree = encode([Entry(b"lost", FILE, 0o644, 0, 0, 3, b"\1" * 32)])
        for _ in range(1015):
            tree = encode([Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, tree))])
        root = writer.add(TREE, encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, tree))))
        commit = writer.add(COMMIT, Commit(root.hex(), (), "me", 1, "deep").to_bytes())
        writer.finish()
        repository.refs.update(RefKind.BRANCH, "main", commit.hex(), old=None, author="me", reason="test")

    (damage,) = fsck(repository).damage

    assert damage.affects.paths == ["/" + "d/" * 1015 + "lost"]


def test_a_lost_pack_is_reported_with_what_it_affects(filled: Repository) -> None:
    entry = lookup(filled.objects.read, filled.root(filled.resolve("main")), b"d/c")
    assert entry is not None
    (pack,) = [reader for reader in filled.objects.packs() if reader.find(entry.digest)]
    pack.path.unlink()
    pack.index_path.unlink()

    problems = fsck(Repository.open(filled.path)).problems

    assert problems
    assert any("branch main" in problem for problem in problems)
