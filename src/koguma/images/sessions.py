"""Pending edits on a disk: which commit each lies over, what was begun on it, and what is still to be decided.

Owns `edit/` of a repository but for the layers in it, which are `edit`'s and `upperlayer`'s (drawn in FORMAT.md).
A session begins when session.json is there and ends when that goes: it is written last, read first and removed first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from koguma.images.checkout import apply_attributes
from koguma.images.errors import EditError, ImageError, StorageError
from koguma.images.files import locked, remove_tree, write_atomically
from koguma.images.merging.conflicts import Conflict
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.trees import Entry

MERGE, CHERRY_PICK, REVERT = "merge", "cherry-pick", "revert"
_SESSION = "session.json"
_held: dict[Path, int] = {}
"""The descriptors of the locks that this process holds."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What was begun on a branch besides editing it: how the commit of the session differs from that of an edit."""

    kind: str
    """merge, cherry-pick or revert."""
    commit: str
    """The commit that is merged, picked or reverted."""
    name: str
    """What the operator called it."""
    message: str
    """What the commit says when nothing else is said."""
    parents: tuple[str, ...] = ()
    """Its parents besides the session's base."""
    author: str | None = None
    """Whose change it is; None: who commits it."""
    notes: dict[str, str] = field(default_factory=dict)
    rest: tuple[str, ...] = ()
    """Commits that were to follow, oldest first."""
    start: str = ""
    """Where the branch was before the first of several; where --abort leads back to."""
    tree: str = ""
    """The root object that was laid out, for whoever counts what refers to objects."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is written down of a pending edit."""

    base: str
    """The commit it started from."""
    committed: str | None = None
    """The commit made of it, written before the branch moves: after a crash it tells a finished edit from a pending
    one."""
    operation: Operation | None = None


def folder_of(repository: Repository, branch: str) -> Path:
    return repository.path / "edit" / quote(branch, safe="")


def pending_edits(repository: Repository) -> list[str]:
    """The branches that have one."""
    return sorted(unquote(path.parent.name) for path in (repository.path / "edit").glob(f"*/{_SESSION}"))


@contextmanager
def alone(repository: Repository, branch: str) -> Iterator[None]:
    """One process at a time works on a branch's edit; a second one is told at once instead of waiting for a shell."""
    lock = _lock_of(repository, branch)
    try:
        with locked(lock, timeout_s=0, what=f"the edit of branch {branch!r}") as descriptor:
            _held[lock] = descriptor
            try:
                yield
            finally:
                del _held[lock]
    except ImageError as error:
        if str(lock) in str(error) and not isinstance(error, StorageError):
            raise EditError(f"an edit of branch {branch!r} is open in another process; leave it first") from None
        raise


def lock_held(repository: Repository, branch: str) -> int:
    """The descriptor of the lock, for whoever works `alone` on the branch: processes that inherit it keep others away
    for as long as they live, whatever becomes of this one."""
    return _held[_lock_of(repository, branch)]


def _lock_of(repository: Repository, branch: str) -> Path:
    return repository.path / "locks" / f"edit-{quote(branch, safe='')}"


@contextmanager
def require_none_pending(repository: Repository, branch: str) -> Iterator[None]:
    """Keep edits of a branch from beginning. Raises EditError when one is pending."""
    with alone(repository, branch):
        session = read_session(repository, branch)
        if session is not None and not is_over(repository, branch, session):
            raise EditError(
                f"a branch must have no pending edit to be renamed, {branch!r} has one; commit it, or discard it with:"
                f" koguma image edit {branch} --discard"
            )
        yield


def head_of(repository: Repository, branch: str) -> str:
    """The commit a branch is at. Raises EditError when there is no such branch."""
    head = repository.refs.get(RefKind.BRANCH, branch)
    if head is None:
        raise EditError(f"an edit needs a branch, there is none named {branch!r}; koguma image branch lists them")
    return head


def read_session(repository: Repository, branch: str) -> Session | None:
    """The session as it is written down, nothing cleared away. Raises EditError when it cannot be read."""
    folder = folder_of(repository, branch)
    try:
        return _from_json(json.loads((folder / _SESSION).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EditError(f"an edit's session.json must be readable: {error} ({folder})") from None


def pending(repository: Repository, branch: str) -> Session | None:
    """The pending edit; one that was committed before a crash could clear it away is cleared away here.

    For whoever works `alone` on the branch. Raises EditError when the branch has moved since.
    """
    session = read_session(repository, branch)
    if session is None:
        return None
    if is_over(repository, branch, session):
        end(repository, branch)
        return None
    head = repository.refs.get(RefKind.BRANCH, branch)
    if session.base != head:
        raise EditError(
            f"the pending edit of {branch!r} must lie over the branch's head, it started from {session.base[:12]} and"
            f" the head is {(head or 'none')[:12]}; discard it with: koguma image edit {branch} --discard"
        )
    return session


def is_over(repository: Repository, branch: str, session: Session) -> bool:
    """Whether a session was committed, and only not cleared away."""
    return session.committed is not None and session.committed in (
        change.new for change in repository.refs.log(RefKind.BRANCH, branch)
    )


def begin(repository: Repository, branch: str, session: Session) -> Session:
    """Make the folder of a session with nothing changed in it yet, and the session itself."""
    prepare(repository, branch, repository.root(repository.commit(session.base)))
    write_session(repository, branch, session)
    return session


def prepare(repository: Repository, branch: str, root: Entry) -> Path:
    """An empty upper layer for a session that is written down when the layer is complete; returns the layer."""
    end(repository, branch)
    folder = folder_of(repository, branch)
    folder.mkdir(mode=0o700)
    for name in ("upper", "work", "mnt"):
        (folder / name).mkdir()
    apply_attributes(os.fsencode(folder / "upper"), root)
    return folder / "upper"


def end(repository: Repository, branch: str) -> None:
    """Remove a session and its changes; killed half-way it leaves a folder that is no session any more."""
    remove_tree(folder_of(repository, branch), first=_SESSION)


def write_session(repository: Repository, branch: str, session: Session) -> None:
    document = asdict(session)
    if session.operation is None:
        del document["operation"]
    write_atomically(folder_of(repository, branch) / _SESSION, json.dumps(document).encode())


def read_conflicts(repository: Repository, branch: str) -> list[Conflict]:
    """The conflicts that the session's operation left, the resolved ones among them."""
    folder = folder_of(repository, branch)
    try:
        return [Conflict.from_json(item) for item in json.loads((folder / "conflicts.json").read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise EditError(f"an edit's conflicts.json must be readable: {error} ({folder})") from None


def write_conflicts(repository: Repository, branch: str, conflicts: Sequence[Conflict]) -> None:
    document = [conflict.to_json() for conflict in conflicts]
    write_atomically(folder_of(repository, branch) / "conflicts.json", json.dumps(document).encode())


def mark_resolved(repository: Repository, branch: str, resolved: Sequence[Conflict]) -> list[Conflict]:
    """Write down that these are settled; returns all."""
    done = set(resolved)
    conflicts = [replace(item, resolved=item.resolved or item in done) for item in read_conflicts(repository, branch)]
    write_conflicts(repository, branch, conflicts)
    return conflicts


def _from_json(document: dict[str, Any]) -> Session:
    operation = document.get("operation")
    if operation is not None:
        lists = {name: tuple(operation[name]) for name in ("parents", "rest")}
        operation = Operation(**{**operation, **lists})
    return Session(document["base"], document["committed"], operation)
