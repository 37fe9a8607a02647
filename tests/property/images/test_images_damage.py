"""Any single flipped or missing byte, anywhere in a repository, is found by fsck; gc loses nothing a ref reaches."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koguma.images.errors import ImageError
from koguma.images.fsck import fsck
from koguma.images.gc import collect
from koguma.images.repack import merge_if_many
from koguma.images.repository import Repository
from tests.unit.images.making import make_bootable_tree, make_repository, make_tree

NOT_CHECKED = ("cache", "locks", "tmp", "edit", "incoming")
"""Caches say of themselves that they may be deleted; locks are empty."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with branches, a tag, history, boot artifacts, and a pack with records its index leaves out."""
    folder = tmp_path_factory.mktemp("damage")
    repository = make_repository(folder / "repository")
    tree = make_bootable_tree(folder / "tree")
    repository.commit_tree(tree, "main", "first", remember=False)
    make_tree(tree, {"etc/b": "2" * 2000, "etc/c": os.urandom(500)})
    repository.commit_tree(tree, "main", "second", remember=False)
    repository.create_branch("other", "main~1")
    repository.create_tag("v1", "main")
    repository.update_labels()
    assert (repository.path / "boot/artifacts" / repository.resolve("main").id).is_dir()
    assert fsck(repository).problems == ()
    yield repository.path
    shutil.rmtree(folder)


def _files(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.stat().st_size and file.relative_to(path).parts[0] not in NOT_CHECKED
    )


def _is_found(path: Path) -> bool:
    try:
        with Repository.open(path) as repository:
            return bool(fsck(repository).problems)
    except ImageError:
        return True


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_flipped_or_missing_byte_is_found(whole: Path, data: st.DataObject) -> None:
    files = _files(whole)
    file = data.draw(st.sampled_from(files), label="file")
    original = file.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1), label="byte")
    flip = data.draw(st.integers(0, 255), label="flipped bits, 0: the byte is missing")
    changed = original[:at] + (bytes([original[at] ^ flip]) if flip else b"") + original[at + 1 :]
    file.write_bytes(changed)
    try:
        assert _is_found(whole), f"byte {at} of {file.relative_to(whole)} changed by {flip:#x}"
    finally:
        file.write_bytes(original)


@pytest.mark.slow
def test_every_third_byte_of_the_small_files_is_checked(whole: Path) -> None:
    chance = random.Random(7)
    for file in _files(whole):
        original = file.read_bytes()
        if len(original) > 700 or file.name in ("kernel", "initrd"):
            continue
        for at in range(chance.randrange(3), len(original), 3):
            flip = chance.randrange(256)
            file.write_bytes(original[:at] + (bytes([original[at] ^ flip]) if flip else b"") + original[at + 1 :])
            assert _is_found(whole), f"byte {at} of {file.relative_to(whole)} changed by {flip:#x}"
        file.write_bytes(original)
    assert not _is_found(whole)


def test_every_missing_file_but_a_new_ref_is_found(whole: Path) -> None:
    for file in _files(whole):
        if file.relative_to(whole).parts[0] in ("refs", "signatures") or file.name == "labels.json":
            continue  # a ref with a single change in its log may never have been made; labels are made again
        away = whole.parent / "away"
        file.rename(away)
        assert _is_found(whole), f"without {file.relative_to(whole)}"
        away.rename(file)


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("branch"), st.sampled_from("abc"), st.sampled_from("abc")),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("move"), st.sampled_from("abc"), st.integers(1, 3)),
        st.tuples(st.just("gc"), st.sampled_from([0.0, 3600.0]), st.just(0)),
        st.tuples(st.just("merge"), st.just(""), st.just(0)),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=_OPERATIONS)
def test_gc_never_loses_what_a_ref_reaches(tmp_path_factory: pytest.TempPathFactory, operations: list[tuple]) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("gc")
    repository = make_repository(folder / "repository")
    tree = make_tree(folder / "tree", {"same/a": "1", "same/b": "2" * 300})
    contents: dict[str, bytes] = {}
    try:
        for operation, first, second in operations:
            _apply(repository, tree, operation, first, second, contents)
            with Repository.open(repository.path) as again:
                assert fsck(again).problems == ()
        for ref in repository.refs.all():
            for commit in repository.log(ref.name):
                wanted = contents[commit.id]
                repository.checkout(commit.id, folder / commit.id)
                assert (folder / commit.id / "changing").read_bytes() == wanted
                shutil.rmtree(folder / commit.id)
    finally:
        repository.close()
        shutil.rmtree(folder)


def _apply(
    repository: Repository, tree: Path, operation: str, first: object, second: object, contents: dict[str, bytes]
) -> None:
    names = {ref.name for ref in repository.refs.all()}
    if operation == "commit":
        content = b"%d" % second * 200
        (tree / "changing").write_bytes(content)
        made = repository.commit_tree(tree, str(first), f"{second}", remember=second % 2 == 0)  # type: ignore[operator]
        contents[made.commit.id] = content
    elif operation == "branch" and second in names and first not in names:
        repository.create_branch(str(first), str(second))
    elif operation == "remove" and first in names and first != repository.refs.head():
        repository.remove(str(first))
    elif operation == "move" and first in names:
        history = list(repository.log(str(first)))
        repository.move_branch(str(first), history[min(int(str(second)), len(history) - 1)].id)
    elif operation == "gc":
        collect(repository, grace_s=float(str(first)))
    elif operation == "merge":
        merge_if_many(repository.objects)
