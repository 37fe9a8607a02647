"""Packs: many objects in one file, found through an index. FORMAT.md draws every byte.

This module owns the bytes of pack and index files. It knows nothing of what objects mean: `objects` decides what is
stored, hashed and compressed. A pack is written under a temporary name and appears whole, index last; a pack without an
index is invisible.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from koguma.images.errors import CorruptError
from koguma.images.files import sync_directory, write_all

PACK_MAGIC = b"KOGUPACK"
INDEX_MAGIC = b"KOGUINDX"
VERSION = 1
PACK_SUFFIX = ".pack"
INDEX_SUFFIX = ".idx"
TEMPORARY_PREFIX = ".new-"

RAW = 0
ZSTD = 1

PACK_HEADER = struct.Struct("<8sII")
"""Magic, version, zero."""
RECORD = struct.Struct("<IBBHQQ32s")
"""CRC-32 of the rest of the record, kind, codec, zero, stored bytes, size in bytes, id."""
INDEX_HEADER = struct.Struct("<8sII")
"""Magic, version, number of entries."""
PLACE = struct.Struct("<QQ")
"""Offset of the record in the pack, stored bytes of its payload."""
FANOUT_BYTES = 256 * 4

_BUFFER_BYTES = 4 * 1024 * 1024
_COPY_BYTES = 1024 * 1024


class Stored(NamedTuple):
    """An object as it lies in a pack: what its record says of it, and where."""

    id: bytes
    kind: int
    codec: int
    stored: int
    size: int
    crc: int
    offset: int


def record_header(object_id: bytes, kind: int, codec: int, size: int, payload: bytes) -> bytes:
    """The header that goes before `payload`. Its checksum covers all of the record but itself."""
    header = RECORD.pack(0, kind, codec, 0, len(payload), size, object_id)
    return struct.pack("<I", zlib.crc32(payload, zlib.crc32(header[4:]))) + header[4:]


class PackWriter:
    """Writes one pack. Not thread-safe: its caller serialises `append` and `append_file`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._pending: list[bytes] = [PACK_HEADER.pack(PACK_MAGIC, VERSION, 0)]
        self._pending_bytes = PACK_HEADER.size
        self.size_bytes = PACK_HEADER.size

    def __len__(self) -> int:
        return len(self._places)

    def append(self, object_id: bytes, header: bytes, payload: bytes) -> None:
        self._places[object_id] = (self.size_bytes, len(payload))
        self._pending += (header, payload)
        self._pending_bytes += len(header) + len(payload)
        self.size_bytes += len(header) + len(payload)
        if self._pending_bytes >= _BUFFER_BYTES:
            self._flush()

    def append_file(self, object_id: bytes, kind: int, codec: int, size: int, spool: int) -> None:
        """Append an object whose payload is the whole of the open file `spool`."""
        self._flush()
        start, stored = self.size_bytes, os.fstat(spool).st_size
        body = RECORD.pack(0, kind, codec, 0, stored, size, object_id)[4:]
        crc = zlib.crc32(body)
        os.lseek(self._fd, start + RECORD.size, os.SEEK_SET)
        position = 0
        while chunk := os.pread(spool, _COPY_BYTES, position):
            crc = zlib.crc32(chunk, crc)
            write_all(self._fd, chunk)
            position += len(chunk)
        os.pwrite(self._fd, struct.pack("<I", crc) + body, start)
        self._places[object_id] = (start, stored)
        self.size_bytes = start + RECORD.size + stored

    def finish(self) -> None:
        """Make the pack durable and visible. An empty pack just disappears."""
        if not self._places:
            self.abandon()
            return
        self._flush()
        os.fsync(self._fd)
        index = encode_index(self._places, self.size_bytes)
        name = "pack-" + sha256(index).hexdigest()[:32]
        pack, final = self._directory / (name + PACK_SUFFIX), self._directory / (name + INDEX_SUFFIX)
        temporary = self._temporary.with_name(self._temporary.name + INDEX_SUFFIX)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, index)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._temporary.rename(pack)
        temporary.rename(final)
        sync_directory(self._directory)
        os.close(self._fd)

    def abandon(self) -> None:
        self._temporary.unlink(missing_ok=True)
        os.close(self._fd)

    def _flush(self) -> None:
        if self._pending:
            os.lseek(self._fd, 0, os.SEEK_END)
            write_all(self._fd, b"".join(self._pending))
            self._pending, self._pending_bytes = [], 0


