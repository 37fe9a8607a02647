"""Packs: many objects in one file, found through an index. FORMAT.md draws every byte.

This module owns the bytes of pack and index files. It knows nothing of what objects mean: `objects` decides what is
stored, hashed and compressed. A pack is written under a temporary name, locked by its writer, and appears whole: its
index is renamed first, then the pack itself; only a pair of both is visible.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from weakref import ref

from koguma.images.errors import CorruptError
from koguma.images.files import begin_sync, write_all, write_parts
from koguma.images.packfiles import (
    INDEX_SUFFIX,
    PACK_SUFFIX,
    TEMPORARY_PREFIX,
    create_temporary,
    install_pack,
    pack_name,
    remove_leftovers,
)
from koguma.images.packindex import (
    FANOUT_BYTES,
    INDEX_HEADER,
    INDEX_MAGIC,
    PLACE,
    Place,
    encode_index,
    load_index,
)

__all__ = [
    "FANOUT_BYTES",
    "INDEX_HEADER",
    "INDEX_MAGIC",
    "INDEX_SUFFIX",
    "PACK_HEADER",
    "PACK_MAGIC",
    "PACK_SUFFIX",
    "PLACE",
    "RAW",
    "RECORD",
    "TEMPORARY_PREFIX",
    "VERSION",
    "ZSTD",
    "OpenPack",
    "PackReader",
    "PackWriter",
    "Stored",
    "encode_index",
    "filler_record",
    "record_header",
    "remove_leftovers",
]

PACK_MAGIC = b"KOGUPACK"
VERSION = 1

RAW = 0
ZSTD = 1

PACK_HEADER = struct.Struct("<8sII")
"""Magic, version, zero."""
RECORD = struct.Struct("<IBBHQQ32s")
"""CRC-32 of the rest of the record, kind, codec, zero, stored bytes, size in bytes, id."""
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


def filler_record() -> tuple[bytes, bytes]:
    """The id and the record of an object nobody needs: what gives a pack of the same objects another name."""
    content = os.urandom(32)
    object_id = sha256(content).digest()
    return object_id, record_header(object_id, ord("b"), RAW, len(content), content) + content


class PackWriter:
    """Writes one pack. Not thread-safe: its caller serialises `append` and `append_file`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary, self._fd = create_temporary(directory)
        self._places: dict[bytes, Place] = {}
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
            begin_sync(self._fd, start + RECORD.size + position, len(chunk))
            position += len(chunk)
        os.pwrite(self._fd, struct.pack("<I", crc) + body, start)
        self._places[object_id] = (start, stored)
        self.size_bytes = start + RECORD.size + stored

    def append_record(self, object_id: bytes, record: bytes) -> None:
        """Append a whole record of another pack; it says nothing of where it lies, so its bytes stay the same."""
        self._places[object_id] = (self.size_bytes, len(record) - RECORD.size)
        self._pending.append(record)
        self._pending_bytes += len(record)
        self.size_bytes += len(record)
        if self._pending_bytes >= _BUFFER_BYTES:
            self._flush()

    def append_record_pieces(self, object_id: bytes, stored: int, pieces: Iterable[bytes]) -> None:
        """As `append_record`, of a record too large to hold; when its pieces end with an exception, nothing stays."""
        self._flush()
        end = os.lseek(self._fd, self.size_bytes, os.SEEK_SET)
        try:
            for piece in pieces:
                write_all(self._fd, piece)
                end += len(piece)
        except BaseException:
            os.ftruncate(self._fd, self.size_bytes)
            raise
        self._places[object_id] = (self.size_bytes, stored)
        self.size_bytes = end

    def sync(self) -> None:
        self._flush()
        os.fsync(self._fd)

    def finish(self, written_at: float | None = None, taken: Container[str] = ()) -> str | None:
        """Make the pack durable and visible; returns its name. An empty pack just disappears and has none.

        `written_at` is the time gc is to take its objects for written; now otherwise. The pack gets none of the names
        in `taken`, which are those of packs with the very same objects that are being removed.
        """
        if not self._places:
            self.abandon()
            return None
        while pack_name(encode_index(self._places, self.size_bytes)) in taken:
            self.append_record(*filler_record())
        try:
            if written_at is not None:
                self._flush()
                os.utime(self._fd, (written_at, written_at))
            self.sync()
            return install_pack(self._temporary, encode_index(self._places, self.size_bytes))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the temporary file, which is gone already when the pack was finished."""
        if self._fd >= 0:
            self._temporary.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        if self._pending:
            start = os.lseek(self._fd, 0, os.SEEK_END)
            write_parts(self._fd, self._pending)
            begin_sync(self._fd, start, self._pending_bytes)
            self._pending, self._pending_bytes = [], 0


class OpenPack:
    """A pack's descriptor, closed when nobody uses it any more."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


_kept_open: deque[OpenPack] = deque(maxlen=48)
"""The packs opened last, of all stores of the process. One that falls out stays open while somebody reads from it."""


