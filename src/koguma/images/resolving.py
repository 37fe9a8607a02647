"""Settling the conflicts of a session: which are still open, acknowledging them, taking a path from one side.

A text conflict is settled when its file is there without markers, a dependency when it is met again, everything else
when somebody says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from koguma.images.debian import STATUS
from koguma.images.errors import EditError
from koguma.images.history import merge_bases
from koguma.images.merging.acls import follow_mode
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.merging.depends import broken_dependencies
from koguma.images.merging.text import TEXT_MAX_BYTES, has_markers
from koguma.images.repository import Repository
from koguma.images.sessions import Session, alone, folder_of, mark_resolved, pending, read_conflicts, read_session
from koguma.images.trees import FILE, Entry, lookup, read_root
from koguma.images.upperlayer import change_attributes, replace_paths

OURS, THEIRS, BASE = "ours", "theirs", "base"
_WHOLE_PATH = (
    Problem.TEXT,
    Problem.CONTENT,
    Problem.TYPE,
    Problem.REMOVED,
    Problem.TARGET,
    Problem.DEVICE,
    Problem.LINKS,
    Problem.STALE,
)
"""What taking a whole path from one side settles."""
_ATTRIBUTE = (Problem.MODE, Problem.OWNER, Problem.XATTRS)
"""What taking that attribute settles, and nothing else of the path. All others are about an entry of a file."""
_MERGED_TEXT_MAX_BYTES = 4 * TEXT_MAX_BYTES
"""Longer files are not looked into for markers that were moved there."""
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
            settled = _markers_at(upper, item.path) is False
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
    moved = _moved_markers(repository, branch, found)
    raise EditError(
        f"a commit needs every conflict settled, {len(found)} are open ({shown}){moved}; koguma image status -b"
        f" {branch} lists them, koguma image resolved -b {branch} PATH… settles them"
    )


def resolve(
    repository: Repository, branch: str, paths: Sequence[bytes], *, take: str | None = None, force: bool = False
) -> list[Conflict]:
    """Say that the conflicts at and below these paths are settled; returns those that were.

    `take` ours, theirs or base replaces the whole paths by what they are there; where only mode, owner or extended
    attributes are disputed it takes these alone. Raises EditError for paths without a conflict, for text that still has
    markers (unless `force`), and when one entry of a database cannot be taken alone.
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
            _take(repository, session, chosen, take, folder_of(repository, branch) / "upper")
        mark_resolved(repository, branch, chosen)
        return chosen


def laid_out_trees(repository: Repository, session: Session) -> list[Entry]:
    """What the session's layer was laid out from: the merged tree, and the side that paths may have been taken from."""
    if session.operation is None or not session.operation.tree:
        return []
    merged = read_root(repository.objects.read, bytes.fromhex(session.operation.tree))
    theirs = _side(repository, session, THEIRS)
    return [merged, theirs] if theirs else [merged]


def _at(waiting: Sequence[Conflict], path: bytes) -> list[Conflict]:
    path = path.strip(b"/")
    found = [item for item in waiting if item.path == path or item.path.startswith(path + b"/") or not path]
    if not found:
        raise EditError(f"a path to resolve must have an open conflict, got {os.fsdecode(path)!r}")
    return found


def _take(repository: Repository, session: Session, chosen: Sequence[Conflict], take: str, upper: Path) -> None:
    """Let the layer have these paths, or what is disputed of their attributes, from a side."""
    lower = repository.root(repository.commit(session.base))
    side = _side(repository, session, take)
    whole = dict.fromkeys(item.path for item in chosen if item.problem in _WHOLE_PATH)
    changes: dict[bytes, Callable[[Entry], Entry]] = {}
    for path in dict.fromkeys(item.path for item in chosen if item.path not in whole):
        entry = lookup(repository.objects.read, side, path) if side else None
        if entry is None:
            raise EditError(f"{_shown(path)} can only be taken from a side that has it, {take} has nothing there")
        changes[path] = partial(_with_attributes, entry, [item for item in chosen if item.path == path])
    replace_paths(repository.objects, lower, side, list(whole), upper)
    for path, change in changes.items():
        change_attributes(repository.objects, lower, path, change, upper)


