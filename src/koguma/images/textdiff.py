"""Compares texts line by line: matching runs, and the unified form that `patch` and people read.

Lines are bytes with their ends, so nothing is lost of a text in any encoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

CONTEXT_LINES = 3
_BINARY_LOOK_BYTES = 8000
_SMALL_LINES = 2000
"""Up to so many lines on a side, lines that repeat are compared thoroughly; more would take quadratic time."""


class Run(NamedTuple):
    """`length` lines that are the same, from `old` of one text and from `new` of the other."""

    old: int
    new: int
    length: int


def is_binary(content: bytes) -> bool:
    """git's rule: a NUL near the beginning."""
    return b"\0" in content[:_BINARY_LOOK_BYTES]


def split_lines(content: bytes) -> list[bytes]:
    """Lines with their ends; a carriage return does not end one."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def matching_runs(old: Sequence[bytes], new: Sequence[bytes]) -> list[Run]:
    """The lines both texts have, in order.

    1. What begins and ends alike is matched.
    2. Between, lines that are unique in both texts are anchors: the longest ascending chain of them is matched, and the
       gaps are compared in the same way (a "patience" comparison).
    3. A gap without anchors is compared line by line when it is small.
    """
    pairs: list[tuple[int, int]] = []
    waiting = [(0, len(old), 0, len(new))]
    while waiting:
        old_from, old_to, new_from, new_to = waiting.pop()
        while old_from < old_to and new_from < new_to and old[old_from] == new[new_from]:
            pairs.append((old_from, new_from))
            old_from, new_from = old_from + 1, new_from + 1
        while old_from < old_to and new_from < new_to and old[old_to - 1] == new[new_to - 1]:
            old_to, new_to = old_to - 1, new_to - 1
            pairs.append((old_to, new_to))
        if old_from == old_to or new_from == new_to:
            continue
        anchors = _anchors(old, new, old_from, old_to, new_from, new_to)
        if not anchors:
            pairs += _thorough(old, new, old_from, old_to, new_from, new_to)
            continue
        pairs += anchors
        edges = [(old_from - 1, new_from - 1), *anchors, (old_to, new_to)]
        for (one, other), (one_next, other_next) in pairwise(edges):
            waiting.append((one + 1, one_next, other + 1, other_next))
    return _runs(sorted(pairs))


def unified(old: Sequence[bytes], new: Sequence[bytes], context: int = CONTEXT_LINES) -> Iterator[bytes]:
    """The hunks of a unified diff, without the two lines that name the files."""
    for hunk in _hunks(_changes(old, new), context):
        first, last = hunk[0], hunk[-1]
        lead = min(context, first[0])
        old_from, new_from = first[0] - lead, first[2] - lead
        old_to = min(len(old), last[1] + context)
        new_to = min(len(new), last[3] + context)
        yield f"@@ -{_span(old_from, old_to)} +{_span(new_from, new_to)} @@\n".encode()
        at = old_from
        for change_from, change_to, added_from, added_to in hunk:
            yield from _marked(b" ", old[at:change_from])
            yield from _marked(b"-", old[change_from:change_to])
            yield from _marked(b"+", new[added_from:added_to])
            at = change_to
        yield from _marked(b" ", old[at:old_to])


def _anchors(
    old: Sequence[bytes], new: Sequence[bytes], old_from: int, old_to: int, new_from: int, new_to: int
) -> list[tuple[int, int]]:
    """Lines that are once in both parts, as far as they come in the same order."""
    counts = Counter(old[old_from:old_to])
    places = {line: at for at, line in enumerate(old[old_from:old_to], old_from) if counts[line] == 1}
    counts = Counter(new[new_from:new_to])
    shared = [
        (places[line], at)
        for at, line in enumerate(new[new_from:new_to], new_from)
        if counts[line] == 1 and line in places
    ]
    return _longest_ascending(shared)


def _longest_ascending(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest chain in which both numbers ascend; `pairs` ascend by the second already."""
    from bisect import bisect_left  # noqa: PLC0415 - one use

    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (value, _) in enumerate(pairs):
        at = bisect_left(ends, value)
        before.append(last[at - 1] if at else -1)
        if at == len(ends):
            ends.append(value)
            last.append(number)
        else:
            ends[at], last[at] = value, number
    chain = []
    here = last[-1] if last else -1
    while here >= 0:
        chain.append(pairs[here])
        here = before[here]
    return chain[::-1]


def _thorough(
    old: Sequence[bytes], new: Sequence[bytes], old_from: int, old_to: int, new_from: int, new_to: int
) -> Iterator[tuple[int, int]]:
    from difflib import SequenceMatcher  # noqa: PLC0415 - most texts have anchors

    small = max(old_to - old_from, new_to - new_from) <= _SMALL_LINES
    matcher = SequenceMatcher(None, old[old_from:old_to], new[new_from:new_to], autojunk=not small)
    for one, other, length in matcher.get_matching_blocks():
        for step in range(length):
            yield old_from + one + step, new_from + other + step


def _runs(pairs: list[tuple[int, int]]) -> list[Run]:
    runs: list[Run] = []
    for old, new in pairs:
        if runs and old == runs[-1].old + runs[-1].length and new == runs[-1].new + runs[-1].length:
            runs[-1] = runs[-1]._replace(length=runs[-1].length + 1)
        else:
            runs.append(Run(old, new, 1))
    return runs


_Change = tuple[int, int, int, int]
"""Lines from, to of the old text that became lines from, to of the new one."""


def _changes(old: Sequence[bytes], new: Sequence[bytes]) -> list[_Change]:
    changes: list[_Change] = []
    old_at = new_at = 0
    for run in [*matching_runs(old, new), Run(len(old), len(new), 0)]:
        if old_at < run.old or new_at < run.new:
            changes.append((old_at, run.old, new_at, run.new))
        old_at, new_at = run.old + run.length, run.new + run.length
    return changes


def _hunks(changes: list[_Change], context: int) -> Iterator[list[_Change]]:
    """Changes so near to each other that their contexts touch share a hunk."""
    hunk: list[_Change] = []
    for change in changes:
        if hunk and change[0] - hunk[-1][1] > 2 * context:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _span(start: int, end: int) -> str:
    count = end - start
    return f"{start + 1 if count else start}" + ("" if count == 1 else f",{count}")


def _marked(sign: bytes, lines: Sequence[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"
