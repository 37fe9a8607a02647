"""What files hold, packed into the data blocks of an image, on all processors, in the order of the tree.

A content of a block or more has blocks of its own. Smaller ones share fragments of up to a block. A fragment ends when
it is full or, from half a block on, before a content whose own digest says so: thus a file that comes or goes changes
the fragments around it and no others, and a donor can give the rest.

Contents are read from packs, whose checksums are verified, by threads: reading and compressing release the
interpreter's lock.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from koguma.images.errors import CorruptError
from koguma.images.files import begin_sync, write_parts
from koguma.images.objects import ObjectStore
from koguma.images.squashfs.donors import SLAB_BLOCKS, Donor, Packed
from koguma.images.squashfs.layout import BLOCK_BYTES, FRAGMENT, UNCOMPRESSED, compressor
from koguma.images.trees import EMPTY_DIGEST, FILE, Entry

_STARTS_BELOW = 32
"""A content whose digest's first byte is less, one of eight, begins a fragment when the last one is half full."""
_LARGE_MIN_BYTES = 8 * 1024 * 1024
"""Contents that are read in pieces."""
_SLAB_BYTES = SLAB_BLOCKS * BLOCK_BYTES
_AHEAD_BYTES = 24 * 1024 * 1024
"""Of contents that are packed while earlier ones are written: bounds memory."""
_SYNC_BYTES = 8 * 1024 * 1024
"""Written before the disk is set to work on it."""
_JOB_COST_BYTES = 16 * 1024
"""What one more job holds beside its content, so that many small ones are bounded, too."""
_ZEROS = bytes(BLOCK_BYTES)
_own = threading.local()


class InFragment(NamedTuple):
    """Where a file of less than a block is."""

    fragment: int
    offset: int


class Contents:
    """Where everything went."""

    def __init__(self) -> None:
        self.files: dict[bytes, Packed] = {}
        """Contents of a block or more, by digest."""
        self.small: dict[bytes, InFragment] = {}
        """The others, but for the empty one."""
        self.fragments: dict[bytes, Packed] = {}
        """By key, in order."""

    def add(self, unit: Unit, packed: Packed) -> None:
        if not unit.is_fragment:
            self.files[unit.key] = packed
            return
        offset = 0
        for digest, size in unit.members:
            self.small[digest] = InFragment(len(self.fragments), offset)
            offset += size
        self.fragments[unit.key] = packed

    def fragment_table(self) -> bytes:
        return b"".join(FRAGMENT.pack(packed.start, packed.sizes[0], 0) for packed in self.fragments.values())

    def packed(self) -> dict[bytes, Packed]:
        """What a later image can take over, by key."""
        return self.files | self.fragments


class Unit(NamedTuple):
    """What a donor gives as a whole: the blocks of one file, or a fragment."""

    key: bytes
    """Of one file its digest, of a fragment that of `fragment ` and their digests."""
    members: tuple[tuple[bytes, int], ...]
    """Digests and sizes."""
    size: int
    is_fragment: bool


class _Piece(NamedTuple):
    """Blocks of a unit as they stand in an image: up to SLAB_BLOCKS of them."""

    sizes: tuple[int, ...]
    parts: list[bytes | memoryview]
    crc: int


class _Job(NamedTuple):
    unit: Unit
    size: int
    make: Callable[[], list[_Piece]]


def pack_contents(
    store: ObjectStore,
    entries: Iterable[Entry],
    descriptor: int,
    donor: Donor | None,
    progress: Callable[[int], None] | None,
) -> Contents:
    """Write what these files hold from where `descriptor` stands on; returns where everything is.

    `progress` is told the bytes of content that were packed. Raises CorruptError, or DonorError for a damaged donor.
    """
    contents = Contents()
    at = synced = os.lseek(descriptor, 0, os.SEEK_CUR)
    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="pack")
    try:
        for unit, pieces in groupby(_in_order(pool, _jobs(store, units_of(entries), donor)), itemgetter(0)):
            begin = at
            sizes: list[int] = []
            crcs: list[int] = []
            for _, piece in pieces:
                write_parts(descriptor, piece.parts)
                at += sum(map(len, piece.parts))
                sizes += piece.sizes
                crcs.append(piece.crc)
            contents.add(unit, Packed(begin, unit.size, tuple(sizes), tuple(crcs)))
            if at - synced >= _SYNC_BYTES:
                begin_sync(descriptor, synced, at - synced)
                synced = at
            if progress:
                progress(unit.size)
    finally:
        pool.shutdown(cancel_futures=True)
    return contents


