"""Verifies packs: every byte of every record against its checksum, every content against its id, indexes against packs.

A pack is read once, in order, by threads that each take a stretch of it: SHA-256, CRC-32 and zstd release the
interpreter's lock, so all cores work.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from koguma.images.codec import content_pieces
from koguma.images.errors import CorruptError
from koguma.images.objects import STREAM_MIN_BYTES
from koguma.images.packindex import Place
from koguma.images.packs import PACK_HEADER, PACK_MAGIC, RAW, RECORD, VERSION, ZSTD, OpenPack, PackReader, Stored

_STRETCH_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_IN_FLIGHT_MAX = 6


@dataclass(slots=True)
class PackFindings:
    """What is wrong with packs."""

    problems: list[str] = field(default_factory=list)
    """But for damaged objects."""
    damaged: dict[bytes, str] = field(default_factory=dict)
    """Objects whose copy in some pack cannot be used, and why."""
    sound: dict[bytes, int] = field(default_factory=dict)
    """Objects of which a copy was verified, with the bytes of their content."""
    damaged_in: dict[Path, set[bytes]] = field(default_factory=dict)
    """The damaged objects by the pack they lie in."""
    rebuilt: dict[Path, dict[bytes, Place]] = field(default_factory=dict)
    """Packs without a usable index, and what their records say should be in it."""
    read_bytes: int = 0

    def add(self, other: PackFindings) -> None:
        self.problems += other.problems
        self.damaged |= other.damaged
        self.sound |= other.sound
        self.read_bytes += other.read_bytes
        for path, ids in other.damaged_in.items():
            self.damaged_in.setdefault(path, set()).update(ids)


@dataclass(frozen=True, slots=True)
class _Pack:
    """A pack to verify, by its index or, without a usable one, by its own records."""

    path: Path
    file: OpenPack
    size: int
    places: dict[bytes, Place]

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.file.number, size, offset)


@dataclass(frozen=True, slots=True)
class _Stretch:
    pack: _Pack
    start: int
    end: int
    records: list[tuple[int, int, bytes]]
    """Offset, stored bytes, id, ascending."""


def check_packs(
    packs: Sequence[PackReader], without_index: Iterable[Path] = (), progress: Callable[[int], None] | None = None
) -> PackFindings:
    """Verify packs wholly; never stops at the first problem. `progress` is told the bytes read."""
    findings = PackFindings()
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="fsck") as pool:
        opened = chain(
            (_open(pack.path, _index_of(pack, findings), findings) for pack in packs),
            (_open(path, None, findings) for path in without_index),
        )
        for found in _mapped(pool, (stretch for pack in opened if pack for stretch in _stretches(pack))):
            findings.add(found)
            if progress:
                progress(found.read_bytes)
    return findings


def scan_places(read: Callable[[int, int], bytes], size: int) -> dict[bytes, Place]:
    """The objects of a pack by its records alone; for a pack without a usable index. Raises CorruptError.

    `read` gives bytes at an offset, `size` is the pack's length. Contents are not verified here.
    """
    places: dict[bytes, Place] = {}
    position = PACK_HEADER.size
    if read(0, position) != PACK_HEADER.pack(PACK_MAGIC, VERSION, 0):
        raise CorruptError(f"a pack must start with {PACK_MAGIC!r} version {VERSION}")
    while position < size:
        header = read(position, RECORD.size)
        if len(header) != RECORD.size:
            raise CorruptError(f"a pack must consist of whole records, it breaks off at {position}")
        stored, object_id = RECORD.unpack(header)[4], RECORD.unpack(header)[6]
        places[object_id] = (position, stored)
        position += RECORD.size + stored
    if position != size:
        raise CorruptError(f"a pack must consist of whole records, the last one goes on past its end at {size}")
    return places


def _mapped(pool: ThreadPoolExecutor, stretches: Iterator[_Stretch]) -> Iterator[PackFindings]:
    """As the pool's own map, but with few stretches in memory at a time."""
    running: deque[Future[PackFindings]] = deque()
    for stretch in stretches:
        running.append(pool.submit(_check_stretch, stretch))
        if len(running) > _IN_FLIGHT_MAX:
            yield running.popleft().result()
    for future in running:
        yield future.result()


def _index_of(pack: PackReader, findings: PackFindings) -> dict[bytes, Place] | None:
    """What the index says; None when it is damaged."""
    try:
        pack.verify_frame()
    except (CorruptError, OSError) as error:
        findings.problems.append(str(error))
    try:
        pack.verify_index(frame=False)
    except CorruptError as error:
        findings.problems.append(str(error))
        return None
    return pack.places()


def _open(path: Path, places: dict[bytes, Place] | None, findings: PackFindings) -> _Pack | None:
    """A pack that stays open until the last stretch of it is verified."""
    try:
        file = OpenPack(path)
        size = os.fstat(file.number).st_size
        if places is None:
            places = scan_places(lambda offset, length: os.pread(file.number, length, offset), size)
            findings.rebuilt[path] = places
    except (OSError, CorruptError) as error:
        findings.problems.append(f"a pack must be readable: {error} ({path})")
        findings.damaged |= dict.fromkeys(places or (), "its pack cannot be read")
        return None
    return _Pack(path, file, size, places)


