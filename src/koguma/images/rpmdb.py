"""The containers rpm keeps its headers in: sqlite (`rpmdb.sqlite`), ndb (`Packages.db`) and Berkeley DB (`Packages`).

Gives the header blobs of a tree's database; `rpm` reads what is in them. Nothing here trusts the bytes: lengths and
offsets are checked, and loops end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from koguma.images.errors import ImageError
from koguma.images.trees import FILE, Entry, Read, resolve

FOLDERS = (b"var/lib/rpm", b"usr/lib/sysimage/rpm")


class PackageDatabaseError(ImageError):
    """A package database of a tree cannot be read."""


def header_blobs(read: Read, root: Entry) -> list[bytes]:
    """The headers of all installed packages, in no certain order; none for a tree without rpm."""
    for folder in FOLDERS:
        for name, reader in (
            (b"rpmdb.sqlite", _from_sqlite),
            (b"Packages.db", _from_ndb),
            (b"Packages", _from_berkeley),
        ):
            content = _content(read, root, folder + b"/" + name)
            if content:
                place = (folder + b"/" + name).decode()
                try:
                    if reader is _from_sqlite:
                        return _from_sqlite(content, _content(read, root, folder + b"/rpmdb.sqlite-wal"))
                    return list(reader(content))
                except (struct.error, IndexError) as error:
                    raise PackageDatabaseError(f"an rpm database must be whole: {error} (/{place})") from None
                except PackageDatabaseError as error:
                    raise PackageDatabaseError(f"{error} (/{place})") from None
    return []


def _content(read: Read, root: Entry, path: bytes) -> bytes:
    found = resolve(read, root, path)
    return read(found[1].digest) if found and found[1].kind == FILE and found[1].size else b""


def _from_sqlite(content: bytes, log: bytes = b"") -> list[bytes]:
    """The database is copied to a private directory, with its write-ahead log: what is in the log counts too."""
    import sqlite3  # noqa: PLC0415 - only trees with rpm need it

    with TemporaryDirectory(prefix="koguma-rpmdb-") as folder:
        path = Path(folder) / "rpmdb.sqlite"
        path.write_bytes(content)
        if log:
            path.with_name("rpmdb.sqlite-wal").write_bytes(log)
        try:
            with closing(sqlite3.connect(path)) as connection:
                rows = connection.execute("SELECT blob FROM Packages").fetchall()
        except sqlite3.Error as error:
            raise PackageDatabaseError(f"an rpm database must be readable by SQLite: {error}") from None
    return [row[0] for row in rows if isinstance(row[0], bytes)]


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
_UNSORTED_PAGE, _OVERFLOW_PAGE, _HASH_PAGE = 2, 7, 13
_INLINE_ITEM, _OFF_PAGE_ITEM = 1, 3


def _from_berkeley(content: bytes) -> Iterator[bytes]:
    """A hash of Berkeley DB: pages of keys and values in turn; a long value lies in a chain of overflow pages."""
    order = next((sign for sign in "<>" if struct.unpack_from(f"{sign}I", content, 12)[0] == _HASH_MAGIC), None)
    if order is None:
        raise PackageDatabaseError("Packages must be a hash of Berkeley DB, it has another magic")
    page_bytes = struct.unpack_from(f"{order}I", content, 20)[0]
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        raise PackageDatabaseError(f"a page must have a power of two of bytes, got {page_bytes}")
    for start in range(page_bytes, len(content) - page_bytes + 1, page_bytes):
        page = content[start : start + page_bytes]
        if page[25] in (_UNSORTED_PAGE, _HASH_PAGE):
            yield from _hash_page(content, page, order)


def _hash_page(content: bytes, page: bytes, order: str) -> Iterator[bytes]:
    count = struct.unpack_from(f"{order}H", page, 20)[0]
    offsets = struct.unpack_from(f"{order}{count}H", page, _PAGE_HEAD)
    for number in range(0, count - 1, 2):
        key = page[offsets[number] + 1 : len(page) if number == 0 else offsets[number - 1]]
        if not any(key):
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
