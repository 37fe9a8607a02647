from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.errors import RepositoryError
from koguma.images.objects import BLOB, COMMIT
from koguma.images.repository import Repository
from koguma.images.sources import open_source
from tests.unit.images.making import make_repository, make_tree


def test_another_repository_gives_the_objects_it_has_and_leaves_out_the_others(
    repository: Repository, tmp_path: Path
) -> None:
    other = make_repository(tmp_path / "other")
    commit = other.commit_tree(make_tree(tmp_path / "tree", {"a": "content"}), "main", "first").commit
    blob = next(item for pack in other.objects.packs() for item in pack.ids() if other.objects.read(item) == b"content")

    source = open_source(repository, str(other.path))
    given = {
        item.id: (item.kind, b"".join(item.content))
        for item in source.fetch([blob, bytes(32), bytes.fromhex(commit.id)])
    }
    source.close()

    assert given == {blob: (BLOB, b"content"), bytes.fromhex(commit.id): (COMMIT, commit.to_bytes())}


def test_a_source_that_is_neither_directory_nor_remote_is_refused(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match="got 'nowhere'"):
        open_source(repository, "nowhere")


def test_a_repository_is_no_source_for_itself(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match="from itself"):
        open_source(repository, str(repository.path))