def units_of(entries: Iterable[Entry]) -> Iterator[Unit]:
    """Every content once, in the order of the first files that have it; a fragment comes when it is complete.

    Raises CorruptError for files that say different sizes of one content.
    """
    seen: dict[bytes, int] = {EMPTY_DIGEST: 0}
    members: list[tuple[bytes, int]] = []
    filled = 0
    for entry in entries:
        if entry.kind != FILE:
            continue
        if (known := seen.get(entry.digest)) is not None:
            _check_size(entry.digest, entry.size, known)
            continue
        seen[entry.digest] = entry.size
        if entry.size >= BLOCK_BYTES:
            yield Unit(entry.digest, ((entry.digest, entry.size),), entry.size, is_fragment=False)
            continue
        marked = filled >= BLOCK_BYTES // 2 and entry.digest[0] < _STARTS_BELOW
        if marked or filled + entry.size > BLOCK_BYTES:
            yield _fragment(members, filled)
            members, filled = [], 0
        members.append((entry.digest, entry.size))
        filled += entry.size
    if members:
        yield _fragment(members, filled)


def _fragment(members: list[tuple[bytes, int]], size: int) -> Unit:
    """Its key is no digest of a file of its size: such a file has no blocks, or one, and that is no 9 bytes and ids."""
    key = sha256(b"fragment " + b"".join(digest for digest, _ in members)).digest()
    return Unit(key, tuple(members), size, is_fragment=True)


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[_Job]) -> Iterator[tuple[Unit, _Piece]]:
    """The pieces of every unit, made ahead by threads."""
    ahead: deque[tuple[_Job, Future[list[_Piece]]]] = deque()
    waiting = 0
    for job in jobs:
        ahead.append((job, pool.submit(job.make)))
        waiting += job.size + _JOB_COST_BYTES
        while waiting > _AHEAD_BYTES:
            first, made = ahead.popleft()
            waiting -= first.size + _JOB_COST_BYTES
            yield from ((first.unit, piece) for piece in made.result())
    while ahead:
        first, made = ahead.popleft()
        yield from ((first.unit, piece) for piece in made.result())


def _jobs(store: ObjectStore, units: Iterable[Unit], donor: Donor | None) -> Iterator[_Job]:
    for unit in units:
        found = donor.find(unit.key) if donor else None
        if donor and found and found.size == unit.size:
            for slab in range(len(found.crcs)):
                size = min(_SLAB_BYTES, unit.size - slab * _SLAB_BYTES)
                yield _Job(unit, size, partial(_taken, donor, found, slab))
        elif unit.size < _LARGE_MIN_BYTES:
            yield _Job(unit, unit.size, partial(_packed, store, unit))
        else:
            packed = 0
            for content in _slabs(store.chunks(unit.key)):
                packed += len(content)
                yield _Job(unit, len(content), partial(_packed_slab, content))
            _check_size(unit.key, unit.size, packed)


def _taken(donor: Donor, found: Packed, slab: int) -> list[_Piece]:
    sizes, part = donor.take(found, slab)
    return [_Piece(sizes, [part], found.crcs[slab])]


def _packed(store: ObjectStore, unit: Unit) -> list[_Piece]:
    contents = []
    for digest, size in unit.members:
        contents.append(store.read(digest))
        _check_size(digest, size, len(contents[-1]))
    if unit.is_fragment:
        return [_piece([_packed_block(b"".join(contents))])]
    content = memoryview(contents[0])  # slices of which are no copies
    slabs = (content[at : at + _SLAB_BYTES] for at in range(0, len(content), _SLAB_BYTES))
    return [piece for slab in slabs for piece in _packed_slab(slab)]


def _packed_slab(content: memoryview) -> list[_Piece]:
    blocks: list[tuple[int, bytes | memoryview]] = []
    for at in range(0, len(content), BLOCK_BYTES):
        block = content[at : at + BLOCK_BYTES]
        blocks.append((0, b"") if block == _ZEROS else _packed_block(block))
    return [_piece(blocks)]


def _packed_block(block: bytes | memoryview) -> tuple[int, bytes | memoryview]:
    """Its size as the image says it, and its bytes there."""
    packed = _compressor().compress(block)
    return (len(packed), packed) if len(packed) < len(block) else (len(block) | UNCOMPRESSED, block)


def _piece(blocks: list[tuple[int, bytes | memoryview]]) -> _Piece:
    parts = [part for _, part in blocks]
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return _Piece(tuple(size for size, _ in blocks), parts, crc)


def _check_size(digest: bytes, said: int, size: int) -> None:
    """A tree from elsewhere may say anything of its files."""
    if said != size:
        raise CorruptError(f"a file must have the {said} bytes its tree says, its content has {size} ({digest.hex()})")


def _slabs(chunks: Iterator[bytes]) -> Iterator[memoryview]:
    rest = b""
    for chunk in chunks:
        content = memoryview(rest + chunk if rest else chunk)
        while len(content) >= _SLAB_BYTES:
            yield content[:_SLAB_BYTES]
            content = content[_SLAB_BYTES:]
        rest = bytes(content)
    if rest:
        yield memoryview(rest)


def _compressor() -> Any:
    """Each thread's own."""
    if not hasattr(_own, "compressor"):
        _own.compressor = compressor()
    return _own.compressor
