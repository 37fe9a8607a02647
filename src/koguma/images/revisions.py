"""Expressions that name commits, as git's.

One commit: `compute`, `v1`, `site/compute`, `3f2a91`, `HEAD`, `@`, `compute~2`, `compute^2`, `compute@{1}`,
`compute@{yesterday}`, `:/text` (the newest commit whose message has the text). Several: `a..b` (those of b that a does
not have), `a...b` (those that only one of them has), `^a`.

Pure but for the lookups it is given.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from koguma.images.commits import Commit, is_id
from koguma.images.errors import RevisionError
from koguma.images.history import ancestors, merge_bases
from koguma.images.objects import COMMIT, ObjectStore
from koguma.images.refs import NO_COMMIT, RefChange, RefKind, Refs

_STEP = re.compile(r"~(\d*)|\^(\d*)")
_HEX = re.compile(r"[0-9a-f]{4,64}")
_LISTED_MAX = 8
_ABBREVIATED_MIN = 4

CommitOf = Callable[[str], Commit]


class Selection(NamedTuple):
    """Which commits several expressions select: `wanted` and all they were made of, but for `unwanted` and theirs."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


def resolve(text: str, refs: Refs, store: ObjectStore, read: CommitOf) -> str:
    """The id of the commit that an expression names. Raises RevisionError."""
    if text.startswith(":/"):
        return _by_message(text, refs, read)
    if not text:
        raise RevisionError("a revision may not be empty; HEAD is the commit of the branch last worked on")
    base, logged, steps = _split(text)
    commit = _start(base, logged, text, refs, store)
    for sign, count in steps:
        for _ in range(count if sign == "~" else 1):
            if sign == "^" and count == 0:
                continue
            commit = _parent(read(commit), 1 if sign == "~" else count, text)
    return commit


def select(texts: Iterable[str], one: Callable[[str], str], read: CommitOf) -> Selection:
    """What several expressions mean together, HEAD when none is wanted; `one` resolves the expression of one commit."""
    wanted: list[str] = []
    unwanted: list[str] = []
    for text in texts:
        if ends := split_range(text):
            left, right = (one(end) for end in ends)
            wanted += [left, right] if is_symmetric(text) else [right]
            unwanted += merge_bases(read, left, right) if is_symmetric(text) else [left]
        elif text.startswith("^"):
            unwanted.append(one(text[1:]))
        else:
            wanted.append(one(text))
    return Selection(tuple(wanted) or (one("HEAD"),), tuple(unwanted))


def split_range(text: str) -> tuple[str, str] | None:
    """The two ends of `a..b` or `a...b`; an end left out is HEAD. None for what is no range."""
    if text.startswith(":/"):
        return None
    match = re.search(r"\.\.\.?", _without_braces(text))
    if match is None:
        return None
    return text[: match.start()] or "HEAD", text[match.end() :] or "HEAD"


def is_symmetric(text: str) -> bool:
    """Whether a range is written with three dots."""
    return "..." in _without_braces(text)


def split_path(text: str) -> tuple[str, str] | None:
    """Revision and path of `REVISION:PATH`; a revision left out is HEAD. None for what names no path."""
    colon = -1 if text.startswith(":/") else _without_braces(text).find(":")
    return (text[:colon] or "HEAD", text[colon + 1 :]) if colon >= 0 else None


def _without_braces(text: str) -> str:
    """The text with what is in braces blanked, so that dots of a date are not taken for a range's."""
    return re.sub(r"\{[^}]*\}", lambda match: "{" + "_" * (len(match[0]) - 2) + "}", text)


def _split(text: str) -> tuple[str, str | None, list[tuple[str, int]]]:
    """Name, what is in braces after it, and the steps from there."""
    match = re.search(r"[~^]|@\{", text)
    base, rest = (text[: match.start()], text[match.start() :]) if match else (text, "")
    logged = None
    if rest.startswith("@{"):
        logged, brace, rest = rest[2:].partition("}")
        if not brace or not logged:
            raise RevisionError(f"a revision is NAME, NAME~N, NAME^N, NAME@{{N}} or NAME@{{TIME}}, got {text!r}")
    steps: list[tuple[str, int]] = []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if not step:
            what = (
                "@{N} must follow the name directly"
                if rest[at:].startswith("@{")
                else ("a revision is NAME, NAME~N, NAME^N, NAME@{N} or NAME@{TIME}")
            )
            raise RevisionError(f"{what}, got {text!r}")
        for sign, number in zip("~^", step.groups(), strict=True):
            if number is not None:
                steps.append((sign, int(number or 1)))
        at = step.end()
    return base or "HEAD", logged, steps


