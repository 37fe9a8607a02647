"""The receiving end of a push, in a repository on this machine: whoever sends, the same is checked before a ref moves.

1. Packs were verified record by record when they arrived; what interrupted pushes left is kept.
2. All that a new ref leads to is looked up: a ref never moves to what is not whole.
3. The ref is still what the sender believes, and loses no commit unless that was asked for.
4. The repository's policy on signatures holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from koguma.images.errors import ImageError, ObjectMissingError, RefMovedError
from koguma.images.refs import NO_COMMIT, RefKind, check_ref_name
from koguma.images.signatures import Signature, receive_signatures
from koguma.images.transfer.ancestry import Complete, is_ancestor
from koguma.images.transfer.walk import Walk, one_by_one

if TYPE_CHECKING:
    from koguma.images.repository import Repository


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """What a push asks for."""

    kind: RefKind
    name: str
    old: str | None
    """What the ref must be now; None: it must not exist."""
    new: str | None
    """None: remove it."""
    force: bool = False
    """Whether commits may be lost that `new` does not contain."""


@dataclass(frozen=True, slots=True)
class RefResult:
    update: RefUpdate
    problem: str | None
    """None: the ref is now as asked for."""
    retry: bool = False


def receive(
    repository: Repository, updates: Sequence[RefUpdate], signatures: Sequence[Signature], author: str
) -> list[RefResult]:
    """Move refs, each on its own. Objects must have arrived before."""
    store = repository.objects
    with store.writing():
        store.refresh()
        repository.forget_shallow()
        receive_signatures(repository, signatures)
        complete = Complete(repository.commit, store.contains, [ref.commit for ref in repository.refs.every()])
        return [_one(repository, update, complete, author) for update in updates]


def _one(repository: Repository, update: RefUpdate, complete: Complete, author: str) -> RefResult:
    try:
        _move(repository, update, complete, author)
    except ImageError as error:
        return RefResult(update, str(error), isinstance(error, RefMovedError))
    return RefResult(update, None)


def _move(repository: Repository, update: RefUpdate, complete: Complete, author: str) -> None:
    check_ref_name(update.name)
    if update.new is None:
        repository.refs.delete(update.kind, update.name, old=update.old or NO_COMMIT)
        return
    _require_whole(repository, update.new, complete)
    if update.old and update.old != update.new and not update.force:
        if update.kind is RefKind.TAG:
            raise ImageError(f"a tag stays where it is, {update.name!r} is at {update.old[:12]} ({repository.path})")
        if not is_ancestor(repository.commit, update.old, update.new):
            raise ImageError(
                f"branch {update.name!r} may not lose commits, {update.new[:12]} does not contain {update.old[:12]}; "
                "pull and merge first"
            )
    repository.refs.update(update.kind, update.name, update.new, old=update.old, author=author, reason="push")


def _require_whole(repository: Repository, commit: str, complete: Complete) -> None:
    store = repository.objects
    if complete(commit):
        return
    try:
        plan = Walk(one_by_one(partial(store.read_part, verify=True)), store.contains, complete).run(
            [commit], shallow=repository.shallow, bases=complete.tips
        )
    except ObjectMissingError as error:
        raise ImageError(f"a pushed commit must be whole: {error}") from None
    absent = next(iter([*plan.parts, *plan.files]), None)
    if absent is not None:
        raise ImageError(
            f"a pushed commit must be whole, object {absent.hex()} of {commit[:12]} is in no pack ({store.directory})"
        )
    plan.require_sizes(lambda item: store.describe(item).size)
