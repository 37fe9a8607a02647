"""Settling the conflicts of a session: which are still open, acknowledging them, taking a path from one side.

A text conflict is settled when its markers are gone, a dependency when it is met again, everything else when somebody
says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from koguma.images.debian import STATUS
from koguma.images.errors import EditError
from koguma.images.history import merge_bases
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.merging.depends import broken_dependencies
from koguma.images.merging.text import TEXT_MAX_BYTES, has_markers
from koguma.images.repository import Repository
from koguma.images.sessions import Session, alone, folder_of, mark_resolved, pending, read_conflicts, read_session
from koguma.images.trees import FILE, Entry, lookup
from koguma.images.upperlayer import replace_path

OURS, THEIRS, BASE = "ours", "theirs", "base"
_WHOLE_PATH = (
    Problem.TEXT,
    Problem.CONTENT,
    Problem.TYPE,
    Problem.REMOVED,
    Problem.MODE,
    Problem.OWNER,
    Problem.XATTRS,
    Problem.TARGET,
    Problem.DEVICE,
    Problem.LINKS,
    Problem.STALE,
)
"""What taking a whole path from one side settles. The others are about an entry of a file that has many."""
_SHOWN_MAX = 3


def open_conflicts(repository: Repository, branch: str) -> list[Conflict]:
    """The conflicts of a branch's session that still need a decision, as its layer is now."""
    upper = folder_of(repository, branch) / "upper"
    session = read_session(repository, branch)
    waiting = [item for item in read_conflicts(repository, branch) if not item.resolved]
    broken = None
    found = []
    for item in waiting:
        if item.problem is Problem.TEXT:
            settled = not _markers_at(upper, item.path)
        elif item.problem is Problem.DEPENDS and session is not None:
            broken = _broken_now(repository, session, upper) if broken is None else broken
            settled = item.subject not in broken
        else:
            settled = False
        if not settled:
            found.append(item)
    return found


def check_settled(repository: Repository, branch: str) -> None:
    """Raises EditError while a conflict is open."""
    found = open_conflicts(repository, branch)
    if not found:
        return
    shown = ", ".join(_place(item) for item in found[:_SHOWN_MAX]) + (" …" if len(found) > _SHOWN_MAX else "")
    raise EditError(
        f"a commit needs every conflict settled, {len(found)} are open ({shown}); koguma image status -b {branch} lists"
        f" them, koguma image resolved -b {branch} PATH… settles them"
    )


def resolve(
    repository: Repository, branch: str, paths: Sequence[bytes], *, take: str | None = None, force: bool = False
) -> list[Conflict]:
    """Say that the conflicts at and below these paths are settled; returns those that were.

    `take` ours, theirs or base replaces the whole paths by what they are there. Raises EditError for paths without a
    conflict, for text that still has markers (unless `force`), and when one entry of a database cannot be taken alone.
    """
    with alone(repository, branch):
        session = pending(repository, branch)
        if session is None or session.operation is None:
            raise EditError(
                f"there is nothing to resolve on branch {branch!r}: no merge, cherry-pick or revert is pending"
            )
        waiting = [item for item in read_conflicts(repository, branch) if not item.resolved]
        chosen = [item for path in paths for item in _at(waiting, path)]
        for item in chosen:
            _check(repository, branch, item, take, force=force)
        if take is not None:
            lower = repository.root(repository.commit(session.base))
            side = _side(repository, session, take)
            for path in dict.fromkeys(item.path for item in chosen):
                replace_path(repository.objects, lower, side, path, folder_of(repository, branch) / "upper")
        mark_resolved(repository, branch, chosen)
        return chosen


def _at(waiting: Sequence[Conflict], path: bytes) -> list[Conflict]:
    path = path.strip(b"/")
    found = [item for item in waiting if item.path == path or item.path.startswith(path + b"/") or not path]
    if not found:
        raise EditError(f"a path to resolve must have an open conflict, got {os.fsdecode(path)!r}")
    return found


def _check(repository: Repository, branch: str, item: Conflict, take: str | None, *, force: bool) -> None:
    if take is not None and item.problem not in _WHOLE_PATH:
        raise EditError(
            f"{_place(item)} is one entry of a file that merges by entry, it cannot be taken from {take} alone; settle"
            f" it with koguma image edit {branch}, then say resolved without --{take}"
        )
    upper = folder_of(repository, branch) / "upper"
    if take is None and not force and item.problem is Problem.TEXT and _markers_at(upper, item.path):
        raise EditError(
            f"{_place(item)} still has conflict markers; remove them with koguma image edit {branch}, take a side with"
            f" --ours or --theirs, or keep them with --force"
        )


def _side(repository: Repository, session: Session, take: str) -> Entry:
    """The root of the side that a path is taken from."""
    operation = session.operation
    assert operation is not None  # noqa: S101 - checked by resolve
    commit = repository.commit(operation.commit)
    if take == OURS:
        return repository.root(repository.commit(session.base))
    if operation.kind == "merge":
        if take == THEIRS:
            return repository.root(commit)
        bases = merge_bases(repository.commit, session.base, operation.commit)
        if not bases:
            raise EditError("these histories have no base to take a path from; take ours or theirs")
        return repository.root(repository.commit(bases[0]))
    # What is picked or undone is what lies between a commit and its parent.
    parent = repository.commit(operation.notes.get("mainline") or commit.parents[0])
    changed, before = (parent, commit) if operation.kind == "revert" else (commit, parent)
    return repository.root(changed if take == THEIRS else before)


def _markers_at(upper: Path, path: bytes) -> bool:
    place = Path(os.fsdecode(os.fsencode(upper) + b"/" + path))
    if place.is_symlink() or not place.is_file() or place.stat().st_size > TEXT_MAX_BYTES:
        return False
    return has_markers(place.read_bytes())


def _broken_now(repository: Repository, session: Session, upper: Path) -> set[str]:
    operation = session.operation
    if operation is None:
        return set()
    now = upper / os.fsdecode(STATUS)
    sides = [_status_of(repository, _side(repository, session, take)) for take in (OURS, THEIRS)]
    present = now.read_bytes() if now.is_file() else sides[0]
    return {item.subject for item in broken_dependencies(sides[0], sides[1], present)}


def _status_of(repository: Repository, root: Entry) -> bytes:
    entry = lookup(repository.objects.read, root, STATUS)
    return repository.objects.read(entry.digest) if entry and entry.kind == FILE and entry.size else b""


def _place(item: Conflict) -> str:
    path = "/" + item.path.decode("utf-8", "backslashreplace")
    return f"{path} ({item.subject})" if item.subject else path
