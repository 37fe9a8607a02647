"""Reading records that arrive in pieces, and holding each against its own checksum, size and digest.

A record that passed `verified` is what its id says, whoever sent it. Large contents are never held in memory.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import zstandard

from koguma.images.objects import BLOB, COMMIT, COMMIT_BYTES_MAX, TREE, TREE_BYTES_MAX
from koguma.images.packs import RAW, RECORD, ZSTD
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.limits import OBJECT_BYTES_MAX

LARGE_BYTES = 4 * 1024 * 1024
"""Payloads and contents from this size on are worked through in pieces."""

_SIZES_MAX = {BLOB: OBJECT_BYTES_MAX, TREE: TREE_BYTES_MAX, COMMIT: COMMIT_BYTES_MAX}
_PIECE_BYTES = 1024 * 1024
_local = threading.local()


class Header(NamedTuple):
    """The fixed part of a record, checked for sense but not yet against its payload."""

    raw: bytes
    crc: int
    kind: int
    codec: int
    stored: int
    size: int
    id: bytes


def parse_header(raw: bytes, place: str) -> Header:
    """Raises HostileRemoteError for what no writer writes."""
    crc, kind, codec, zero, stored, size, object_id = RECORD.unpack(raw)
    if kind not in _SIZES_MAX or codec not in (RAW, ZSTD) or zero:
        raise HostileRemoteError(f"a record must have a kind and codec FORMAT.md names, got {kind}, {codec} ({place})")
    if size > _SIZES_MAX[kind]:
        raise HostileRemoteError(f"an object of this kind has at most {_SIZES_MAX[kind]} bytes, got {size} ({place})")
    # A large content is compressed as it is read, before it is known that this does not shorten it.
    if stored > size + size // 128 + 1024 or (codec == RAW and stored != size):
        raise HostileRemoteError(f"a record's payload may not be larger than its {size} bytes, got {stored} ({place})")
    return Header(raw, crc, kind, codec, stored, size, object_id)


class Stream:
    """Bytes that arrive in pieces, taken in the portions a reader wants."""

    def __init__(self, pieces: Iterator[bytes], place: str) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self.place = place
        self.position = 0
        """Bytes taken so far."""

    def take(self, length: int) -> bytes:
        """Exactly so many bytes; fewer only where the stream ends."""
        have = len(self._buffer) - self._at
        if have < length:
            parts = [self._buffer[self._at :]]
            while have < length and (piece := next(self._pieces, None)) is not None:
                parts.append(piece)
                have += len(piece)
            self._buffer, self._at = b"".join(parts), 0
        data = self._buffer[self._at : self._at + length]
        self._at += len(data)
        self.position += len(data)
        return data

    def take_pieces(self, length: int) -> Iterator[bytes]:
        """As `take`, in pieces."""
        while length:
            data = self.take(min(_PIECE_BYTES, length))
            if not data:
                return
            length -= len(data)
            yield data

    def header(self) -> Header | None:
        """The next record's header, or None at the end."""
        raw = self.take(RECORD.size)
        if not raw:
            return None
        if len(raw) < RECORD.size:
            raise HostileRemoteError(f"a record must be whole, it ends within its header ({self.place})")
        return parse_header(raw, self.place)

    def payload(self, header: Header) -> bytes:
        data = self.take(header.stored)
        if len(data) != header.stored:
            raise HostileRemoteError(
                f"a record must have the {header.stored} bytes it says, got {len(data)} ({self.place})"
            )
        return data

    def skip(self, header: Header) -> None:
        for _ in self.take_pieces(header.stored):
            pass


def cut(data: memoryview, place: str) -> Iterator[tuple[Header, int]]:
    """The records that lie in `data` one after the other, and where each begins; not yet verified."""
    at = 0
    while at < len(data):
        if len(data) - at < RECORD.size:
            raise HostileRemoteError(f"a record must be whole, it ends within its header ({place})")
        header = parse_header(bytes(data[at : at + RECORD.size]), place)
        if len(data) - at - RECORD.size < header.stored:
            raise HostileRemoteError(f"a record must have the {header.stored} bytes it says, it breaks off ({place})")
        yield header, at
        at += RECORD.size + header.stored