def _start(base: str, logged: str | None, text: str, refs: Refs, store: ObjectStore) -> str:
    name = refs.head() if base in ("HEAD", "@") else base
    if logged is not None:
        return _logged(name, logged, text, refs)
    if ref := _find(name, refs):
        return ref
    if base in ("HEAD", "@"):
        raise RevisionError(
            f"HEAD is branch {name!r}, which has no commit; make one with: koguma image commit -m MESSAGE TREE,"
            f" or choose another branch with: koguma image switch BRANCH"
        )
    return _by_id(base, refs, store)


def _find(name: str, refs: Refs) -> str | None:
    """The commit of a ref, by its name or by `heads/`, `tags/` or `remotes/` and its name."""
    if ref := refs.find(name):
        return ref.commit
    short = name.removeprefix("refs/")
    for kind in RefKind:
        if short.startswith(f"{kind.value}/") and (commit := refs.get(kind, short.removeprefix(f"{kind.value}/"))):
            return commit
    return None


def _parent(commit: Commit, number: int, text: str) -> str:
    if number <= len(commit.parents):
        return commit.parents[number - 1]
    if commit.parents:
        raise RevisionError(
            f"a revision must lead to a commit, {text!r} asks for parent {number} of {commit.short_id},"
            f" which has {len(commit.parents)}"
        )
    raise RevisionError(f"a revision must lead to a commit, {text!r} goes past the first one ({commit.short_id})")


def _logged(name: str, wanted: str, text: str, refs: Refs) -> str:
    changes: list[RefChange] = next((found for kind in RefKind if (found := refs.log(kind, name))), [])
    if not changes:
        raise _unknown(name, refs)
    if wanted.isdigit() and len(wanted) < 8:
        number = int(wanted)
        if number >= len(changes):
            raise RevisionError(
                f"the log of {name!r} has {len(changes)} entries, got @{{{number}}}; see: koguma image reflog {name}"
            )
        return _there(changes[number], text)
    from koguma.images.dates import parse_time  # noqa: PLC0415 - most expressions hold no time

    moment = parse_time(wanted, time.time())
    for change in changes:
        if change.time <= moment:
            return _there(change, text)
    first = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changes[-1].time))
    raise RevisionError(
        f"the log of {name!r} goes back to {first}, {text!r} is before that; see: koguma image reflog {name}"
    )


def _there(change: RefChange, text: str) -> str:
    if change.new == NO_COMMIT:
        raise RevisionError(f"a revision must lead to a commit, at {text!r} there was none: {change.reason}")
    return change.new


def _by_message(text: str, refs: Refs, read: CommitOf) -> str:
    wanted = text[2:]
    found = ancestors(read, {ref.commit for ref in refs.all()})
    fitting = [commit for commit in found.values() if wanted and wanted in commit.message]
    if not fitting:
        raise RevisionError(
            f"':/TEXT' names the newest commit whose message has the text, none has {wanted!r};"
            f" search with: koguma image log --grep PATTERN"
        )
    return max(fitting, key=lambda commit: (commit.time, commit.id)).id


def _by_id(text: str, refs: Refs, store: ObjectStore) -> str:
    if is_id(text) and store.readable(bytes.fromhex(text)) and store.describe(bytes.fromhex(text)).kind == COMMIT:
        return text
    found = sorted(_commits_starting(text, store)) if _HEX.fullmatch(text) else []
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(item[: _distinct_digits(found)] for item in found[:_LISTED_MAX])
        more = f" and {len(found) - _LISTED_MAX} more" if len(found) > _LISTED_MAX else ""
        raise RevisionError(f"an abbreviated id must name one commit, {text!r} fits {len(found)}: {ids}{more}")
    raise _unknown(text, refs)


def _distinct_digits(ids: list[str]) -> int:
    """So many digits that each of these ids, and not many more, can be typed."""
    return next((digits for digits in range(12, 65) if len({item[:digits] for item in ids}) == len(ids)), 64)


def _unknown(text: str, refs: Refs) -> RevisionError:
    from difflib import get_close_matches  # noqa: PLC0415 - only a typing error needs it

    close = get_close_matches(text, [ref.name for ref in refs.all()], n=3)
    if _HEX.fullmatch(text):
        hint = "an id is abbreviated from its beginning; koguma image log lists commits"
    elif len(text) < _ABBREVIATED_MIN and re.fullmatch(r"[0-9a-f]+", text):
        hint = f"an abbreviated id has at least {_ABBREVIATED_MIN} digits"
    elif "/" in text:
        hint = f"if it is a path, say it after two dashes: -- {text}"
    else:
        hint = "koguma image branch lists branches, koguma image tag lists tags"
    if close:
        hint = "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return RevisionError(f"there is no branch, tag or commit {text!r}; {hint}")


def _commits_starting(text: str, store: ObjectStore) -> Iterator[str]:
    for object_id in store.ids_with_prefix(text):
        if store.describe(object_id).kind == COMMIT:
            yield object_id.hex()
