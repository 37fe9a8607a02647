from __future__ import annotations

import os
from collections import deque
from hashlib import sha256
from pathlib import Path

import pytest

from koguma.images import packs
from koguma.images.condemned import Stage, write_condemned
from koguma.images.errors import CorruptError, ImageError, ObjectMissingError
from koguma.images.objects import BLOB, STREAM_MIN_BYTES, ObjectStore
from koguma.images.packcheck import check_packs
from koguma.images.packs import PackReader
from koguma.images.repack import SMALL_PACKS_MAX, merge_count

CONTENTS = [b"", b"short", b"compressible " * 100, os.urandom(300), bytes(100_000)]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    (tmp_path / "packs").mkdir()
    return ObjectStore(tmp_path / "packs", tmp_path / "lock")


def _fill(store: ObjectStore) -> list[bytes]:
    with store.writing() as writer:
        return [writer.add(BLOB, content) for content in CONTENTS]


def test_objects_are_found_by_the_digest_of_their_content(store: ObjectStore) -> None:
    ids = _fill(store)

    assert ids == [sha256(content).digest() for content in CONTENTS]
    assert [store.read(item) for item in ids] == CONTENTS


def test_another_process_sees_objects_written_after_it_opened_the_store(store: ObjectStore) -> None:
    other = ObjectStore(store.directory, store.directory.parent / "lock")
    ids = _fill(store)

    assert other.read(ids[1]) == b"short"


def test_equal_contents_are_stored_once_over_all_packs(store: ObjectStore) -> None:
    _fill(store)
    _fill(store)

    assert len(store.packs()) == 1
    assert len(store.packs()[0]) == len(CONTENTS)


def test_an_object_nobody_stored_is_reported_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissingError, match="is in no pack"):
        store.read(bytes(32))


def test_writing_that_fails_leaves_nothing_behind(store: ObjectStore) -> None:
    def fail() -> None:
        with store.writing() as writer:
            writer.add(BLOB, b"lost")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert list(store.directory.iterdir()) == []


def test_leftovers_of_dead_writers_are_cleared_by_the_next_one(store: ObjectStore) -> None:
    (store.directory / ".new-1-ab").write_bytes(b"half a pack")
    (store.directory / "pack-1234.idx").write_bytes(b"an index whose pack was never renamed")

    _fill(store)

    assert sorted(path.suffix for path in store.directory.iterdir()) == [".idx", ".pack"]


def test_a_living_writer_keeps_its_unfinished_pack_while_others_clear_up(store: ObjectStore) -> None:
    other = ObjectStore(store.directory, store.lock)
    with store.writing() as writer:
        first = writer.add(BLOB, b"written before the other writer came")
        with other.writing() as another:
            second = another.add(BLOB, b"written by the other")

    assert store.contains(first)
    assert store.contains(second)


def test_a_pack_that_lost_its_index_is_kept_for_its_repair(store: ObjectStore) -> None:
    (store.directory / "pack-1234.pack").write_bytes(b"a pack whose index was lost")

    _fill(store)

    assert (store.directory / "pack-1234.pack").exists()


def test_a_pack_never_gets_the_name_of_one_that_is_being_removed(store: ObjectStore) -> None:
    ids = _fill(store)
    (old,) = store.packs()
    write_condemned(store.directory, Stage.WAITING, [old.name])

    assert _fill(store) == ids
    store.refresh()

    assert [pack.name for pack in store.packs()] != [old.name]
    assert all(store.contains(item) for item in ids)


def test_condemned_packs_can_be_read_until_they_are_being_removed(store: ObjectStore) -> None:
    ids = _fill(store)
    names = [pack.name for pack in store.packs()]

    write_condemned(store.directory, Stage.WAITING, names)
    store.refresh()
    assert store.read(ids[1]) == b"short"
    assert not store.contains(ids[1])

    write_condemned(store.directory, Stage.REMOVING, names)
    assert not ObjectStore(store.directory, store.lock).readable(ids[1])