def verified(header: Header, payload: bytes | memoryview, place: str, *, whole: bool = False) -> bytes | memoryview:
    """The content of a record, its checksum, size and digest verified. Releases the interpreter's lock mostly.

    Large contents are verified, but given back only when the caller wants them `whole`.
    """
    check = Check(header, place)
    if whole and header.size > TREE_BYTES_MAX:
        raise check.failed(f"a tree has at most {TREE_BYTES_MAX} bytes, it has {header.size}")
    if header.size >= LARGE_BYTES and not whole:
        for at in range(0, len(payload), _PIECE_BYTES):
            check.feed(payload[at : at + _PIECE_BYTES])
        check.finish(len(payload))
        return b""
    if zlib.crc32(payload, zlib.crc32(header.raw[4:])) != header.crc:
        raise check.failed("its checksum does not match")
    content: bytes | memoryview = payload
    if header.codec == ZSTD:
        try:
            if zstandard.frame_content_size(payload) not in (-1, header.size):
                raise check.failed(f"it unfolds to another size than the {header.size} bytes it says")
            content = _decompressor().decompress(payload, max_output_size=max(1, header.size), allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise check.failed(f"it cannot be decompressed ({error})") from None
    if len(content) != header.size:
        raise check.failed(f"it has not the {header.size} bytes it says")
    if sha256(content).digest() != header.id:
        raise check.failed("its content has another digest")
    return content


class Check:
    """Verifies a large record piece by piece: however far its payload would unfold, memory stays bounded."""

    def __init__(self, header: Header, place: str) -> None:
        self._header = header
        self._place = place
        self._crc = zlib.crc32(header.raw[4:])
        self._digest = sha256()
        self._size = 0
        self._inflate: Callable[[bytes | memoryview], Iterator[bytes | memoryview]] = (
            self._plain if header.codec == RAW else self._zstd()
        )

    def feed(self, piece: bytes | memoryview) -> None:
        """Take a piece of the payload."""
        for _ in self.unfold(piece):
            pass

    def unfold(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """Take a piece of the payload and give its content, which is verified by `finish` only."""
        self._crc = zlib.crc32(piece, self._crc)
        for content in self._inflate(piece):
            self._size += len(content)
            if self._size > self._header.size:
                raise self.failed(f"it unfolds to more than the {self._header.size} bytes it says")
            self._digest.update(content)
            yield content

    def finish(self, arrived: int) -> None:
        """After the last piece; `arrived` are the bytes of all pieces."""
        if arrived != self._header.stored:
            raise self.failed(f"{arrived} of {self._header.stored} bytes arrived")
        if self._crc != self._header.crc:
            raise self.failed("its checksum does not match")
        if self._size != self._header.size or self._digest.digest() != self._header.id:
            raise self.failed("its content has another digest or size")

    def failed(self, why: str) -> HostileRemoteError:
        return HostileRemoteError(f"object {self._header.id.hex()} must be what its id says: {why} ({self._place})")

    def _plain(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        yield piece

    def _zstd(self) -> Callable[[bytes | memoryview], Iterator[bytes | memoryview]]:
        """Unfolds by small inputs: a zstd block of at most 128 KiB can come from a few bytes, so an input of 4 KiB
        gives at most some hundred megabytes, in no single piece."""
        decompressor = zstandard.ZstdDecompressor().decompressobj(write_size=_PIECE_BYTES)

        def inflate(piece: bytes | memoryview) -> Iterator[bytes]:
            try:
                for at in range(0, len(piece), 1024):
                    if content := decompressor.decompress(piece[at : at + 1024]):
                        yield content
            except zstandard.ZstdError as error:
                raise self.failed(f"it cannot be decompressed ({error})") from None

        return inflate


def _decompressor() -> Any:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
