"""Joins histories: what a merge, a cherry-pick and a revert have in common, and the merge itself.

Steps of `combine`:
1. merge the trees;
2. without conflicts: commit, and the branch moves;
3. otherwise lay the merged tree out as the pending edit of the branch, with what is to be decided beside it;
4. run in that edit what makes stale caches again; when nothing is left to decide, commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from koguma.images.commits import Commit
from koguma.images.draft import store_root
from koguma.images.edit import commit_session, opened
from koguma.images.errors import EditError, MergeError
from koguma.images.files import storage_errors, sync_file_system
from koguma.images.history import is_ancestor, merge_bases
from koguma.images.merging import Conflict, Merged, Note, merge_trees
from koguma.images.merging.conflicts import Problem
from koguma.images.refs import RefKind
from koguma.images.repository import Repository, default_author
from koguma.images.resolving import open_conflicts
from koguma.images.scratch import ScratchWriter
from koguma.images.sessions import (
    MERGE,
    Operation,
    Session,
    alone,
    head_of,
    mark_resolved,
    pending,
    prepare,
    write_conflicts,
    write_session,
)
from koguma.images.trees import Entry, Read, read_root
from koguma.images.upperlayer import lay_out

Say = Callable[[str], None]


class FastForward(Enum):
    """What to do when the other commit was made of the branch's head."""

    ALLOWED = "allowed"
    """Move the branch there."""
    NEVER = "never"
    """Make a merge commit all the same."""
    ONLY = "only"
    """Move the branch, and refuse where that is not enough."""


class Result(Enum):
    """How it ended."""

    UP_TO_DATE = "up to date"
    """The branch has it already."""
    FAST_FORWARD = "fast-forward"
    """The branch moved to a commit that was there."""
    COMMITTED = "committed"
    """There is a new commit."""
    UNCHANGED = "unchanged"
    """What was to be changed is so already; nothing was committed."""
    PREPARED = "prepared"
    """As asked, the result is a pending edit without open conflicts."""
    CONFLICTS = "conflicts"
    """The result is a pending edit with conflicts to be resolved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Result
    commit: Commit
    """The branch's head afterwards, or what it was to be when more was to follow."""
    conflicts: tuple[Conflict, ...] = ()
    """Open ones."""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Sides:
    """What is merged."""

    base: Entry | None
    theirs: Entry
    names: tuple[str, str]
    """What stands behind conflict markers."""
    read: Read
    """Reads their trees; a base made of several lives in memory only."""


def merge(
    repository: Repository,
    revision: str,
    branch: str | None = None,
    *,
    message: str | None = None,
    author: str | None = None,
    fast_forward: FastForward = FastForward.ALLOWED,
    commit: bool = True,
    rebuild: bool = True,
    unrelated: bool = False,
    say: Say = lambda _: None,
) -> Outcome:
    """Merge a revision into a branch (HEAD's when none is named).

    Raises EditError when the branch has a pending edit, MergeError when only a fast-forward was wanted or the histories
    have nothing in common. Without `commit` the result is left as a pending edit; without `rebuild` nothing is run.
    """
    branch = branch or repository.refs.head()
    theirs = repository.resolve(revision)
    with alone(repository, branch):
        ours = unedited_head(repository, branch)
        if is_ancestor(repository.commit, theirs.id, ours.id):
            return Outcome(Result.UP_TO_DATE, ours)
        if fast_forward is not FastForward.NEVER and is_ancestor(repository.commit, ours.id, theirs.id):
            reason = f"merge {revision}: fast-forward"
            author = author or default_author()
            repository.refs.update(RefKind.BRANCH, branch, theirs.id, old=ours.id, author=author, reason=reason)
            repository.refs.set_head(branch)
            return Outcome(Result.FAST_FORWARD, theirs)
        if fast_forward is FastForward.ONLY:
            raise MergeError(
                f"{revision!r} must be made of the head of {branch!r} for a fast-forward, both have commits"
            )
        bases = merge_bases(repository.commit, ours.id, theirs.id)
        if not bases and not unrelated:
            raise MergeError(
                f"a merge needs a commit that both came from, {branch!r} and {revision!r} have none; --allow-unrelated"
                f" merges them nevertheless"
            )
        scratch = ScratchWriter(repository.objects)
        base = _joint_base(repository, bases, scratch)
        operation = Operation(
            MERGE, theirs.id, revision, message or _default_message(repository, revision, branch), (theirs.id,), author
        )
        names = (f"ours ({branch})", f"theirs ({revision})")
        sides = Sides(base, repository.root(theirs), names, scratch.read)
        return combine(repository, branch, ours, sides, operation, commit=commit, rebuild=rebuild, say=say)


