"""What is going on in a branch: its pending edit, what that changed, what is still to be decided."""

from __future__ import annotations

import os
from dataclasses import dataclass

from koguma.images.aid import copied_up
from koguma.images.commits import Commit
from koguma.images.diff import Diff, diff_trees
from koguma.images.draft import Folder, store_root
from koguma.images.errors import EditError, ImageError
from koguma.images.merging.conflicts import Conflict
from koguma.images.overlay import apply_upper
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.resolving import open_conflicts
from koguma.images.scratch import ScratchHasher, ScratchWriter
from koguma.images.sessions import Session, alone, folder_of, is_over, pending_edits, read_conflicts, read_session
from koguma.images.trees import read_root


@dataclass(frozen=True, slots=True)
class Status:
    """A branch as it is now."""

    branch: str
    head: str
    """The branch that commands mean when none is named."""
    commit: Commit | None
    """The branch's head; None: it has no commit yet."""
    session: Session | None
    """Its pending edit."""
    is_open: bool
    """Whether a process is in that edit now; what it changes meanwhile may be missing here."""
    moved: bool
    """Whether the branch has moved since the edit began: it can only be discarded."""
    changes: Diff | None
    """What the edit changed so far; None: there is none, or it cannot be read while it is being changed."""
    open_conflicts: tuple[Conflict, ...]
    settled_conflicts: tuple[Conflict, ...]
    others: tuple[str, ...]
    """Other branches with a pending edit."""


def status(repository: Repository, branch: str | None = None) -> Status:
    """The state of a branch (HEAD's when none is named). Changes nothing; costs what the edit changed."""
    head = repository.refs.head()
    branch = branch or head
    commit_id = repository.refs.get(RefKind.BRANCH, branch)
    if commit_id is None and branch != head:
        raise EditError(f"there is no branch {branch!r}; koguma image branch lists them")
    session = read_session(repository, branch)
    if session is not None and is_over(repository, branch, session):
        session = None
    waiting = tuple(open_conflicts(repository, branch)) if session else ()
    conflicts = read_conflicts(repository, branch) if session else []
    is_open = session is not None and _is_open(repository, branch)
    return Status(
        branch=branch,
        head=head,
        commit=repository.commit(commit_id) if commit_id else None,
        session=session,
        is_open=is_open,
        moved=session is not None and session.base != commit_id,
        changes=_changes(repository, branch, session, is_open=is_open) if session else None,
        open_conflicts=waiting,
        settled_conflicts=tuple(item for item in conflicts if item not in waiting),
        others=tuple(item for item in pending_edits(repository) if item != branch),
    )


def _is_open(repository: Repository, branch: str) -> bool:
    try:
        with alone(repository, branch):
            return False
    except EditError:
        return True


def _changes(repository: Repository, branch: str, session: Session, *, is_open: bool) -> Diff | None:
    """What a commit of the edit would change, found without storing anything."""
    base = repository.root(repository.commit(session.base))
    scratch = ScratchWriter(repository.objects)
    draft, folder = Folder(base, scratch.read), folder_of(repository, branch)
    try:
        with ScratchHasher(scratch) as hasher:
            apply_upper(os.fsencode(folder / "upper"), draft, hasher, left_out=copied_up(folder))
        return diff_trees(scratch.read, base, read_root(scratch.read, store_root(draft, scratch)))
    except (ImageError, OSError):
        if is_open:
            return None  # a file went away between being listed and being read
        raise