def encode_index(places: dict[bytes, tuple[int, int]], pack_bytes: int) -> bytes:
    """The bytes of the index of a pack with these objects: id -> (offset, stored bytes)."""
    ids = sorted(places)
    counts = [0] * 256
    for object_id in ids:
        counts[object_id[0]] += 1
    fanout, total = [], 0
    for count in counts:
        total += count
        fanout.append(total)
    body = b"".join(
        (
            INDEX_HEADER.pack(INDEX_MAGIC, VERSION, len(ids)),
            struct.pack("<256I", *fanout),
            b"".join(ids),
            b"".join([PLACE.pack(*places[object_id]) for object_id in ids]),
            struct.pack("<Q", pack_bytes),
        )
    )
    return body + sha256(body).digest()


@dataclass(slots=True)
class _Index:
    """The mapped index: a bisection over sorted ids within the range the first byte gives."""

    data: mmap.mmap
    count: int

    @property
    def ids_at(self) -> int:
        return INDEX_HEADER.size + FANOUT_BYTES

    @property
    def places_at(self) -> int:
        return self.ids_at + 32 * self.count

    def bounds(self, first: int) -> tuple[int, int]:
        low = 0 if first == 0 else struct.unpack_from("<I", self.data, INDEX_HEADER.size + 4 * (first - 1))[0]
        return low, struct.unpack_from("<I", self.data, INDEX_HEADER.size + 4 * first)[0]

    def position(self, prefix: bytes) -> int:
        """Where the first id not below `prefix` is, within its first byte's range."""
        low, high = self.bounds(prefix[0])
        data, base, length = self.data, self.ids_at, len(prefix)
        while low < high:
            middle = (low + high) // 2
            at = base + 32 * middle
            if data[at : at + length] < prefix:
                low = middle + 1
            else:
                high = middle
        return low

    def id_at(self, position: int) -> bytes:
        at = self.ids_at + 32 * position
        return self.data[at : at + 32]

    def place_at(self, position: int) -> tuple[int, int]:
        place: tuple[int, int] = PLACE.unpack_from(self.data, self.places_at + PLACE.size * position)
        return place


