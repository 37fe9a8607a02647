"""How an object's content becomes the payload of a record and back: as it is, or one zstd frame.

Hashing and compressing release the interpreter's lock for anything but tiny objects, so threads run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from typing import IO, Any, NamedTuple, cast

import zstandard

from koguma.images.errors import CorruptError
from koguma.images.packs import RAW, ZSTD, Stored, record_header

ZSTD_LEVEL = 3
ZSTD_LEVEL_OBJECT_FILE = 1
"""For ELF files that are to be linked, in a root those are kernel modules."""
COMPRESS_MIN_BYTES = 64
"""Shorter objects gain nothing: a zstd frame costs some ten bytes."""

_PIECE_BYTES = 1024 * 1024
_local = threading.local()


class Prepared(NamedTuple):
    """An object hashed and compressed, ready to be appended to a pack."""

    id: bytes
    header: bytes
    payload: bytes


def prepare(kind: int, content: bytes) -> Prepared:
    """Hash and compress; releases the interpreter's lock for anything but tiny objects, so threads run at once."""
    return prepare_hashed(kind, content, sha256(content).digest())


def prepare_hashed(kind: int, content: bytes, object_id: bytes) -> Prepared:
    codec, payload = RAW, content
    if len(content) >= COMPRESS_MIN_BYTES:
        compressed = _compressor(_level(content)).compress(content)
        if len(compressed) < len(content):
            codec, payload = ZSTD, compressed
    return Prepared(object_id, record_header(object_id, kind, codec, len(content), payload), payload)


def content_of(found: Stored, payload: bytes | memoryview) -> bytes:
    """The content of a record whose payload is at hand. Raises CorruptError."""
    try:
        content: bytes = (
            bytes(payload) if found.codec == RAW else _decompressor().decompress(payload, max_output_size=found.size)
        )
    except zstandard.ZstdError as error:
        raise CorruptError(f"object {found.id.hex()} cannot be decompressed: {error}") from None
    if len(content) != found.size:
        raise CorruptError(f"object {found.id.hex()} must have {found.size} bytes, got {len(content)}")
    return content


def content_pieces(found: Stored, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """As `content_of`, in pieces of bounded size, however well they were compressed; checked after the last."""
    size = 0
    for piece in pieces if found.codec == RAW else _decompress_pieces(found, pieces):
        size += len(piece)
        yield piece
    if size != found.size:
        raise CorruptError(f"object {found.id.hex()} must have {found.size} bytes, got {size}")


def piecewise_compressor() -> Any:
    """For a content that arrives in pieces: `compress` each, then `flush`."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=False).compressobj()


def _decompress_pieces(found: Stored, pieces: Iterator[bytes]) -> Iterator[bytes]:
    source = _Pieces(pieces)
    with zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", source)) as stream:
        try:
            while content := stream.read(_PIECE_BYTES):
                yield content
        except zstandard.ZstdError as error:
            raise CorruptError(f"object {found.id.hex()} cannot be decompressed: {error}") from None
    source.drain()


class _Pieces:
    """An iterator of bytes as the file that the decompressor wants to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        piece, self._rest = piece[:size], piece[size:]
        return piece

    def drain(self) -> None:
        """Use up what follows the frame: the last piece's end is where the checksum is verified."""
        for _ in self._pieces:
            pass


def _level(content: bytes) -> int:
    """Kernel modules are a third of a root, and a higher level gains 3 % of them for half as much time again."""
    return ZSTD_LEVEL_OBJECT_FILE if content[:4] == b"\x7fELF" and content[16:18] == b"\1\0" else ZSTD_LEVEL


def _compressor(level: int) -> Any:
    compressors = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level, write_content_size=False)
    return compressors[level]


def _decompressor() -> Any:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
