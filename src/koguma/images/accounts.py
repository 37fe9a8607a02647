"""How the users and groups of two trees differ, by name: passwd and group, their shadows and the subordinate ids.

Passwords are told by what they let in, never by their hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import Enum
from typing import NamedTuple

from koguma.images.debian import read_list
from koguma.images.errors import PackageDatabaseError
from koguma.images.trees import FILE, Entry, Read, resolve

PASSWD, SHADOW, GROUP, GSHADOW = b"etc/passwd", b"etc/shadow", b"etc/group", b"etc/gshadow"
SUBORDINATE_IDS = (b"etc/subuid", b"etc/subgid")
LISTS = frozenset((PASSWD, SHADOW, GROUP, GSHADOW, *SUBORDINATE_IDS))

_Lines = list[tuple[bytes, ...]]
"""The fields of all lines that have one name: which of several counts is left to whoever looks the name up."""
_DAY, _DAYS_MAX = 2, 4
"""shadow: the day of the last change of the password, and how many days after it the next has to come."""
_BYTES_MAX = 8 * 1024 * 1024
"""A list of a hundred thousand accounts; a larger one is told as a file."""
_NO_DAYS_MAX = (b"", b"99999")


class AccountChange(NamedTuple):
    """A user or group that was added, removed or changed, or whose password was set, changed, locked or emptied."""

    kind: str
    """user or group."""
    name: str
    change: str


class AccountChanges(NamedTuple):
    changes: tuple[AccountChange, ...]
    told: frozenset[bytes]
    """The lists whose lines differ, which the changes tell; another list differs in no account, or is too large."""


class _Password(Enum):
    """What a field of a password lets in."""

    LOCKED = "locked"  # nobody: `!`, `*`, or none at all
    SET = "set"  # who knows it
    EMPTIED = "emptied"  # everybody


def account_changes(read: Read, old: Entry, new: Entry, changed: Collection[bytes]) -> AccountChanges:
    """Users, then groups, by name; `changed` are the paths of the lists that differ."""
    changes: list[AccountChange] = []
    told: set[bytes] = set()
    for kind, places, describe in (
        ("user", (PASSWD, SHADOW, *SUBORDINATE_IDS), _user_changes),
        ("group", (GROUP, GSHADOW), _group_changes),
    ):
        if any(place in changed for place in places):
            try:
                before, after = ({place: _table(read, root, place) for place in places} for root in (old, new))
            except PackageDatabaseError:
                continue
            told |= {place for place in places if before[place] != after[place]}
            changes += _changes(kind, before, after, describe)
    return AccountChanges(tuple(changes), frozenset(told))


_Record = dict[bytes, _Lines]
"""What the lists say of one name, by list."""


def _changes(
    kind: str,
    before: dict[bytes, dict[bytes, _Lines]],
    after: dict[bytes, dict[bytes, _Lines]],
    describe: Callable[[_Record, _Record], Iterator[str]],
) -> Iterator[AccountChange]:
    for name in sorted({name for tables in (before, after) for table in tables.values() for name in table}):
        old, new = ({place: table.get(name, []) for place, table in tables.items()} for tables in (before, after))
        if old != new:
            told = name.decode("utf-8", errors="backslashreplace")
            yield from (AccountChange(kind, told, change) for change in [*describe(old, new)] or ["changed"])


def _user_changes(old: _Record, new: _Record) -> Iterator[str]:
    if old[PASSWD] and not new[PASSWD]:
        yield "removed"
        return
    if not old[PASSWD] and new[PASSWD]:
        yield "added"
    elif _without_password(old[PASSWD]) != _without_password(new[PASSWD]):
        yield "changed"
    password = _password_change(old[PASSWD], new[PASSWD], old[SHADOW], new[SHADOW])
    if password:
        yield password
    aging, new_aging = _without_password(old[SHADOW]), _without_password(new[SHADOW])
    if len(aging) == len(new_aging) and aging != new_aging:
        yield "password aging changed"
    if bool(old[PASSWD]) == bool(new[PASSWD]) and any(old[place] != new[place] for place in SUBORDINATE_IDS):
        yield "subordinate ids changed"


def _group_changes(old: _Record, new: _Record) -> Iterator[str]:
    if old[GROUP] and not new[GROUP]:
        yield "removed"
        return
    if not old[GROUP] and new[GROUP]:
        yield "added"
    elif any(_without_password(old[place]) != _without_password(new[place]) for place in (GROUP, GSHADOW)):
        yield "changed"
    password = _password_change(old[GROUP], new[GROUP], old[GSHADOW], new[GSHADOW])
    if password:
        yield password


def _without_password(lines: _Lines) -> list[tuple[bytes, ...]]:
    return [(fields[0], *fields[2:]) for fields in lines]


def _password_change(old: _Lines, new: _Lines, old_shadow: _Lines, new_shadow: _Lines) -> str | None:
    (before, old_fields), (after, new_fields) = _password(old, old_shadow), _password(new, new_shadow)
    if before != after:
        return f"password {after.value}"
    if old_fields == new_fields or after is _Password.EMPTIED:
        return None
    return "password changed" if after is _Password.SET else "password changed, still locked" if old else None


def _password(lines: _Lines, shadow: _Lines) -> tuple[_Password, list[bytes]]:
    """The weakest that any line has: an account's own field counts, and that of its shadow where it says `x`."""
    own = [fields[1] for fields in lines]
    asked = [field for field in own if field != b"x"]
    asked += [fields[1] for fields in shadow] if b"x" in own or not own else []
    if b"" in asked:
        return _Password.EMPTIED, asked
    return _Password.SET if any(field[:1] not in (b"!", b"*") for field in asked) else _Password.LOCKED, asked


def _table(read: Read, root: Entry, path: bytes) -> dict[bytes, _Lines]:
    found = resolve(read, root, path)
    content = read_list(read, found[1], path, _BYTES_MAX) if found and found[1].kind == FILE else b""
    table: dict[bytes, _Lines] = {}
    for line in content.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) > 1:
            table.setdefault(fields[0], []).append(tuple(_without_day(fields) if path == SHADOW else fields))
    return table


def _without_day(fields: list[bytes]) -> list[bytes]:
    """A day after which nothing has to come differs between builds and means nothing; day 0 asks for a new password."""
    days_max = b"".join(fields[_DAYS_MAX : _DAYS_MAX + 1])
    if len(fields) > _DAY and fields[_DAY] != b"0" and days_max in _NO_DAYS_MAX:
        return [*fields[:_DAY], b"", *fields[_DAY + 1 :]]
    return fields