class PackReader:
    """Reads one finished pack; safe to use from several threads."""

    def __init__(self, index_path: Path) -> None:
        self.index_path = index_path
        self.path = index_path.with_suffix(PACK_SUFFIX)
        self._index = _load_index(index_path)
        self._fd = -1

    def __len__(self) -> int:
        return self._index.count

    def close(self) -> None:
        self._index.data.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, object_id: bytes) -> tuple[int, int] | None:
        """Offset and stored bytes of an object, or None when it is not in this pack."""
        index = self._index
        position = index.position(object_id)
        if position < index.count and index.id_at(position) == object_id:
            return index.place_at(position)
        return None

    def ids_with_prefix(self, prefix: bytes, odd_digit: int | None) -> Iterator[bytes]:
        """Ids that start with `prefix` and, when given, with the hex digit `odd_digit` after it."""
        index = self._index
        start = prefix if odd_digit is None else prefix + bytes([odd_digit << 4])
        position = index.position(start)
        while position < index.count:
            object_id = index.id_at(position)
            if not object_id.startswith(prefix):
                return
            if odd_digit is not None and object_id[len(prefix)] >> 4 != odd_digit:
                return
            yield object_id
            position += 1

    def ids(self) -> Iterator[bytes]:
        for position in range(self._index.count):
            yield self._index.id_at(position)

    def header(self, object_id: bytes, offset: int) -> Stored:
        """The record's own description, checked against the id that was asked for."""
        return self._described(os.pread(self._file(), RECORD.size, offset), object_id, offset)

    def payload(self, object_id: bytes, place: tuple[int, int]) -> tuple[Stored, bytes]:
        """A whole record in one read, its checksum verified."""
        offset, stored = place
        data = os.pread(self._file(), RECORD.size + stored, offset)
        found = self._described(data[: RECORD.size], object_id, offset)
        if len(data) != RECORD.size + found.stored or zlib.crc32(memoryview(data)[4:]) != found.crc:
            raise self._corrupt(object_id, "its checksum does not match")
        return found, data[RECORD.size :]

    def payload_chunks(self, found: Stored) -> Iterator[bytes]:
        """The payload of a large record piece by piece; the checksum is verified after the last."""
        body = RECORD.pack(0, found.kind, found.codec, 0, found.stored, found.size, found.id)[4:]
        crc, position, end = zlib.crc32(body), found.offset + RECORD.size, found.offset + RECORD.size + found.stored
        while position < end:
            chunk = os.pread(self._file(), min(_COPY_BYTES, end - position), position)
            if not chunk:
                break
            crc = zlib.crc32(chunk, crc)
            position += len(chunk)
            yield chunk
        if position != end or crc != found.crc:
            raise self._corrupt(found.id, "its checksum does not match")

    def verify_index(self) -> None:
        """Check the index's own digest and the pack's header and size. Raises CorruptError."""
        data = bytes(self._index.data)
        if sha256(data[:-32]).digest() != data[-32:]:
            raise CorruptError(f"an index must match its own digest ({self.index_path})")
        expected = struct.unpack_from("<Q", data, len(data) - 40)[0]
        actual = os.fstat(self._file()).st_size
        if expected != actual:
            raise CorruptError(f"a pack must have the {expected} bytes its index says, got {actual} ({self.path})")
        if os.pread(self._file(), PACK_HEADER.size, 0) != PACK_HEADER.pack(PACK_MAGIC, VERSION, 0):
            raise CorruptError(f"a pack must start with {PACK_MAGIC!r} version {VERSION} ({self.path})")

    def _described(self, data: bytes, object_id: bytes, offset: int) -> Stored:
        if len(data) != RECORD.size:
            raise self._corrupt(object_id, "the pack ends before it")
        crc, kind, codec, zero, stored, size, found = RECORD.unpack(data)
        if found != object_id or zero != 0 or codec not in (RAW, ZSTD):
            raise self._corrupt(object_id, "its record is damaged")
        return Stored(found, kind, codec, stored, size, crc, offset)

    def _file(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd

    def _corrupt(self, object_id: bytes, why: str) -> CorruptError:
        return CorruptError(f"object {object_id.hex()} cannot be read: {why} ({self.path})")


def _load_index(path: Path) -> _Index:
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(data) < INDEX_HEADER.size:
        raise CorruptError(f"an index must have at least {INDEX_HEADER.size} bytes, got {len(data)} ({path})")
    magic, version, count = INDEX_HEADER.unpack_from(data)
    expected = INDEX_HEADER.size + FANOUT_BYTES + count * (32 + PLACE.size) + 8 + 32
    if magic != INDEX_MAGIC or version != VERSION or len(data) != expected:
        raise CorruptError(f"an index must be version {VERSION} and have {expected} bytes, got {len(data)} ({path})")
    return _Index(data, count)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what writers that died left behind; the caller holds the object lock alone, so no writer is at work.

    A pack without an index is one whose writer died between its two renames.
    """
    removed = []
    for path in sorted(directory.iterdir()):
        orphan = path.suffix == PACK_SUFFIX and not path.with_suffix(INDEX_SUFFIX).exists()
        if path.name.startswith(TEMPORARY_PREFIX) or orphan:
            path.unlink()
            removed.append(path)
    return removed
