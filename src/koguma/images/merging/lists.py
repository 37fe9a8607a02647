"""Files that are sets of lines (dpkg's file lists, diversions, triggers) and files that only grow (logs)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from koguma.images.merging.conflicts import Content, Disagreement, Problem
from koguma.images.merging.keyed import merge_tables

Record = tuple[bytes, ...]


def merge_line_set(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Each line is there or not; order follows both sides."""
    before, left, right = (dict.fromkeys(_lines(content), True) for content in (base or b"", ours, theirs))
    merged = merge_tables(before, left, right, lambda _line, _b, o, t: o or t)
    return Content(b"".join(line + b"\n" for line in merged))


def merge_md5sums(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Lines `digest  path`, one per path. A digest on which the sides differ is that of a file on which they do."""
    return _merge_records(base, ours, theirs, 1, lambda record: record[0].partition(b"  ")[2])


def merge_statoverride(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """dpkg-statoverride's `owner group mode path`, one per path."""
    return _merge_records(base, ours, theirs, 1, lambda record: (record[0].split(b" ", 3) + [b""] * 4)[3])


def merge_diversions(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """dpkg-divert's records of three lines: the path, where it went, for which package."""
    return _merge_records(base, ours, theirs, 3, lambda record: record[0])


def merge_first_word(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Lines whose first word names what the rest says something of: dpkg's deferred triggers."""
    return _merge_records(base, ours, theirs, 1, lambda record: record[0].partition(b" ")[0])


def merge_last_word(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Lines whose last word names what the rest says something of: ucf's digests and registry."""
    return _merge_records(base, ours, theirs, 1, lambda record: record[0].split()[-1] if record[0].split() else b"")


def merge_log(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """What both had, then what each side added; ours as it is when it was rotated or cut."""
    start = base or b""
    if not ours.startswith(start) or not theirs.startswith(start):
        return Content(ours, note="ours was kept: a log that did not only grow has no merge")
    added = theirs[len(start) :]
    line_is_open = ours and added and not ours.endswith(b"\n") and not added.startswith(b"\n")
    return Content(
        ours + (b"\n" if line_is_open else b"") + added, note="what both sides added was kept, one after the other"
    )


def _merge_records(
    base: bytes | None, ours: bytes, theirs: bytes, length: int, key_of: Callable[[Record], bytes]
) -> Content:
    disagreements: list[Disagreement] = []
    undecided: set[bytes] = set()

    def decide(key: bytes, _before: Record | None, left: Record | None, right: Record | None) -> Record | None:
        undecided.add(key)
        told = ["removed it" if side is None else "changed it" for side in (left, right)]
        disagreements.append(
            Disagreement(Problem.RECORD, told[0], told[1], subject=key.decode("utf-8", "backslashreplace"))
        )
        return left or right

    tables = [_records(content, length, key_of) for content in (base or b"", ours, theirs)]
    merged = merge_tables(tables[0], tables[1], tables[2], decide)
    agreed = [record for key, record in merged.items() if key not in undecided]
    return Content(_write(merged.values()), tuple(disagreements), _write(agreed))


def _write(records: Iterable[Record]) -> bytes:
    return b"".join(line + b"\n" for record in records for line in record)


def _records(content: bytes, length: int, key_of: Callable[[Record], bytes]) -> dict[bytes, Record]:
    """Records of so many lines by their key. Raises ValueError for half records and repeated keys."""
    lines = _lines(content)
    if len(lines) % length:
        raise ValueError(f"it has records of {length} lines, got {len(lines)} lines")
    table: dict[bytes, Record] = {}
    for at in range(0, len(lines), length):
        record = tuple(lines[at : at + length])
        key = key_of(record)
        if key in table:
            raise ValueError(f"each key stands once, got {key!r} again")
        table[key] = record
    return table


def _lines(content: bytes) -> Sequence[bytes]:
    return content.removesuffix(b"\n").split(b"\n") if content else []