class PackReader:
    """Reads one finished pack; safe to use from several threads."""

    def __init__(self, index_path: Path) -> None:
        self.index_path = index_path
        self.path = index_path.with_suffix(PACK_SUFFIX)
        self._index = load_index(index_path)
        self._open: Callable[[], OpenPack | None] = _nothing
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return self._index.count

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def size_bytes(self) -> int:
        """Length of the pack as its index has it."""
        return self._index.pack_bytes

    def close(self) -> None:
        self._index.close()
        if file := self._open():
            with suppress(ValueError):
                _kept_open.remove(file)
        self._open = _nothing

    def find(self, object_id: bytes) -> Place | None:
        """Offset and stored bytes of an object, or None when it is not in this pack."""
        return self._index.find(object_id)

    def ids_with_prefix(self, prefix: bytes, odd_digit: int | None) -> Iterator[bytes]:
        """Ids that start with `prefix` and, when given, with the hex digit `odd_digit` after it."""
        return self._index.with_prefix(prefix, odd_digit)

    def ids(self) -> Iterator[bytes]:
        for position in range(self._index.count):
            yield self._index.id_at(position)

    def places(self) -> dict[bytes, Place]:
        """Offset and stored bytes of every object, by id."""
        return self._index.places()

    def record(self, object_id: bytes, place: Place) -> bytes:
        """The whole record as it lies in the pack, its checksum verified; for copies."""
        found, payload = self.payload(object_id, place)
        return struct.pack("<I", found.crc) + _body(found) + payload

    def record_pieces(self, found: Stored) -> Iterator[bytes]:
        """As `record`, of one too large to hold; the checksum is verified after the last piece."""
        yield struct.pack("<I", found.crc) + _body(found)
        yield from self.payload_chunks(found)

    def opened(self) -> OpenPack:
        """The pack's file. Whoever holds it can read the pack to its end, whatever gc removes meanwhile."""
        file = self._open()
        if file is None:
            with self._opening:
                file = self._open()
                if file is None:
                    file = OpenPack(self.path)
                    self._open = ref(file)
                    _kept_open.append(file)
        return file

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the pack as they lie, fewer at its end."""
        file = self.opened()
        return os.pread(file.number, size, offset)

    def header(self, object_id: bytes, offset: int) -> Stored:
        """The record's own description, checked against the id that was asked for."""
        if offset + RECORD.size > self.size_bytes:
            raise self._corrupt(object_id, "the index leads past the end of the pack")
        return self._described(self.read_at(offset, RECORD.size), object_id, offset)

    def payload(self, object_id: bytes, place: Place) -> tuple[Stored, memoryview]:
        """A whole record in one read, its checksum verified."""
        offset, stored = place
        if offset + RECORD.size + stored > self.size_bytes:
            raise self._corrupt(object_id, "the index leads past the end of the pack")
        data = memoryview(self.read_at(offset, RECORD.size + stored))  # slices of which are no copies
        found = self._described(data[: RECORD.size], object_id, offset)
        if len(data) != RECORD.size + found.stored or zlib.crc32(data[4:]) != found.crc:
            raise self._corrupt(object_id, "its checksum does not match")
        return found, data[RECORD.size :]

    def payload_chunks(self, found: Stored) -> Iterator[bytes]:
        """The payload of a large record piece by piece; the checksum is verified after the last."""
        crc, position, end = (
            zlib.crc32(_body(found)),
            found.offset + RECORD.size,
            found.offset + RECORD.size + found.stored,
        )
        file = self.opened()
        while position < end:
            chunk = os.pread(file.number, min(_COPY_BYTES, end - position), position)
            if not chunk:
                break
            crc = zlib.crc32(chunk, crc)
            position += len(chunk)
            yield chunk
        if position != end or crc != found.crc:
            raise self._corrupt(found.id, "its checksum does not match")

    def verify_index(self, *, frame: bool = True) -> None:
        """Check the index's own digest and, with `frame`, the pack's header and size. Raises CorruptError."""
        self._index.verify(self.index_path)
        if frame:
            self.verify_frame()

    def verify_frame(self) -> None:
        """Check the pack's header and size alone. Raises CorruptError."""
        expected, file = self.size_bytes, self.opened()
        actual = os.fstat(file.number).st_size
        if expected != actual:
            raise CorruptError(f"a pack must have the {expected} bytes its index says, got {actual} ({self.path})")
        if self.read_at(0, PACK_HEADER.size) != PACK_HEADER.pack(PACK_MAGIC, VERSION, 0):
            raise CorruptError(f"a pack must start with {PACK_MAGIC!r} version {VERSION} ({self.path})")

    def _described(self, data: bytes | memoryview, object_id: bytes, offset: int) -> Stored:
        if len(data) != RECORD.size:
            raise self._corrupt(object_id, "the pack ends before it")
        crc, kind, codec, zero, stored, size, found = RECORD.unpack(data)
        if found != object_id or zero != 0 or codec not in (RAW, ZSTD):
            raise self._corrupt(object_id, "its record is damaged")
        return Stored(found, kind, codec, stored, size, crc, offset)

    def _corrupt(self, object_id: bytes, why: str) -> CorruptError:
        return CorruptError(f"object {object_id.hex()} cannot be read: {why} ({self.path})")


def _nothing() -> None:
    """What a reader has open before it reads."""


def _body(found: Stored) -> bytes:
    """A record's header without its checksum."""
    return RECORD.pack(0, found.kind, found.codec, 0, found.stored, found.size, found.id)[4:]