def _stretches(pack: _Pack) -> Iterator[_Stretch]:
    """The pack in pieces that begin and end where a record does; together they are all of it."""
    records = sorted((offset, stored, object_id) for object_id, (offset, stored) in pack.places.items())
    start = PACK_HEADER.size
    taken: list[tuple[int, int, bytes]] = []
    for record in records:
        if taken and (record[0] - start >= _STRETCH_BYTES or record[1] >= STREAM_MIN_BYTES):
            yield _Stretch(pack, start, record[0], taken)
            start, taken = record[0], []
        taken.append(record)
    yield _Stretch(pack, start, pack.size, taken)


def _check_stretch(stretch: _Stretch) -> PackFindings:
    """Walk the records of a stretch; after one that cannot be followed, go on at the next the index knows."""
    findings = PackFindings(read_bytes=stretch.end - stretch.start)
    position = stretch.start
    try:
        if stretch.records and stretch.records[0][1] >= STREAM_MIN_BYTES:
            offset, stored, object_id = stretch.records[0]
            _note(findings, stretch.pack, object_id, _look_at_large(stretch.pack, offset, stored, object_id))
            position = offset + RECORD.size + stored
        data = memoryview(stretch.pack.read(position, stretch.end - position))
    except OSError as error:
        for _, _, object_id in stretch.records:
            _note(findings, stretch.pack, object_id, f"it cannot be read: {error.strerror}")
        return findings
    start, decompressor = position, zstandard.ZstdDecompressor()
    for offset, stored, object_id in stretch.records:
        if offset < start:
            continue
        if position < offset:
            _check_unindexed(data[position - start : offset - start], stretch.pack, position, findings)
        _note(findings, stretch.pack, object_id, _look_at(data, offset - start, stored, object_id, decompressor))
        position = offset + RECORD.size + stored
    if position < stretch.end:
        _check_unindexed(data[position - start :], stretch.pack, position, findings)
    return findings


def _look_at(data: memoryview, position: int, stored: int, object_id: bytes, decompressor: Any) -> int | str:
    """The bytes of a record's content, or what is wrong with it."""
    end = position + RECORD.size + stored
    if end > len(data):
        return "the pack ends before it"
    crc, _, codec, zero, length, size, found = RECORD.unpack_from(data, position)
    if found != object_id or length != stored or zero != 0 or codec not in (RAW, ZSTD):
        return "its record is damaged"
    if zlib.crc32(data[position + 4 : end]) != crc:
        return "its checksum does not match"
    payload = data[position + RECORD.size : end]
    try:
        content = payload if codec == RAW else decompressor.decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        return f"it cannot be decompressed: {error}"
    if len(content) != size or sha256(content).digest() != object_id:
        return "its content does not match its id"
    return int(size)


def _look_at_large(pack: _Pack, offset: int, stored: int, object_id: bytes) -> int | str:
    """As `_look_at`, piece by piece, so that memory stays bounded."""
    header = pack.read(offset, RECORD.size)
    if len(header) != RECORD.size:
        return "the pack ends before it"
    crc, kind, codec, zero, length, size, found = RECORD.unpack(header)
    if found != object_id or length != stored or zero != 0 or codec not in (RAW, ZSTD):
        return "its record is damaged"
    sums = [zlib.crc32(header[4:])]

    def pieces() -> Iterator[bytes]:
        for at in range(0, stored, _PIECE_BYTES):
            piece = pack.read(offset + RECORD.size + at, min(_PIECE_BYTES, stored - at))
            sums.append(zlib.crc32(piece, sums.pop()))
            yield piece

    digest = sha256()
    try:
        for piece in content_pieces(Stored(found, kind, codec, stored, size, crc, offset), pieces()):
            digest.update(piece)
    except CorruptError as error:
        return str(error)
    if sums != [crc]:
        return "its checksum does not match"
    return int(size) if digest.digest() == object_id else "its content does not match its id"


def _check_unindexed(data: memoryview, pack: _Pack, at: int, findings: PackFindings) -> None:
    """Verify records that gc left out of the index."""
    position = 0
    while position < len(data):
        whole = len(data) - position >= RECORD.size
        crc, stored = RECORD.unpack_from(data, position)[0:5:4] if whole else (0, 0)
        following = position + RECORD.size + stored
        if not whole or following > len(data) or zlib.crc32(data[position + 4 : following]) != crc:
            findings.problems.append(
                f"bytes of a pack that its index does not name must be whole records, they are not"
                f" ({pack.path} at {at + position})"
            )
            return
        position = following


def _note(findings: PackFindings, pack: _Pack, object_id: bytes, seen: int | str) -> None:
    if isinstance(seen, int):
        findings.sound[object_id] = seen
    else:
        findings.damaged[object_id] = seen
        findings.damaged_in.setdefault(pack.path, set()).add(object_id)
