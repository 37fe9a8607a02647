from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.fsck import fsck
from koguma.images.repository import Repository
from koguma.images.trees import lookup
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


def test_a_lost_pack_is_reported_with_what_it_affects(filled: Repository) -> None:
    entry = lookup(filled.objects.read, filled.root(filled.resolve("main")), b"d/c")
    assert entry is not None
    (pack,) = [reader for reader in filled.objects.packs() if reader.find(entry.digest)]
    pack.path.unlink()
    pack.index_path.unlink()

    problems = fsck(Repository.open(filled.path)).problems

    assert problems
    assert any("branch main" in problem for problem in problems)
