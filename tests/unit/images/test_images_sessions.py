"""What is written down of a pending edit: when it begins and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images import files
from koguma.images.edit import commit_edit, discard
from koguma.images.errors import EditError
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.repository import Repository
from koguma.images.sessions import MERGE, Operation, Session, begin, pending_edits, read_conflicts, write_conflicts
from tests.unit.images.making import make_tree


@pytest.fixture
def head(repository: Repository, tmp_path: Path) -> str:
    return repository.commit_tree(make_tree(tmp_path / "tree", {"a": "1"}), "main", "m").commit.id


def test_a_session_that_was_being_thrown_away_when_it_was_killed_is_none(
    repository: Repository, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = Operation(MERGE, head, "other", "Merge", (head,))
    begin(repository, "main", Session(head, operation=operation))
    write_conflicts(repository, "main", [Conflict(b"a", Problem.TEXT, "changed", "changed")])

    def killed(folder: Path) -> None:
        (folder / "conflicts.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "_remove_below", killed)
        with pytest.raises(KeyboardInterrupt):
            discard(repository, "main")

    assert pending_edits(repository) == []
    with pytest.raises(EditError, match="no pending edit"):
        commit_edit(repository, "main", "without the conflict")
    begin(repository, "main", Session(head))
    assert (pending_edits(repository), read_conflicts(repository, "main")) == (["main"], [])
