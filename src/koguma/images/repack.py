"""Merges packs, so that a commit a day for years does not make a thousand of them, and copies what gc keeps.

Records are copied as they lie, their checksums verified. Merging loses nothing and so needs no leave of writers or
readers: every object is in the new pack before the old ones go. One process at a time repacks, under the lock `gc`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from koguma.images.condemned import condemned_names
from koguma.images.errors import CorruptError, ImageError
from koguma.images.objects import PACK_MAX_BYTES, STREAM_MIN_BYTES, ObjectStore
from koguma.images.packfiles import remove_packs
from koguma.images.packindex import Place
from koguma.images.packs import PackReader, PackWriter

SMALL_PACK_BYTES = 32 * 1024 * 1024
"""What a writer may merge: gc alone touches larger packs."""
SMALL_PACKS_MAX = 8
"""A writer that finds more small packs than this merges some."""
_MERGE_MAX_BYTES = 64 * 1024 * 1024
"""How much a writer may copy: some tenths of a second."""
_FACTOR = 2


def merge_if_many(store: ObjectStore) -> None:
    """Merge small packs when there are too many; cheap when there are not, bounded when there are.

    Whatever hinders it is left for gc to say: the commit that ends with it is done.
    """
    small = [pack for pack in store.packs() if pack.size_bytes < SMALL_PACK_BYTES]
    if len(small) <= SMALL_PACKS_MAX:
        return
    with repacking(store) as alone:
        if not alone:
            return
        try:
            store.refresh()
            small = [pack for pack in store.packs() if pack.size_bytes < SMALL_PACK_BYTES]
            sizes = sorted((pack.size_bytes, pack.name) for pack in small)
            chosen = {name for _, name in sizes[: merge_count([size for size, _ in sizes], _MERGE_MAX_BYTES)]}
            sources = [pack for pack in small if pack.name in chosen]
            if len(sources) > 1:
                made = copy_objects(store, sources)
                remove_packs(store.directory, chosen - set(made))
        except (ImageError, OSError):
            return
        finally:
            store.refresh()


def merge_count(sizes: Sequence[int], budget_bytes: int) -> int:
    """How many of these packs, smallest first, to merge so that each of the rest has twice the bytes of all before it.

    Then their number grows with the logarithm of the bytes, and so does how often a byte is copied.
    """
    count, before = 0, 0
    for position, size in enumerate(sizes):
        if before + size > budget_bytes:
            break
        if position and size < _FACTOR * before:
            count = position + 1
        before += size
    return count


def copy_objects(store: ObjectStore, sources: Sequence[PackReader], keep: Container[bytes] | None = None) -> list[str]:
    """Copy the objects of packs (those in `keep`, if given) to new packs; returns their names.

    The new packs are as old as the youngest source: gc must not take merged objects for new ones. Of an object that is
    damaged there, a sound copy in another pack is taken. Raises CorruptError when there is none.
    """
    written_at = max(pack.path.stat().st_mtime for pack in sources)
    copied: set[bytes] = set()
    made: list[str] = []
    taken = condemned_names(store.directory)
    writer: PackWriter | None = None
    try:
        for pack, object_id, place in _in_order(sources):
            if object_id in copied or (keep is not None and object_id not in keep):
                continue
            copied.add(object_id)
            if writer is None:
                writer = PackWriter(store.directory)
            try:
                _copy(writer, pack, object_id, place)
            except CorruptError:
                if not _copy_another(store, writer, pack, object_id):
                    raise
            if writer.size_bytes >= PACK_MAX_BYTES:
                made += _finished(writer, written_at, taken)
                writer = None
        if writer is not None:
            made += _finished(writer, written_at, taken)
    finally:
        if writer is not None:
            writer.abandon()
    return made


@contextmanager
def repacking(store: ObjectStore) -> Iterator[bool]:
    """The lock of those who change packs; gives whether it is ours, without waiting."""
    descriptor = os.open(_lock(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _lock(store: ObjectStore) -> Path:
    return store.lock.with_name("gc")


def _in_order(sources: Sequence[PackReader]) -> Iterator[tuple[PackReader, bytes, Place]]:
    """Objects in the order they lie in, so that a disk reads ahead."""
    for pack in sources:
        for object_id, place in sorted(pack.places().items(), key=lambda item: item[1]):
            yield pack, object_id, place


def _copy(writer: PackWriter, pack: PackReader, object_id: bytes, place: Place) -> None:
    if place[1] < STREAM_MIN_BYTES:
        writer.append_record(object_id, pack.record(object_id, place))
    else:
        writer.append_record_pieces(object_id, place[1], pack.record_pieces(pack.header(object_id, place[0])))


def _copy_another(store: ObjectStore, writer: PackWriter, damaged: PackReader, object_id: bytes) -> bool:
    """Copy the record of another pack; whether there was a sound one."""
    for pack in (*store.packs(), *store.condemned()):
        if pack is not damaged and (place := pack.find(object_id)):
            with suppress(CorruptError):
                _copy(writer, pack, object_id, place)
                return True
    return False


def _finished(writer: PackWriter, written_at: float, taken: Container[str]) -> list[str]:
    name = writer.finish(written_at, taken)
    return [name] if name else []
