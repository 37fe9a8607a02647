"""Packs built to measure for another repository: records copied as they lie here, in packs of bounded size.

What arrived whole counts; so the size of a pack is how much a broken push may have to send again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from koguma.images.errors import ObjectMissingError
from koguma.images.objects import ObjectStore
from koguma.images.packs import PACK_HEADER, RECORD, OpenPack, PackReader, encode_index
from koguma.images.transfer.incoming import PACK_START
from koguma.images.transfer.records import LARGE_BYTES

PACK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OutgoingPack:
    """Objects that are sent together; `pieces` reads them when they are sent, their checksums verified."""

    objects: tuple[tuple[bytes, PackReader, tuple[int, int]], ...]
    held: tuple[OpenPack, ...]
    """The packs they lie in: they can be read, whatever gc removes while we send."""

    @property
    def size_bytes(self) -> int:
        return PACK_HEADER.size + sum(RECORD.size + place[1] for _, _, place in self.objects)

    def index(self) -> bytes:
        places, at = {}, PACK_HEADER.size
        for object_id, _, (_, stored) in self.objects:
            places[object_id] = (at, stored)
            at += RECORD.size + stored
        return encode_index(places, at)

    def name(self) -> str:
        return "pack-" + sha256(self.index()).hexdigest()[:32]

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the pack file, in pieces of about a megabyte."""
        batch: list[bytes | memoryview] = [PACK_START]
        size = len(PACK_START)
        for object_id, reader, place in self.objects:
            if place[1] >= LARGE_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
                found = reader.header(object_id, place[0])
                yield RECORD.pack(found.crc, found.kind, found.codec, 0, found.stored, found.size, found.id)
                yield from reader.payload_chunks(found)
                continue
            found, payload = reader.payload(object_id, place)
            batch.append(RECORD.pack(found.crc, found.kind, found.codec, 0, found.stored, found.size, found.id))
            batch.append(payload)
            size += RECORD.size + len(payload)
            if size >= 1024 * 1024:
                yield b"".join(batch)
                batch, size = [], 0
        yield b"".join(batch)


def outgoing_packs(
    store: ObjectStore, files: Iterable[bytes], parts: Iterable[bytes], pack_bytes: int = PACK_BYTES
) -> Iterator[OutgoingPack]:
    """Contents of files in packs of about `pack_bytes`, then trees and commits in one: it comes after all it refers to.

    Objects go in the order they lie here, which is the quickest to read.
    """
    placed, held = _located(store, files)
    batch: list[Located] = []
    size = 0
    for item in placed:
        if batch and size + item[2][1] > pack_bytes:
            yield OutgoingPack(tuple(batch), held)
            batch, size = [], 0
        batch.append(item)
        size += RECORD.size + item[2][1]
    if batch:
        yield OutgoingPack(tuple(batch), held)
    last, held = _located(store, parts)
    if last:
        yield OutgoingPack(tuple(last), held)


Located = tuple[bytes, PackReader, tuple[int, int]]


def _located(store: ObjectStore, ids: Iterable[bytes]) -> tuple[list[Located], tuple[OpenPack, ...]]:
    readers = [*store.packs(), *store.condemned()]
    found = sorted((_locate(store, readers, item) for item in ids), key=lambda item: (item[1].path, item[2]))
    return found, tuple({reader: reader.opened() for _, reader, _ in found}.values())


def _locate(store: ObjectStore, readers: list[PackReader], object_id: bytes) -> Located:
    for reader in readers:
        if place := reader.find(object_id):
            return object_id, reader, place
    raise ObjectMissingError(f"object {object_id.hex()} is in no pack ({store.directory})")
