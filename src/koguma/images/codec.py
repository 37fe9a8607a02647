"""How an object's content becomes the payload of a record and back: as it is, or one zstd frame.

Hashing and compressing release the interpreter's lock for anything but tiny objects, so threads run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import IO, Any, NamedTuple, cast

import zstandard

from koguma.images.errors import CorruptError
from koguma.images.packs import RAW, ZSTD, Stored, record_header

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


def prepare_hashed(kind: int, content: bytes | memoryview, object_id: bytes) -> Prepared:
    """As `prepare`, of a content whose id is known; it may change afterwards, nothing of it is kept."""
    if len(content) >= COMPRESS_MIN_BYTES:
        compressed: bytes = _compressor(content).compress(content)
        if len(compressed) < len(content):
            return Prepared(object_id, record_header(object_id, kind, ZSTD, len(content), compressed), compressed)
    payload = bytes(content)
    return Prepared(object_id, record_header(object_id, kind, RAW, len(content), payload), payload)


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
    return _COMPRESSORS["any"]().compressobj()


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


def _compressor(content: bytes | memoryview) -> Any:
    """Each thread's own for this kind of content.

    Linked code takes level 1's search but finds shorter matches: a third less time than level 3's for 4 % more bytes.
    Objects yet to be linked, in a root those are kernel modules, lose 2 % by it. The rest has level 3's search. All
    tables stay in a core's own cache.
    """
    kind = "any"
    if content[:4] == b"\x7fELF":
        kind = "linked" if content[16:18] != b"\1\0" else "to link"
    compressors = _local.__dict__.setdefault("compressors", {})
    if kind not in compressors:
        compressors[kind] = _COMPRESSORS[kind]()
    return compressors[kind]


def _tuned(strategy: int, min_match: int) -> Any:
    parameters = zstandard.ZstdCompressionParameters(
        window_log=21,
        hash_log=15,
        chain_log=15,
        search_log=1,
        min_match=min_match,
        strategy=strategy,
        write_content_size=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "linked": lambda: _tuned(zstandard.STRATEGY_FAST, 5),
    "any": lambda: _tuned(zstandard.STRATEGY_DFAST, 5),
    "to link": lambda: _tuned(zstandard.STRATEGY_FAST, 6),
}


def _decompressor() -> Any:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
