"""POSIX ACLs of an archive, as the extended attributes the kernel knows: those told as text are made into them.

Names of users and groups mean those of the imported root, not those of this machine.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from koguma.images.errors import TreeError
from koguma.images.importing.paxheaders import ACL_TEXT
from koguma.images.trees import Xattrs

USERS_FILE, GROUPS_FILE = b"etc/passwd", b"etc/group"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_KINDS = _USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_TAGS = {b"user": _USER, b"u": _USER, b"group": _GROUP, b"g": _GROUP, b"mask": _MASK, b"m": _MASK,
         b"other": _OTHER, b"o": _OTHER}  # fmt: skip
_UNNAMED = {_USER: _USER_OBJ, _GROUP: _GROUP_OBJ}
_NO_ID = 0xFFFFFFFF
_ACL = b"system.posix_acl_"
_ACCESS = _ACL + b"access"


class Accounts:
    """Numbers of the users and groups of an imported root."""

    def __init__(self, files: Mapping[bytes, bytes]) -> None:
        self._numbers = {
            _USER: _numbers(files.get(USERS_FILE, b"")),
            _GROUP: _numbers(files.get(GROUPS_FILE, b"")),
        }

    def number(self, tag: int, name: bytes) -> int | None:
        if name.isdigit() and len(name) <= 10 and int(name) < _NO_ID:
            return int(name)
        return self._numbers[tag].get(name)


def with_acls(xattrs: Xattrs, accounts: Accounts, place: bytes) -> Xattrs:
    """The same attributes, with ACLs that were text as the kernel's. Raises TreeError for one that means nothing."""
    if not any(name.startswith((ACL_TEXT, _ACL)) for name, _ in xattrs):
        return xattrs
    found = []
    for name, value in xattrs:
        if not name.startswith(ACL_TEXT):
            if name.startswith(_ACL) and not _kernel_takes(value):
                raise TreeError(f"an ACL must have the form that the kernel takes, got {value[:80]!r} ({place!r})")
            found.append((name, value))
            continue
        plain = name.removeprefix(ACL_TEXT)
        entries = _parse(value, accounts, place)
        # An access ACL of three entries says what the mode says: the kernel keeps none.
        if plain != _ACCESS or len(entries) > 3:
            found.append((plain, _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)))
    return tuple(sorted(found))


def _parse(text: bytes, accounts: Accounts, place: bytes) -> list[tuple[int, int, int]]:
    entries = []
    for line in text.replace(b"\n", b",").split(b","):
        plain = line.partition(b"#")[0].strip()
        if plain:
            entries.append(_entry(plain, accounts, place))
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    if not _is_whole([entry[0] for entry in entries]) or len({entry[::2] for entry in entries}) != len(entries):
        raise TreeError(
            f"an ACL has one entry each for user, group, other, and a mask with more, got {text[:80]!r} ({place!r})"
        )
    return entries


def _kernel_takes(value: bytes) -> bool:
    if not value.startswith(_VERSION) or (len(value) - len(_VERSION)) % _ENTRY.size:
        return False
    entries = list(_ENTRY.iter_unpack(value[len(_VERSION) :]))
    tags = [tag for tag, _, _ in entries]
    known = all(tag in _KINDS and bits <= 7 for tag, bits, _ in entries)
    return known and tags == sorted(tags) and _is_whole(tags)


def _is_whole(tags: list[int]) -> bool:
    single = all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)) and tags.count(_MASK) <= 1
    return single and (_MASK in tags or len(tags) == 3)


def _entry(line: bytes, accounts: Accounts, place: bytes) -> tuple[int, int, int]:
    fields = [field.strip() for field in line.split(b":")]
    tag = _TAGS.get(fields[0])
    if tag in (_MASK, _OTHER) and len(fields) == 2:
        fields.insert(1, b"")  # Solaris leaves the empty name out
    if tag is None or not 3 <= len(fields) <= 4 or fields[2].translate(None, b"rwx-") or len(fields[2]) > 3:
        raise TreeError(f"an ACL's entry must be like 'user:NAME:rwx', got {line[:80]!r} for {place!r}")
    bits = sum(bit for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1)) if letter in fields[2])
    if not fields[1] or tag in (_MASK, _OTHER):
        return _UNNAMED.get(tag, tag), bits, _NO_ID
    named = fields[3] if len(fields) == 4 and fields[3].isdigit() else fields[1]
    number = accounts.number(tag, named)
    if number is None:
        kind = "user" if tag == _USER else "group"
        raise TreeError(
            f"an ACL's {kind} must be a number or a name of the root's own, got {named[:80]!r} for {place!r};"
            " tar --xattrs --xattrs-include='*' --no-acls writes numbers"
        )
    return tag, bits, number


def _numbers(text: bytes) -> dict[bytes, int]:
    found = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10:
            found[fields[0]] = int(fields[2])
    return found
