"""passwd, group, their shadows and the subordinate ids merge by entry, and entries by field.

New names of both sides are kept. One id given to different names by the two sides is a conflict: which files belong to
whom cannot be told from the merged tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from koguma.images.merging.conflicts import Content, Disagreement, Problem
from koguma.images.merging.keyed import differ, merge_tables, pick

Fields = tuple[bytes, ...]
Table = dict[bytes, Fields]

_MEMBERS = {b"group": (3,), b"gshadow": (2, 3)}
"""Fields that are lists of names."""
_DAY_FIELD = 2
"""shadow: the day of the last change of the password."""


def merge_accounts(file: bytes, base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Merge /etc/passwd, group, shadow or gshadow; `file` is that name."""
    disagreements: list[Disagreement] = []

    def decide(name: bytes, before: Fields | None, left: Fields | None, right: Fields | None) -> Fields | None:
        if left is None or right is None:
            told = ("removed it", "changed it") if left is None else ("changed it", "removed it")
            disagreements.append(Disagreement(Problem.RECORD, *told, subject=_text(name)))
            return left or right
        merged, unmerged = _merge_entry(file, before, left, right)
        if unmerged:
            fields = ", ".join(str(number + 1) for number in unmerged)
            told_fields = f"changed field {fields}"
            disagreements.append(Disagreement(Problem.RECORD, told_fields, told_fields, subject=_text(name)))
        return merged

    tables = [_parse(content) for content in (base or b"", ours, theirs)]
    merged = merge_tables(tables[0], tables[1], tables[2], decide, partial(_by_id, tables[1] | tables[2], file))
    if file in (b"passwd", b"group"):
        disagreements += _shared_ids(file, tables[0], tables[1], tables[2], merged)
    undecided = {item.subject for item in disagreements}
    agreed = [fields for name, fields in merged.items() if _text(name) not in undecided]
    return Content(_write(merged.values()), tuple(disagreements), _write(agreed))


def merge_subordinate_ids(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Merge /etc/subuid or subgid: lines `name:first:count`, of which a name may have several."""
    before, left, right = (
        dict.fromkeys(line for line in content.split(b"\n") if line) for content in (base or b"", ours, theirs)
    )
    kept = dict.fromkeys(before, True)
    merged = merge_tables(kept, dict.fromkeys(left, True), dict.fromkeys(right, True), lambda _line, _b, o, t: o or t)
    disagreements = [
        Disagreement(Problem.ID, f"gave it to {_text(mine)}", f"gave it to {_text(other)}", subject=_text(mine))
        for mine in left
        if mine not in before and mine not in right
        for other in right
        if other not in before and other not in left and _overlap(mine, other)
    ]
    return Content(b"".join(line + b"\n" for line in merged), tuple(disagreements))


def _write(entries: Iterable[Fields]) -> bytes:
    return b"".join(b":".join(fields) + b"\n" for fields in entries)


def _parse(content: bytes) -> Table:
    """Entries by name. Raises ValueError where a name comes twice."""
    table: Table = {}
    for line in content.split(b"\n"):
        if not line:
            continue
        fields = tuple(line.split(b":"))
        key = fields[0] if len(fields) > 2 else line
        if key in table:
            raise ValueError(f"each name stands once, got {key!r} again")
        table[key] = fields
    return table


def _merge_entry(file: bytes, before: Fields | None, left: Fields, right: Fields) -> tuple[Fields, list[int]]:
    if len(left) != len(right) or (before and len(before) != len(left)):
        return left, list(range(len(left)))
    merged, unmerged = [], []
    for number, (o, t) in enumerate(zip(left, right, strict=True)):
        b = before[number] if before else None
        if not differ(b, o, t):
            merged.append(o if b is None else pick(b, o, t))
        elif number in _MEMBERS.get(file, ()):
            merged.append(_merge_members(b or b"", o, t))
        elif file == b"shadow" and number == _DAY_FIELD and o.isdigit() and t.isdigit():
            merged.append(max(o, t, key=int))
        else:
            merged.append(o)
            unmerged.append(number)
    return tuple(merged), unmerged


def _merge_members(base: bytes, ours: bytes, theirs: bytes) -> bytes:
    before, left, right = ({name: True for name in members.split(b",") if name} for members in (base, ours, theirs))
    return b",".join(merge_tables(before, left, right, lambda _name, _b, o, t: o or t))


def _by_id(entries: Mapping[bytes, Fields], file: bytes, name: bytes) -> tuple[int, bytes]:
    """New entries of both sides stand in order of their ids, as adduser would have added them."""
    return (_id(entries[name]) or 0 if file in (b"passwd", b"group") else 0, name)


def _id(fields: Fields) -> int | None:
    return int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else None


def _shared_ids(file: bytes, base: Table, ours: Table, theirs: Table, merged: Table) -> list[Disagreement]:
    """Ids that two names share in the result and did not share on any side."""
    names: dict[int, list[bytes]] = {}
    for name, fields in merged.items():
        if (number := _id(fields)) is not None:
            names.setdefault(number, []).append(name)
    found = []
    for number, sharing in names.items():
        for other in sharing[1:]:
            first = sharing[0]
            if any(_id(t.get(first, ())) == number == _id(t.get(other, ())) for t in (ours, theirs)):
                continue
            mine, yours = (first, other) if _changed(base, ours, first, number) else (other, first)
            what = "uid" if file == b"passwd" else "gid"
            found.append(
                Disagreement(
                    Problem.ID, f"gave it to {_text(mine)}", f"gave it to {_text(yours)}", subject=f"{what} {number}"
                )
            )
    return found


def _changed(base: Table, side: Table, name: bytes, number: int) -> bool:
    return _id(side.get(name, ())) == number and _id(base.get(name, ())) != number


def _overlap(left: bytes, right: bytes) -> bool:
    """Whether two lines of subuid give ids of one range to different names."""
    spans = []
    for line in (left, right):
        fields = line.split(b":")
        if len(fields) != 3 or not fields[1].isdigit() or not fields[2].isdigit():
            return False
        spans.append((fields[0], int(fields[1]), int(fields[1]) + int(fields[2])))
    (name, start, end), (other, other_start, other_end) = spans
    return name != other and start < other_end and other_start < end


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
