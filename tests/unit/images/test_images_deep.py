"""Trees as deep as a path can be: what works on shallow ones works on them."""

from __future__ import annotations

import pytest

from koguma.images.edit import commit_edit
from koguma.images.grep import Searcher, compile_pattern
from koguma.images.merge import Result, merge
from koguma.images.objects import BLOB, TREE
from koguma.images.refs import RefKind
from koguma.images.replay import revert
from koguma.images.repository import Repository
from koguma.images.resolving import resolve
from koguma.images.trees import DEPTH_MAX, DIRECTORY, FILE, Entry, encode, encode_root, lookup

DEPTH = 1900
PATH = b"d/" * DEPTH + b"f"
"""A pending edit has it below a directory of its own, so that it is a little shorter than what the system takes."""


def _commit(repository: Repository, branch: str, content: str) -> str:
    base = repository.refs.get(RefKind.BRANCH, branch)
    with repository.objects.writing() as writer:
        digest = writer.add(BLOB, content.encode())
        tree = writer.add(TREE, encode([Entry(b"f", FILE, 0o644, 0, 0, size=len(content), digest=digest)]))
        for _ in range(DEPTH):
            tree = writer.add(TREE, encode([Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=tree)]))
        root = writer.add(TREE, encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=tree)))
        commit = repository.add_commit(writer, root, [base] if base else [], content)
        writer.finish()
        repository.publish(commit, branch, base)
    return commit.id


@pytest.fixture
def deep(repository: Repository) -> Repository:
    _commit(repository, "main", "1\n2\n3\n4\n5\n")
    repository.create_branch("other")
    _commit(repository, "main", "ours\n2\n3\n4\n5\n")
    _commit(repository, "other", "1\n2\n3\n4\ntheirs\n")
    assert DEPTH < DEPTH_MAX
    return repository


def _content(repository: Repository) -> bytes:
    entry = lookup(repository.objects.read, repository.root(repository.resolve("main")), PATH)
    assert entry
    return repository.objects.read(entry.digest)


def test_they_are_merged_and_reverted(deep: Repository) -> None:
    assert merge(deep, "other", "main").result is Result.COMMITTED
    assert _content(deep) == b"ours\n2\n3\n4\ntheirs\n"
    revert(deep, ["main"], "main", mainline=1)
    assert _content(deep) == b"ours\n2\n3\n4\n5\n"


def test_their_conflicts_are_settled(deep: Repository) -> None:
    _commit(deep, "other", "another\n2\n3\n4\n5\n")

    assert merge(deep, "other", "main").result is Result.CONFLICTS
    resolve(deep, "main", [PATH], take="theirs")
    commit_edit(deep, "main", None)
    assert _content(deep) == b"another\n2\n3\n4\n5\n"


def test_they_are_searched(deep: Repository) -> None:
    (hit,) = Searcher(deep.objects, compile_pattern("ours")).search(deep.root(deep.resolve("main")))

    assert (hit.path, hit.lines) == (PATH, ((1, b"ours"),))
