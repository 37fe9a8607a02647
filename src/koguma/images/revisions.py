"""Expressions that name a commit, as git's: `compute`, `v1`, `3f2a91`, `HEAD`, `compute~2`, `compute^2`, `compute@{1}`.

Pure but for the lookups it is given; ranges (`a..b`) are two of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from koguma.images.commits import Commit, is_id
from koguma.images.errors import RevisionError
from koguma.images.objects import COMMIT, ObjectStore
from koguma.images.refs import RefKind, Refs

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = re.compile(r"~(\d*)|\^(\d*)|@\{(\d+)\}")
_HEX = re.compile(r"[0-9a-f]{4,64}")


def resolve(text: str, refs: Refs, store: ObjectStore, read: Callable[[str], Commit]) -> str:
    """The id of the commit that an expression names. Raises RevisionError."""
    base, steps = _split(text)
    commit, steps = _start(base, steps, text, refs, store)
    for sign, count in steps:
        for _ in range(count if sign == "~" else 1):
            if sign == "^" and count == 0:
                continue
            parents = read(commit).parents
            wanted = 0 if sign == "~" else count - 1
            if wanted >= len(parents):
                raise RevisionError(
                    f"a revision must lead to a commit, {text!r} goes past the first one ({commit[:12]})"
                )
            commit = parents[wanted]
    return commit


def split_range(text: str) -> tuple[str, str] | None:
    """The two ends of `a..b`; an end left out is HEAD."""
    left, dots, right = text.partition("..")
    return (left or "HEAD", right or "HEAD") if dots else None


def _split(text: str) -> tuple[str, list[tuple[str, int]]]:
    match = re.search(r"[~^]|@\{", text)
    base, rest = (text[: match.start()], text[match.start() :]) if match else (text, "")
    steps: list[tuple[str, int]] = []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if not step:
            raise RevisionError(f"a revision is NAME, NAME~N, NAME^N or NAME@{{N}}, got {text!r}")
        for sign, number in zip("~^@", step.groups(), strict=True):
            if number is not None:
                steps.append((sign, int(number or 1)))
        at = step.end()
    return base or "HEAD", steps


def _start(
    base: str, steps: list[tuple[str, int]], text: str, refs: Refs, store: ObjectStore
) -> tuple[str, list[tuple[str, int]]]:
    if any(sign == "@" for sign, _ in steps[1:]):
        raise RevisionError(f"@{{N}} must follow the name directly, got {text!r}")
    name = refs.head() if base in ("HEAD", "@") else base
    if steps and steps[0][0] == "@":
        return _logged(name, steps[0][1], refs), steps[1:]
    if ref := refs.find(name):
        return ref.commit, steps
    if base in ("HEAD", "@"):
        raise RevisionError(
            f"HEAD is branch {name!r}, which has no commit yet; make one with: koguma image commit -b {name}"
        )
    return _by_id(base, refs, store), steps


def _logged(name: str, number: int, refs: Refs) -> str:
    changes = refs.log(RefKind.BRANCH, name) or refs.log(RefKind.TAG, name)
    if number >= len(changes):
        raise RevisionError(f"the log of {name!r} has {len(changes)} entries, got @{{{number}}}")
    return changes[number].new


def _by_id(text: str, refs: Refs, store: ObjectStore) -> str:
    if is_id(text) and store.contains(bytes.fromhex(text)) and store.describe(bytes.fromhex(text)).kind == COMMIT:
        return text
    found = sorted(_commits_starting(text, store)) if _HEX.fullmatch(text) else []
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(item[:16] for item in found[:4])
        raise RevisionError(f"an abbreviated id must name one commit, {text!r} fits {len(found)}: {ids}")
    from difflib import get_close_matches  # noqa: PLC0415 - only a typing error needs it

    close = get_close_matches(text, [ref.name for ref in refs.all()], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "; koguma image labels lists what there is"
    raise RevisionError(f"there is no branch, tag or commit {text!r}{hint}")


def _commits_starting(text: str, store: ObjectStore) -> Iterator[str]:
    for object_id in store.ids_with_prefix(text):
        if store.describe(object_id).kind == COMMIT:
            yield object_id.hex()
