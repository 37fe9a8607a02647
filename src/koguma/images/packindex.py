"""The index of a pack: where its objects lie. FORMAT.md draws its bytes.

Owns the index alone; `packs` owns the records it points at, `packfiles` the names of both in a directory.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from koguma.images.errors import CorruptError

INDEX_MAGIC = b"KOGUINDX"
VERSION = 1
INDEX_HEADER = struct.Struct("<8sII")
"""Magic, version, number of entries."""
PLACE = struct.Struct("<QQ")
"""Offset of the record in the pack, stored bytes of its payload."""
FANOUT_BYTES = 256 * 4
_ENDS = struct.Struct("<II")
TAIL_BYTES = 8 + 32
"""Length of the pack, digest of all before."""
_READ_MAX_BYTES = 256 * 1024
"""A larger index is mapped, which takes a descriptor for as long as it is used: of small ones there may be many."""
_SEARCHED_MAX = 512
"""Ids with one first byte that are searched as bytes; a pack of more than some 131,072 objects is bisected."""

Place = tuple[int, int]
"""Offset of a record, stored bytes of its payload."""


def encode_index(places: dict[bytes, Place], pack_bytes: int) -> bytes:
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


class Index:
    """The index in memory: a bisection over sorted ids within the range the first byte gives."""

    def __init__(self, data: bytes | mmap.mmap, count: int) -> None:
        self.data = data
        self.count = count

    @property
    def ids_at(self) -> int:
        return INDEX_HEADER.size + FANOUT_BYTES

    @property
    def places_at(self) -> int:
        return self.ids_at + 32 * self.count

    def bounds(self, first: int) -> tuple[int, int]:
        if first == 0:
            return 0, _ENDS.unpack_from(self.data, INDEX_HEADER.size)[0]
        low, high = _ENDS.unpack_from(self.data, INDEX_HEADER.size + 4 * (first - 1))
        return low, high

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

    def place_at(self, position: int) -> Place:
        place: Place = PLACE.unpack_from(self.data, self.places_at + PLACE.size * position)
        return place

    @property
    def pack_bytes(self) -> int:
        """Length of the pack."""
        return int(struct.unpack_from("<Q", self.data, len(self.data) - TAIL_BYTES)[0])

    def find(self, object_id: bytes) -> Place | None:
        low, high = self.bounds(object_id[0])
        if high - low <= _SEARCHED_MAX:
            # Faster than steps of a bisection. What is found across two ids is no id; then the bisection tells.
            at = self.data[self.ids_at + 32 * low : self.ids_at + 32 * high].find(object_id)
            if at < 0:
                return None
            if at % 32 == 0:
                return self.place_at(low + at // 32)
        position = self.position(object_id)
        if position < self.count and self.id_at(position) == object_id:
            return self.place_at(position)
        return None

    def with_prefix(self, prefix: bytes, odd_digit: int | None) -> Iterator[bytes]:
        """Ids that start with `prefix` and, when given, with the hex digit `odd_digit` after it."""
        position = self.position(prefix if odd_digit is None else prefix + bytes([odd_digit << 4]))
        while position < self.count:
            object_id = self.id_at(position)
            if not object_id.startswith(prefix):
                return
            if odd_digit is not None and object_id[len(prefix)] >> 4 != odd_digit:
                return
            yield object_id
            position += 1

    def places(self) -> dict[bytes, Place]:
        """All of it at once."""
        ids = self.data[self.ids_at : self.places_at]
        found = PLACE.iter_unpack(self.data[self.places_at : self.places_at + PLACE.size * self.count])
        return {ids[32 * at : 32 * at + 32]: (offset, stored) for at, (offset, stored) in enumerate(found)}

    def close(self) -> None:
        if isinstance(self.data, mmap.mmap):
            self.data.close()

    def verify(self, path: Path) -> None:
        """Check the digest. Raises CorruptError."""
        data = bytes(self.data)
        if sha256(data[:-32]).digest() != data[-32:]:
            raise CorruptError(f"an index must match its own digest ({path})")


def load_index(path: Path) -> Index:
    """Read or map an index. Raises CorruptError when it cannot be one; `Index.verify` checks the rest."""
    with path.open("rb", buffering=0) as file:
        small = os.fstat(file.fileno()).st_size <= _READ_MAX_BYTES
        data = file.read() if small else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(data) < INDEX_HEADER.size:
        raise CorruptError(f"an index must have at least {INDEX_HEADER.size} bytes, got {len(data)} ({path})")
    magic, version, count = INDEX_HEADER.unpack_from(data)
    expected = INDEX_HEADER.size + FANOUT_BYTES + count * (32 + PLACE.size) + TAIL_BYTES
    if magic != INDEX_MAGIC or version != VERSION or len(data) != expected:
        raise CorruptError(f"an index must be version {VERSION} and have {expected} bytes, got {len(data)} ({path})")
    return Index(data, count)