def test_many_small_packs_are_merged_and_nothing_is_lost(store: ObjectStore) -> None:
    reader = ObjectStore(store.directory, store.lock)
    ids = []
    for number in range(200):
        with store.writing() as writer:
            ids.append(writer.add(BLOB, b"content %d " % number * 30))
        if number == 5:
            reader.refresh()

    assert len(store.packs()) <= SMALL_PACKS_MAX + 1
    assert [store.read(item) for item in ids] == [b"content %d " % number * 30 for number in range(200)]
    assert reader.read(ids[3]).startswith(b"content 3"), "a reader that knew the old packs finds the new ones"


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([], 0), ([5], 0), ([1, 1], 2), ([1, 2], 0), ([1, 1, 1, 100], 3), ([3, 5, 20], 2), ([10, 60, 60], 0)],
)
def test_packs_are_merged_until_each_has_twice_the_bytes_of_all_smaller_ones(sizes: list[int], count: int) -> None:
    assert merge_count(sizes, 100) == count


def test_a_large_object_is_stored_and_read_in_pieces(store: ObjectStore) -> None:
    piece = os.urandom(1024) * 1024
    count = STREAM_MIN_BYTES // len(piece) + 1
    with store.writing() as writer:
        object_id, size = writer.add_stream(piece for _ in range(count))

    digest = sha256()
    pieces = list(store.chunks(object_id))
    for part in pieces:
        digest.update(part)
    assert digest.digest() == object_id
    assert size == count * len(piece)
    assert len(pieces) > 1


def test_every_flipped_byte_of_a_pack_and_its_index_is_noticed(store: ObjectStore) -> None:
    with store.writing() as writer:
        ids = [writer.add(BLOB, content) for content in (b"one", b"two " * 40)]
    store.close()
    (index,) = store.directory.glob("*.idx")
    (pack,) = store.directory.glob("*.pack")

    for path in (index, pack):
        original = path.read_bytes()
        for at in range(len(original)):
            damaged = bytearray(original)
            damaged[at] ^= 1 << at % 8
            path.write_bytes(damaged)
            with pytest.raises(ImageError):
                _check(store, index, ids)
        path.write_bytes(original)
    _check(store, index, ids)


def _check(store: ObjectStore, index: Path, ids: list[bytes]) -> None:
    reader = PackReader(index)
    try:
        reader.verify_index()
        for object_id in ids:
            content = b"".join(store.chunks_in(reader, object_id))
            if sha256(content).digest() != object_id:
                raise CorruptError("content differs")
    finally:
        reader.close()


def test_ids_are_found_by_even_and_odd_numbers_of_digits(store: ObjectStore) -> None:
    (wanted, *_) = _fill(store)

    assert wanted in store.ids_with_prefix(wanted.hex()[:6])
    assert wanted in store.ids_with_prefix(wanted.hex()[:7])
    assert store.ids_with_prefix("0" * 64) == set()


def test_many_packs_need_few_descriptors(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr("koguma.images.repack.SMALL_PACKS_MAX", 200)
    monkeypatch.setattr(packs, "_kept_open", deque(maxlen=3))
    contents = [b"%d" % number * 100 for number in range(12)]
    for content in contents:
        with store.writing() as writer:
            writer.add(BLOB, content)
    before = descriptors()

    many = ObjectStore(store.directory, store.lock)
    assert descriptors() == before, "an index is read, not held"
    assert [many.read(sha256(content).digest()) for content in contents] == contents
    assert descriptors() == before + 3
    assert check_packs(many.packs()).problems == []
    many.close()
    assert descriptors() == before


def test_whoever_holds_a_pack_reads_it_to_its_end(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_kept_open", deque(maxlen=1))
    for content in CONTENTS[1:3]:
        with store.writing() as writer:
            writer.add(BLOB, content)
    reader, other = store.packs()
    held = reader.opened()
    reader.path.unlink()
    other.read_at(0, 1)

    assert reader.read_at(0, 8) == packs.PACK_MAGIC
    del held
    with pytest.raises(FileNotFoundError):
        reader.read_at(0, 8)