def _with_attributes(side: Entry, disputed: Sequence[Conflict], entry: Entry) -> Entry:
    """An entry with the disputed attributes of a side."""
    names = {item.subject for item in disputed if item.problem is Problem.XATTRS}
    problems = {item.problem for item in disputed}
    if Problem.OWNER in problems:
        entry = entry._replace(uid=side.uid, gid=side.gid)
    if Problem.MODE in problems:
        entry = follow_mode(entry._replace(mode=side.mode))
    kept = [item for item in entry.xattrs if _text(item[0]) not in names]
    taken = [item for item in side.xattrs if _text(item[0]) in names]
    return entry._replace(xattrs=tuple(sorted(kept + taken)))


def _check(repository: Repository, branch: str, item: Conflict, take: str | None, *, force: bool) -> None:
    if take is not None and item.problem not in (*_WHOLE_PATH, *_ATTRIBUTE):
        raise EditError(
            f"{_place(item)} is one entry of a file that merges by entry, it cannot be taken from {take} alone; settle"
            f" it with koguma image edit {branch}, then say resolved without --{take}"
        )
    if take is not None or force or item.problem is not Problem.TEXT:
        return
    moved = _moved_markers(repository, branch, [item])
    if moved or _markers_at(folder_of(repository, branch) / "upper", item.path):
        raise EditError(
            f"{_place(item)} still has conflict markers{moved}; remove them with koguma image edit {branch}, take a"
            f" side with --ours or --theirs, or keep them with --force"
        )


def _side(repository: Repository, session: Session, take: str) -> Entry | None:
    """The root of the side that a path is taken from; None: before the first commit, when nothing was there."""
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
    before = operation.notes.get("mainline") or next(iter(commit.parents), None)
    parent = repository.commit(before) if before else None
    wanted = commit if (take == THEIRS) != (operation.kind == "revert") else parent
    return repository.root(wanted) if wanted else None


def _markers_at(upper: Path, path: bytes) -> bool | None:
    """Whether a file of the layer has conflict markers; None: no file is there."""
    place = os.fsencode(upper) + b"/" + path
    try:
        if not stat.S_ISREG(os.lstat(place).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return has_markers(Path(os.fsdecode(place)).read_bytes())


def _moved_markers(repository: Repository, branch: str, conflicts: Sequence[Conflict]) -> str:
    """In words, the files that have conflict markers now, when the file of a text conflict is not where it was."""
    upper = folder_of(repository, branch) / "upper"
    texts = [item.path for item in conflicts if item.problem is Problem.TEXT]
    if all(_markers_at(upper, path) is not None for path in texts):
        return ""
    told = {item.path for item in read_conflicts(repository, branch) if item.problem is Problem.TEXT}
    top = os.fsencode(upper)
    files = sorted(folder + b"/" + name for folder, _, names in os.walk(top) for name in names)
    paths = [file.removeprefix(top + b"/") for file in files if os.lstat(file).st_size <= _MERGED_TEXT_MAX_BYTES]
    found = [_shown(path) for path in paths if path not in told and _markers_at(upper, path)]
    return f" and there are markers in {', '.join(found[:_SHOWN_MAX])}" if found else ""


def _broken_now(repository: Repository, session: Session, upper: Path) -> set[str]:
    operation = session.operation
    if operation is None:
        return set()
    now = upper / os.fsdecode(STATUS)
    sides = [_status_of(repository, _side(repository, session, take)) for take in (OURS, THEIRS)]
    present = now.read_bytes() if now.is_file() else sides[0]
    return {item.subject for item in broken_dependencies(sides[0], sides[1], present)}


def _status_of(repository: Repository, root: Entry | None) -> bytes:
    entry = lookup(repository.objects.read, root, STATUS) if root else None
    return repository.objects.read(entry.digest) if entry and entry.kind == FILE and entry.size else b""


def _place(item: Conflict) -> str:
    return f"{_shown(item.path)} ({item.subject})" if item.subject else _shown(item.path)


def _shown(path: bytes) -> str:
    return "/" + _text(path)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
