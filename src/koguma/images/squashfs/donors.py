"""An image made before, as the source of blocks that need not be compressed again.

Which blocks it has is noted beside it: `.blocks`, drawn in FORMAT.md. Compressing is a function of the content alone,
so what is taken over is what would have been made. Every slab of blocks has a checksum, verified when it is taken.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

import zstandard

from koguma.images.errors import ImageError
from koguma.images.squashfs.layout import BLOCK_BYTES, UNCOMPRESSED, ZSTD_LEVEL

SLAB_BLOCKS = 8
"""Blocks with one checksum: what is read at once."""

_MAGIC = b"KGSB"
_HEADER = struct.Struct("<4sHHII8s")
"""Magic, version, level, bytes of a block, number of units, version of zstd."""
_UNIT = struct.Struct("<32sQQI")
"""Key, where its first block is, bytes of its content, number of its blocks."""
_VERSION = 1
"""Another one when `layout.compressor` or what contents are packed with changes."""
_DIGEST_BYTES = 32
_ZSTD_VERSION = ".".join(map(str, zstandard.ZSTD_VERSION)).encode().ljust(8, b"\0")


class DonorError(ImageError):
    """A donor's image does not hold what its note says."""


class Packed(NamedTuple):
    """A unit as it stands in an image."""

    start: int
    size: int
    """Of its content."""
    sizes: tuple[int, ...]
    """Of its blocks: with UNCOMPRESSED where one stands as it is, nothing for one of zeros."""
    crcs: tuple[int, ...]
    """CRC-32 of every SLAB_BLOCKS of them."""

    @property
    def zero_blocks(self) -> int:
        return self.sizes.count(0)


class Donor:
    """An open image and what it has."""

    def __init__(self, descriptor: int, units: dict[bytes, Packed]) -> None:
        self._descriptor = descriptor
        self._units = units

    @classmethod
    @contextmanager
    def opened(cls, image: Path) -> Iterator[Self | None]:
        """None when there is no image with a note that this code wrote with this zstd."""
        try:
            units = _decoded(note_path(image).read_bytes())
            descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError, struct.error):
            yield None
            return
        try:
            yield cls(descriptor, units)
        finally:
            os.close(descriptor)

    def find(self, key: bytes) -> Packed | None:
        return self._units.get(key)

    def take(self, packed: Packed, slab: int) -> tuple[tuple[int, ...], bytes]:
        """The sizes of a slab's blocks, and its bytes. Raises DonorError when they are not what they were."""
        first = slab * SLAB_BLOCKS
        start = packed.start + sum(map(_length, packed.sizes[:first]))
        sizes = packed.sizes[first : first + SLAB_BLOCKS]
        data = os.pread(self._descriptor, sum(map(_length, sizes)), start)
        if zlib.crc32(data) != packed.crcs[slab]:
            raise DonorError(f"an image must hold the blocks it was made with, got others at byte {start}")
        return sizes, data


def note_path(image: Path) -> Path:
    return image.with_suffix(".blocks")


def encode_note(units: dict[bytes, Packed]) -> bytes:
    parts = [_HEADER.pack(_MAGIC, _VERSION, ZSTD_LEVEL, BLOCK_BYTES, len(units), _ZSTD_VERSION)]
    for key, (start, size, sizes, crcs) in units.items():
        parts.append(_UNIT.pack(key, start, size, len(sizes)))
        parts.append(struct.pack(f"<{len(sizes) + len(crcs)}I", *sizes, *crcs))
    note = b"".join(parts)
    return note + sha256(note).digest()


def _decoded(note: bytes) -> dict[bytes, Packed]:
    if sha256(note[:-_DIGEST_BYTES]).digest() != note[-_DIGEST_BYTES:]:
        raise ValueError("it is damaged")
    *versions, count, zstd = _HEADER.unpack_from(note)
    if (*versions, zstd) != (_MAGIC, _VERSION, ZSTD_LEVEL, BLOCK_BYTES, _ZSTD_VERSION):
        raise ValueError("it is another version's")
    units, at = {}, _HEADER.size
    for _ in range(count):
        key, start, size, blocks = _UNIT.unpack_from(note, at)
        at += _UNIT.size
        slabs = -(-blocks // SLAB_BLOCKS)
        numbers = struct.unpack_from(f"<{blocks + slabs}I", note, at)
        at += 4 * len(numbers)
        units[key] = Packed(start, size, numbers[:blocks], numbers[blocks:])
    return units


def _length(size: int) -> int:
    return size & ~UNCOMPRESSED
