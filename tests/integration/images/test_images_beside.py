"""gc without any grace period beside processes that commit, branch and read: nobody loses anything, nobody fails."""

from __future__ import annotations

import math
import os
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.errors import ImageError, RefError
from koguma.images.fsck import fsck
from koguma.images.gc import collect
from koguma.images.repository import Repository
from koguma.images.trees import FILE, walk
from tests.unit.images.making import make_repository, make_tree

pytestmark = pytest.mark.slow
_FOR_S = 8.0


def _forked(words: Path, work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; what it raises is in `words`."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        words.write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _commits(path: Path, tree: Path, branch: str, seed: int, until: float) -> None:
    """Commit contents that come, go and come back, so that garbage is found again by its content."""
    chance = random.Random(seed)
    contents = [b"%d " % number * 400 for number in range(12)]
    while time.monotonic() < until:
        for number in range(4):
            make_tree(tree, {f"d{number}/file": chance.choice(contents)})
        with Repository.open(path) as repository:
            repository.commit_tree(tree, branch, "a commit", remember=chance.random() < 0.5)
            if chance.random() < 0.4:
                history = list(repository.log(branch))
                repository.move_branch(branch, history[min(len(history) - 1, chance.randrange(4))].id)


def _reads(path: Path, branches: list[str], until: float) -> None:
    """Read whole commits through a store that stays open, as a boot service does."""
    chance = random.Random(0)
    with Repository.open(path) as repository:
        while time.monotonic() < until:
            ref = repository.refs.find(chance.choice(branches))
            if ref is None:
                continue
            try:
                root = repository.root(repository.commit(ref.commit))
                for _, entry in walk(repository.objects.read, root):
                    if entry.kind == FILE:
                        assert len(repository.objects.read(entry.digest)) == entry.size
            except ImageError:
                # Only a commit that its branch has left may be gone.
                now = repository.refs.find(ref.name)
                assert now is None or now.commit != ref.commit


def _collects(path: Path, until: float) -> None:
    while time.monotonic() < until:
        with Repository.open(path) as repository:
            try:
                collect(repository, grace_s=0, reflog_keep_s=0)
            except ImageError as error:
                if "gc" not in str(error):  # a writer merges small packs, or one that began earlier takes long
                    raise


def _renames(path: Path, until: float) -> None:
    """Make and remove branches at commits that are about to lose their last ref."""
    chance = random.Random(3)
    while time.monotonic() < until:
        with Repository.open(path) as repository:
            start = repository.refs.find(chance.choice(["a", "b"]))
            if start is None:
                continue
            try:
                repository.create_branch("kept", start.commit)
                time.sleep(0.05)
                repository.remove("kept")
            except RefError:
                continue
            except ImageError as error:
                if start.commit not in str(error) and "there is no branch" not in str(error):
                    raise


def test_gc_beside_commits_refs_and_readers_loses_nothing(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository")
    until = time.monotonic() + _FOR_S
    path = repository.path
    repository.close()
    work: dict[str, Callable[[], None]] = {
        "a": lambda: _commits(path, tmp_path / "tree-a", "a", 1, until),
        "b": lambda: _commits(path, tmp_path / "tree-b", "b", 2, until),
        "gc": lambda: _collects(path, until),
        "gc 2": lambda: _collects(path, until),
        "reader": lambda: _reads(path, ["a", "b", "kept"], until),
        "renames": lambda: _renames(path, until),
    }
    children = {name: _forked(tmp_path / f"words-{name}", action) for name, action in work.items()}

    failed = [name for name, child in children.items() if os.waitpid(child, 0)[1] != 0]

    assert failed == [], (tmp_path / f"words-{failed[0]}").read_text()
    with Repository.open(path) as after:
        problems = fsck(after).problems
        assert problems == (), problems
        assert len(list(after.log("a"))) + len(list(after.log("b"))) > 10
        collect(after, grace_s=0)
        assert fsck(after).problems == ()
        # Each pack has twice the bytes of all smaller ones: how many there are depends on how much was committed.
        sizes = sorted(pack.size_bytes for pack in after.objects.packs())
        assert len(sizes) <= 1 + math.log2(sum(sizes) / sizes[0]), sizes