def combine(
    repository: Repository,
    branch: str,
    ours: Commit,
    sides: Sides,
    operation: Operation,
    *,
    since: Commit | None = None,
    more: bool = False,
    commit: bool = True,
    rebuild: bool = True,
    say: Say = lambda _: None,
) -> Outcome:
    """Merge into the branch's head; for whoever works `alone` on the branch. See the module's docstring.

    In a row of merges the branch is still at `since` and `ours` was made of that; with `more` to follow, a commit is
    stored and the branch moves only for an edit session. Then the caller keeps a writer open until it has moved.
    """
    since = since or ours
    root = repository.root(ours)
    with repository.objects.writing() as writer:
        merged = merge_trees(sides.read, writer, sides.base, root, sides.theirs, sides.names)
        tree = store_root(merged.draft, writer)
        if commit and not merged.conflicts:
            parents = [ours.id, *operation.parents]
            made = repository.add_commit(
                writer, tree, parents, operation.message, author=operation.author, notes=operation.notes
            )
            writer.finish()
            if not more:
                repository.publish(made, branch, since.id)
            elif made.id != ours.id:
                repository.sign(made)
            result = Result.UNCHANGED if made.id == ours.id else Result.COMMITTED
            return Outcome(result, made, (), tuple(merged.notes))
    notes = tuple(merged.notes)
    session = _begin(repository, branch, Session(ours.id, operation=replace(operation, tree=tree.hex())), merged)
    # After the session, so that whatever ends us leaves the branch where it was, or with a session that can be aborted.
    repository.publish(ours, branch, since.id)
    if rebuild:
        _rebuild(repository, branch, session, merged.conflicts, say)
    # Text that was disputed is committed by whoever looked at it, not because a command took its markers away.
    texts = [item for item in merged.conflicts if item.problem is Problem.TEXT]
    waiting = tuple(open_conflicts(repository, branch) or texts)
    if waiting:
        return Outcome(Result.CONFLICTS, ours, waiting, notes)
    if not commit:
        return Outcome(Result.PREPARED, ours, (), notes)
    done = commit_session(repository, branch, session)
    return Outcome(Result.COMMITTED if done.created else Result.UNCHANGED, done.commit, (), notes)


def unedited_head(repository: Repository, branch: str) -> Commit:
    """The commit a branch is at, when nothing is pending on it; for whoever works `alone` on the branch."""
    head = head_of(repository, branch)
    session = pending(repository, branch)
    if session is None:
        return repository.commit(head)
    what = f"a {session.operation.kind}" if session.operation else "an edit"
    raise EditError(
        f"branch {branch!r} must have nothing pending, there is {what}; commit it with koguma image commit -b {branch},"
        f" or throw it away with koguma image edit {branch} --discard"
    )


def _default_message(repository: Repository, revision: str, branch: str) -> str:
    found = repository.refs.find(revision)
    what = f"{found.kind.word} '{revision}'" if found else f"commit '{revision}'"
    return f"Merge {what} into {branch}"


def _begin(repository: Repository, branch: str, session: Session, merged: Merged) -> Session:
    """Lay the merged tree out as the branch's pending edit; session.json comes last, with it the session is there."""
    if os.geteuid() != 0:
        count = len(merged.conflicts)
        what = f"its {count} conflicts need an edit session" if count else "a result that is not committed is an edit"
        first = f" (first: /{os.fsdecode(merged.conflicts[0].path)})" if count else ""
        raise EditError(f"this needs root: {what}, got user id {os.geteuid()}{first}")
    assert session.operation is not None  # noqa: S101 - it is what begins here
    wanted = read_root(repository.objects.read, bytes.fromhex(session.operation.tree))
    lower = repository.root(repository.commit(session.base))
    with storage_errors("an edit session"):
        upper = prepare(repository, branch, lower)
        lay_out(repository.objects, lower, wanted, upper)
        write_conflicts(repository, branch, merged.conflicts)
        sync_file_system(upper)
        write_session(repository, branch, session)
    return session


def _rebuild(repository: Repository, branch: str, session: Session, conflicts: Sequence[Conflict], say: Say) -> None:
    """Run in the session what makes stale files again; what fails stays a conflict."""
    commands = dict.fromkeys(item.command for item in conflicts if item.problem is Problem.STALE)
    if not commands:
        return
    with opened(repository, branch, session) as run:
        for command in commands:
            say(f"making stale files again: {command}")
            if run(["/bin/sh", "-c", command], quiet=True) == 0:
                done = [item for item in conflicts if item.problem is Problem.STALE and item.command == command]
                mark_resolved(repository, branch, done)
            else:
                say(f"{command} failed; run it with: koguma image edit {branch} -- {command}")


def _joint_base(repository: Repository, bases: Sequence[str], scratch: ScratchWriter) -> Entry | None:
    """The base of a merge. Several bases (a criss-cross) are merged first, with their own bases.

    A path on which the bases themselves disagree counts as having none: whatever the sides made of it differs then,
    and is asked for, unless both made the same.
    """
    if not bases:
        return None
    tree = repository.root(repository.commit(bases[0]))
    for other in bases[1:]:
        common = _joint_base(repository, merge_bases(repository.commit, bases[0], other), scratch)
        theirs = repository.root(repository.commit(other))
        merged = merge_trees(scratch.read, scratch, common, tree, theirs, undecided=True)
        tree = read_root(scratch.read, store_root(merged.draft, scratch))
    return tree


__all__ = ["FastForward", "Outcome", "Result", "combine", "merge"]
