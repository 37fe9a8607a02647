"""Bytes of a file, decompressed as they are read, however they were compressed; never more of them than allowed.

gzip, bzip2, xz and zstd are told by their first bytes. Memory is bounded whatever the stream says, because every
decompressor is asked for pieces of a fixed size.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, cast

import zstandard

from koguma.images.errors import LimitError, TreeError
from koguma.images.importing.options import Limits

PIECE_BYTES = 1024 * 1024
_XZ_MEMORY_BYTES = 256 * 1024 * 1024
_RATIO_FROM_BYTES = 256 * 1024 * 1024
_MAGIC_BYTES = 6
GZIP, BZIP2, XZ, ZSTD, PLAIN = "gzip", "bzip2", "xz", "zstd", "none"
_MAGICS = (
    (b"\x1f\x8b", GZIP), (b"BZh", BZIP2), (b"\xfd7zXZ\0", XZ), (b"\x28\xb5\x2f\xfd", ZSTD),
    *((bytes((first,)) + b"\x2a\x4d\x18", ZSTD) for first in range(0x50, 0x60)),
)  # fmt: skip
"""zstd's data may come after frames that are to be skipped: pzstd begins with one."""

Tap = Callable[[bytes], object]


class ByteStream:
    """Decompressed bytes in order. `stored_tap` sees the bytes of the file, `tap` those that are read."""

    def __init__(
        self,
        file: IO[bytes],
        limits: Limits,
        *,
        stored_tap: Tap | None = None,
        tap: Tap | None = None,
        seek: bool = False,
    ) -> None:
        """With `seek`, bytes left out of a plain file are not read; the file must be at its start."""
        self._input = _Input(file, stored_tap, limits)
        self._file = file if seek else None
        self._limits = limits
        self._tap = tap
        self.compression = compression_of(self._input.peek(_MAGIC_BYTES))
        self._pieces = self._decompressed()
        self._piece = b""
        self._at = 0
        self.offset = 0
        """Of the next byte to be read."""

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        end = self._at + size
        if end <= len(self._piece):
            data = self._piece[self._at : end]
            self._at = end
        else:
            data = b"".join(self._parts(size))
        self.offset += len(data)
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces; fewer only at the end."""
        for part in self._parts(size):
            self.offset += len(part)
            yield part

    def skip(self, size: int) -> int:
        """Leave bytes out; returns how many there were."""
        if self._file is not None and self.compression == PLAIN and size > PIECE_BYTES:
            size = min(size, self._file.seek(0, os.SEEK_END) - self.offset)
            self.offset += size
            self._piece = b""
            self._input.forget()
            self._file.seek(self.offset)
            return size
        return sum(len(piece) for piece in self.pieces(size))

    def _parts(self, size: int) -> Iterator[bytes]:
        while size:
            if self._at >= len(self._piece):
                self._piece, self._at = next(self._pieces, b""), 0
                if not self._piece:
                    return
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    def _decompressed(self) -> Iterator[bytes]:
        produced = 0
        try:
            for piece in _READERS[self.compression](self._input):
                produced += len(piece)
                self._check(produced)
                if self._tap:
                    self._tap(piece)
                yield piece
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's error, not the decompressor's
            raise TreeError(
                f"a {self.compression} stream must be whole and sound: {error} (after {produced} bytes)"
            ) from None

    def _check(self, produced: int) -> None:
        limits = self._limits
        if produced > _most(limits):
            raise LimitError(f"an import may decompress to some {limits.bytes_max} bytes, got more; see --max-bytes")
        if produced > _RATIO_FROM_BYTES and produced > limits.ratio_max * self._input.bytes:
            raise LimitError(
                f"a compressed import may decompress to {limits.ratio_max} times its size, got {produced} bytes"
                f" from {self._input.bytes}; --max-ratio allows more"
            )


def _most(limits: Limits) -> int:
    """Bytes of a stream: headers and padding of a tar come on top of the bytes of its files."""
    return 2 * limits.bytes_max + 1024 * limits.entries_max


def compression_of(start: bytes) -> str:
    """What the first bytes of a file say it is compressed with."""
    return next((name for magic, name in _MAGICS if start.startswith(magic)), PLAIN)


class _Input:
    """The file, read piece by piece, counted."""

    def __init__(self, file: IO[bytes], tap: Tap | None, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._tap = tap
        self._peeked = b""
        self.bytes = 0

    def peek(self, size: int) -> bytes:
        while len(self._peeked) < size and (more := self._file.read(size - len(self._peeked))):
            self._peeked += more
        return self._peeked

    def forget(self) -> None:
        self._peeked = b""

    def read(self, size: int = PIECE_BYTES) -> bytes:
        data, self._peeked = self._peeked or self._file.read(size), b""
        self.bytes += len(data)
        if self.bytes > _most(self._limits):  # frames of nothing, one after the other, would never give a byte
            raise LimitError(f"an import may have some {self._limits.bytes_max} bytes, got more; see --max-bytes")
        if self._tap and data:
            self._tap(data)
        return data


def _plain(source: _Input) -> Iterator[bytes]:
    while data := source.read():
        yield data


class _Decompressor(Protocol):
    """What bz2 and lzma have in common, and our gzip."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _members(make: Callable[[], _Decompressor]) -> Callable[[_Input], Iterator[bytes]]:
    """Reads compressed members one after the other; zeros may follow the last, anything else may not."""

    def read(source: _Input) -> Iterator[bytes]:
        decompressor = make()
        data = source.read()
        while True:
            piece = decompressor.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            data = b""
            if decompressor.eof:
                rest = _after_zeros(decompressor.unused_data, source)
                if not rest:
                    return
                decompressor, data = make(), rest
            elif decompressor.needs_input and not piece:
                data = source.read()
                if not data:
                    raise ValueError("it ends too early")

    return read


def _after_zeros(rest: bytes, source: _Input) -> bytes:
    """What comes after padding; empty at the end of the file."""
    while True:
        rest = rest.lstrip(b"\0") or source.read()
        if not rest or rest[0]:
            return rest


def _zstd(source: _Input) -> Iterator[bytes]:
    """Frames one after the other. A frame that is cut short just ends: the tar in it misses its own end then."""
    with zstandard.ZstdDecompressor().stream_reader(
        cast("IO[bytes]", source), read_size=PIECE_BYTES, read_across_frames=True
    ) as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


_READERS: dict[str, Callable[[_Input], Iterator[bytes]]] = {
    PLAIN: _plain,
    GZIP: _members(_Gzip),
    BZIP2: _members(cast("Any", bz2.BZ2Decompressor)),
    XZ: _members(lambda: cast("Any", lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))),
    ZSTD: _zstd,
}
