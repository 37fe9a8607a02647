"""Pax records and what they say about an entry: long names, large numbers, exact times, extended attributes, ACLs.

Records that GNU tar, star, libarchive and Go write are known; others that cannot change what an entry is are left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from koguma.images.errors import TreeError
from koguma.images.trees import Xattrs

Records = list[tuple[bytes, bytes]]
"""In the order in which they come: sparse maps of version 0.0 are told by repeated keys."""

ACL_TEXT = b"\0acl."
"""Before the name of an ACL that is still text; `acl` makes the attribute of it when the tree's users are known."""
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_ACLS = {b"SCHILY.acl.access": b"system.posix_acl_access", b"SCHILY.acl.default": b"system.posix_acl_default"}
_SELINUX = b"RHT.security.selinux"
_ATTRIBUTE_KEYS = (_SCHILY_XATTR, _LIBARCHIVE_XATTR, *_ACLS, _SELINUX)
_GLOBAL_MAX_BYTES = 64 * 1024
_XATTR_NAME_MAX_BYTES = 255
_XATTR_NAMES_MAX_BYTES = 65536
"""Of all attributes of a file, each with a NUL: Linux lists no more."""
_XATTR_VALUE_MAX_BYTES = 65536
_ID_MAX = 2**32 - 2
"""The last number is `no user`: chown takes it to mean that nothing is to change."""
_TIME_MAX_NS = 2**63 - 1
_SECONDS = re.compile(rb"(-)?([0-9]{1,20})(?:\.([0-9]*))?")


def parse_records(data: bytes) -> Records:
    """Records, each `<length> <key>=<value>\\n`, whose length counts the record itself."""
    records: Records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        if not digits.isdigit():
            raise TreeError(f"a pax record must start with its length, got {data[at : at + 20]!r}")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise TreeError(f"a pax record must be '<length> <key>=<value>' and a new line, got {data[at : at + 60]!r}")
        records.append((key, value))
        at = end
    return records


class GlobalRecords:
    """Records that hold for all entries that follow, until others take their place."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}
        self._bytes = 0
        self._xattrs: Xattrs | None = ()

    def add(self, records: Records) -> None:
        """Raises TreeError for too many: they cost something for every entry of the archive."""
        for key, value in records:
            before = self._records.pop(key, None)
            self._bytes -= len(key) + len(before) if before else 0
            if value:
                self._records[key] = value
                self._bytes += len(key) + len(value)
        if self._bytes > _GLOBAL_MAX_BYTES:
            raise TreeError(f"a tar's global records have at most {_GLOBAL_MAX_BYTES} bytes, got {self._bytes}")
        self._xattrs = None

    def with_own(self, records: Records) -> Mapping[bytes, bytes]:
        """All that holds for an entry with these records of its own."""
        return self._records | dict(records) if records else self._records

    def xattrs(self, records: Records) -> Xattrs:
        """As the function, for an entry with these records of its own."""
        if any(key.startswith(_ATTRIBUTE_KEYS) for key, _ in records):
            return xattrs(self.with_own(records))
        if self._xattrs is None:
            self._xattrs = xattrs(self._records)
        return self._xattrs


def number(records: Mapping[bytes, bytes], key: bytes, otherwise: int, largest: int) -> int:
    """A decimal number, or what the header says where there is none."""
    text = records.get(key)
    if not text:
        return otherwise
    if not text.isdigit() or len(text) > 20 or int(text) > largest:
        raise TreeError(f"a pax record {key.decode()} must be a number up to {largest}, got {text[:40]!r}")
    return int(text)


def owner(records: Mapping[bytes, bytes], key: bytes, otherwise: int) -> int:
    found = number(records, key, otherwise, _ID_MAX)
    if not 0 <= found <= _ID_MAX:
        raise TreeError(f"an owner or group must be a number from 0 to {_ID_MAX}, got {found}")
    return found


def time_ns(records: Mapping[bytes, bytes], otherwise_s: int) -> int | None:
    """The modification time; None for one that no file system can hold (before 1677, after 2262)."""
    text = records.get(b"mtime")
    if not text:
        nanoseconds = otherwise_s * 10**9
    else:
        match = _SECONDS.fullmatch(text)
        if not match:
            raise TreeError(f"a pax record mtime must be a number of seconds, got {text[:40]!r}")
        sign, whole, part = match.groups(b"")
        nanoseconds = int(whole) * 10**9 + int(part[:9].ljust(9, b"0"))
        nanoseconds = -nanoseconds if sign else nanoseconds
    return nanoseconds if -_TIME_MAX_NS <= nanoseconds <= _TIME_MAX_NS else None


def xattrs(records: Mapping[bytes, bytes]) -> Xattrs:
    """Extended attributes, sorted by name. ACLs that come as text are marked with ACL_TEXT."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE_XATTR):
            found.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE_XATTR) :]), _base64(key, value))
        elif key == _SELINUX:
            found.setdefault(b"security.selinux", value.rstrip(b"\0") + b"\0")
    for key, value in records.items():
        if key.startswith(_SCHILY_XATTR):
            name = key[len(_SCHILY_XATTR) :]
            # In this order, `%253D` is the `%3D` that it was.
            found[name.replace(b"%3D", b"=").replace(b"%25", b"%") if b"%" in name else name] = value
    for key, name in _ACLS.items():
        if records.get(key) and name not in found:
            found[ACL_TEXT + name] = records[key]
    _check(found)
    return tuple(sorted(found.items()))


def _base64(key: bytes, value: bytes) -> bytes:
    """libarchive leaves the padding out."""
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise TreeError(f"a pax record {key[:60]!r} must be base64, got {value[:40]!r}") from None


def _check(found: Mapping[bytes, bytes]) -> None:
    if sum(map(len, found)) + len(found) > _XATTR_NAMES_MAX_BYTES:
        raise TreeError(
            f"the names of an entry's extended attributes have at most {_XATTR_NAMES_MAX_BYTES} bytes together,"
            f" got {len(found)} attributes with more"
        )
    for name, value in found.items():
        plain = name.removeprefix(ACL_TEXT)
        if not 0 < len(plain) <= _XATTR_NAME_MAX_BYTES or b"\0" in plain:
            raise TreeError(f"an extended attribute's name has 1 to {_XATTR_NAME_MAX_BYTES} bytes, got {name[:300]!r}")
        if len(value) > _XATTR_VALUE_MAX_BYTES:
            raise TreeError(
                f"an extended attribute has at most {_XATTR_VALUE_MAX_BYTES} bytes, got {len(value)} in {plain!r}"
            )
