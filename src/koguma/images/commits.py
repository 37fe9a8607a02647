"""Commits: which tree, after which commits, by whom, when and why.

A commit's bytes are canonical JSON; its id is their SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, NamedTuple

from koguma.images.errors import CommitError, CorruptError

FORMAT = "koguma-commit/1"
ABBREVIATED_DIGITS = 12
TIME_MAX_S = 253_402_214_399
"""The end of 30 December 9999: a day before calendars end, so that it is a time of every time zone."""
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
"""What steers a terminal, begins a line, or is no character (what was no UTF-8 on the command line)."""
_KEYS = {"format", "tree", "parents", "author", "time", "message", "notes"}


class Commit(NamedTuple):
    """A commit as it is stored. `id` is not part of its bytes."""

    tree: str
    """64 hex digits: the id of a root object."""
    parents: tuple[str, ...]
    author: str
    time: int
    """Seconds since 1970, UTC."""
    message: str
    notes: Mapping[str, str] = {}
    """What made it, for instance the digest of the recipe; part of its identity."""
    id: str = ""

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]

    @property
    def short_id(self) -> str:
        return self.id[:ABBREVIATED_DIGITS]

    def to_bytes(self) -> bytes:
        document = {
            "format": FORMAT,
            "tree": self.tree,
            "parents": list(self.parents),
            "author": self.author,
            "time": self.time,
            "message": self.message,
            "notes": dict(self.notes),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def check_words(author: str, message: str) -> None:
    """Refuse words of a new commit that would look like other lines of a log, or steer a terminal. Raises CommitError.

    Commits that are stored are read whatever their words are: they are part of what is signed and built upon.
    """
    if re.search(_CONTROL, author):
        raise CommitError(f"a commit's author must be one line without control characters, got {author!r}")
    if re.search(_CONTROL, re.sub(r"\r?\n|\t", "", message)):
        raise CommitError(
            f"a commit's message must be without control characters but line breaks and tabs, got {message!r}"
        )


def check_time(time_s: int) -> None:
    """Refuse a time that a commit cannot have. Raises CommitError."""
    if not 0 <= time_s <= TIME_MAX_S:
        raise CommitError(f"a commit's time must be of the years 1970 to 9999, this machine's clock says {time_s} s")


def as_line(text: str) -> str:
    """Words on one line: control characters become blanks."""
    return re.sub(_CONTROL, " ", text)


def decode_commit(data: bytes, commit_id: str) -> Commit:
    """Read a commit strictly. Raises CorruptError."""
    try:
        document = json.loads(data.decode("utf-8"))
        _check(document)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"a commit must have the form FORMAT.md draws: {error} ({commit_id})") from None
    return Commit(
        tree=document["tree"],
        parents=tuple(document["parents"]),
        author=document["author"],
        time=document["time"],
        message=document["message"],
        notes=document["notes"],
        id=commit_id,
    )


def _check(document: Any) -> None:
    if not isinstance(document, dict) or set(document) != _KEYS or document["format"] != FORMAT:
        raise ValueError(f"its keys are exactly {sorted(_KEYS)} and its format {FORMAT}")
    parents, notes = document["parents"], document["notes"]
    if not isinstance(parents, list) or not all(is_id(item) for item in [document["tree"], *parents]):
        raise ValueError("tree and parents are ids of 64 hex digits")
    time_s = document["time"]
    if type(time_s) is not int or not 0 <= time_s <= TIME_MAX_S:
        raise ValueError(f"time is a number of seconds from 0 to {TIME_MAX_S}")
    if not all(isinstance(document[key], str) for key in ("author", "message")):
        raise ValueError("author and message are texts")
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("notes are texts by name")


def is_id(text: object) -> bool:
    """Whether this is a whole id in its normal form."""
    return isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef")


def history(read: Callable[[str], Commit], start: str) -> Iterator[Commit]:
    """A commit and all its ancestors, newest first, no commit before its descendants when clocks are sane."""
    first = read(start)
    queue = [(-first.time, 0, first)]
    seen, order = {start}, 1
    while queue:
        _, _, commit = heappop(queue)
        yield commit
        for parent in commit.parents:
            if parent not in seen:
                seen.add(parent)
                found = read(parent)
                heappush(queue, (-found.time, order, found))
                order += 1
