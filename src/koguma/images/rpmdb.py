"""The containers rpm keeps its headers in: sqlite (`rpmdb.sqlite`), ndb (`Packages.db`) and Berkeley DB (`Packages`).

Gives the header blobs of a tree's database; `rpm` reads what is in them. Nothing here trusts the bytes: lengths and
offsets are checked, loops end, and headers are given one at a time, together no larger than their database.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from koguma.images.errors import PackageDatabaseError
from koguma.images.files import storage_errors
from koguma.images.trees import FILE, Entry, Read, resolve

if TYPE_CHECKING:
    from sqlite3 import Connection

FOLDERS = (b"var/lib/rpm", b"usr/lib/sysimage/rpm")
_DATABASE_BYTES_MAX = 512 * 1024 * 1024
"""A workstation with everything has a third of it."""


def header_blobs(read: Read, root: Entry) -> Iterator[bytes]:
    """The headers of all installed packages, in no certain order; none for a tree without rpm."""
    for folder in FOLDERS:
        for name in (b"rpmdb.sqlite", b"Packages.db", b"Packages"):
            path = folder + b"/" + name
            content = _content(read, root, path)
            if content:
                log = _content(read, root, path + b"-wal") if name == b"rpmdb.sqlite" else b""
                try:
                    yield from _fitting(_blobs(name, content, log), len(content) + len(log))
                except (struct.error, IndexError) as error:
                    raise PackageDatabaseError(f"an rpm database must be whole: {error} (/{path.decode()})") from None
                except PackageDatabaseError as error:
                    raise PackageDatabaseError(f"{error} (/{path.decode()})") from None
                return


def _content(read: Read, root: Entry, path: bytes) -> bytes:
    found = resolve(read, root, path)
    if not found or found[1].kind != FILE or not found[1].size:
        return b""
    if found[1].size > _DATABASE_BYTES_MAX:
        rule = f"an rpm database must have at most {_DATABASE_BYTES_MAX} bytes"
        raise PackageDatabaseError(f"{rule}, got {found[1].size} (/{path.decode()})")
    return read(found[1].digest)


def _blobs(name: bytes, content: bytes, log: bytes) -> Iterable[bytes]:
    if name == b"rpmdb.sqlite":
        return _from_sqlite(content, log)
    return _from_ndb(content) if name == b"Packages.db" else _from_berkeley(content)


def _fitting(blobs: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    """The same, up to the size of what holds them: in a database that is not honest many may share their bytes."""
    left = bytes_max
    for blob in blobs:
        left -= len(blob)
        if left < 0:
            raise PackageDatabaseError(f"headers must fit their database of {bytes_max} bytes, got more")
        yield blob


_SQLITE_SCHEMA = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
_SQLITE_STEPS = 100_000


def _from_sqlite(content: bytes, log: bytes = b"") -> list[bytes]:
    """The database is copied to a private directory, with its write-ahead log: what is in the log counts too.

    Tables and indexes are all that rpm makes. Views, virtual tables, triggers and computed columns would be programs of
    whoever made the image. Steps are bound too, for pages may be linked so that a table seems to have no end.
    """
    import sqlite3  # noqa: PLC0415 - only trees with rpm need it

    with storage_errors("reading an rpm database"), TemporaryDirectory(prefix="koguma-rpmdb-") as folder:
        path = Path(folder) / "rpmdb.sqlite"
        path.write_bytes(content)
        if log:
            path.with_name("rpmdb.sqlite-wal").write_bytes(log)
        try:
            with closing(sqlite3.connect(path)) as connection:
                bytes_max = len(content) + len(log)
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, bytes_max)
                connection.set_progress_handler(lambda: 1, _SQLITE_STEPS + bytes_max)
                connection.execute("PRAGMA trusted_schema = OFF")
                _check_schema(connection)
                rows = connection.execute("SELECT blob FROM Packages")
                return [*_fitting((blob for (blob,) in rows if isinstance(blob, bytes)), bytes_max)]
        except sqlite3.Error as error:
            raise PackageDatabaseError(f"an rpm database must be readable by SQLite: {error}") from None


def _check_schema(connection: Connection) -> None:
    for (statement,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
        if not str(statement).startswith(_SQLITE_SCHEMA):
            raise PackageDatabaseError(f"an rpm database must hold tables only, got {str(statement)[:60]!r}")
    for _, name, *_, hidden in connection.execute("PRAGMA table_xinfo(Packages)"):
        if hidden:
            raise PackageDatabaseError(f"an rpm database must hold what it says, got a computed column {name[:60]!r}")


_NDB_MAGIC, _NDB_SLOT, _NDB_BLOB = b"RpmP", b"Slot", b"BlbS"
_NDB_BLOCK_BYTES = 16
_NDB_PAGE_BYTES = 4096


def _from_ndb(content: bytes) -> Iterator[bytes]:
    """A head of 32 bytes, pages of slots (magic, package, block, number of blocks), blobs with a head of 16 bytes."""
    magic, _version, _generation, pages = struct.unpack_from("<4sIII", content)
    if magic != _NDB_MAGIC:
        raise PackageDatabaseError(f"Packages.db must start with {_NDB_MAGIC!r}, got {magic!r}")
    for at in range(32, min(pages * _NDB_PAGE_BYTES, len(content)), 16):
        slot, package, block, _count = struct.unpack_from("<4sIII", content, at)
        if slot != _NDB_SLOT:
            raise PackageDatabaseError(f"a slot must start with {_NDB_SLOT!r}, got {slot!r} at {at}")
        if not block:
            continue  # free
        start = block * _NDB_BLOCK_BYTES
        blob, owner, _, length = struct.unpack_from("<4sIII", content, start)
        if blob != _NDB_BLOB or owner != package or start + 16 + length > len(content):
            raise PackageDatabaseError(f"package {package} must have its header at {start}, got other bytes")
        yield content[start + 16 : start + 16 + length]


_HASH_MAGIC = 0x061561
_PAGE_HEAD = 26
_KEY_BYTES = 4
_UNSORTED_PAGE, _OVERFLOW_PAGE, _HASH_PAGE = 2, 7, 13
_INLINE_ITEM, _OFF_PAGE_ITEM = 1, 3


def _from_berkeley(content: bytes) -> Iterator[bytes]:
    """A hash of Berkeley DB: pages of keys and values in turn; a long value lies in a chain of overflow pages."""
    order = next((sign for sign in "<>" if struct.unpack_from(f"{sign}I", content, 12)[0] == _HASH_MAGIC), None)
    if order is None:
        raise PackageDatabaseError("Packages must be a hash of Berkeley DB, it has another magic")
    page_bytes = struct.unpack_from(f"{order}I", content, 20)[0]
    if not 512 <= page_bytes <= 65_536 or page_bytes & (page_bytes - 1):
        raise PackageDatabaseError(f"a page must have a power of two of bytes, 512 to 65536, got {page_bytes}")
    for start in range(page_bytes, len(content) - page_bytes + 1, page_bytes):
        page = content[start : start + page_bytes]
        if page[25] in (_UNSORTED_PAGE, _HASH_PAGE):
            yield from _hash_page(content, page, order)


def _hash_page(content: bytes, page: bytes, order: str) -> Iterator[bytes]:
    count = struct.unpack_from(f"{order}H", page, 20)[0]
    offsets = struct.unpack_from(f"{order}{count}H", page, _PAGE_HEAD)
    for number in range(0, count - 1, 2):
        end = len(page) if number == 0 else offsets[number - 1]
        if not any(page[offsets[number] + 1 : min(end, offsets[number] + 1 + _KEY_BYTES)]):
            continue  # key 0 holds the number of the next package
        at = offsets[number + 1]
        if page[at] == _INLINE_ITEM:
            yield page[at + 1 : offsets[number]]
        elif page[at] == _OFF_PAGE_ITEM:
            first, length = struct.unpack_from(f"{order}II", page, at + 4)
            yield _overflow(content, len(page), first, length, order)
        else:
            raise PackageDatabaseError(f"an item must lie on its page or on overflow pages, got type {page[at]}")


def _overflow(content: bytes, page_bytes: int, first: int, length: int, order: str) -> bytes:
    if length > len(content):
        raise PackageDatabaseError(f"a header must fit its database, got {length} bytes")
    pieces: list[bytes] = []
    number, left = first, length
    while left > 0:
        start = number * page_bytes
        following = struct.unpack_from(f"{order}I", content, start + 16)[0]
        used = struct.unpack_from(f"{order}H", content, start + 22)[0]
        if content[start + 25] != _OVERFLOW_PAGE or not 0 < used <= page_bytes - _PAGE_HEAD:
            raise PackageDatabaseError(f"page {number} must be an overflow page that holds something")
        pieces.append(content[start + _PAGE_HEAD : start + _PAGE_HEAD + used])
        left -= used
        number = following
    return b"".join(pieces)[:length]
