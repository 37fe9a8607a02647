"""Files that are stored by processes of their own: once each, together or not at all, whoever dies."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from koguma.images import hashing, storing, storing_processes
from koguma.images.errors import StorageError, TreeError
from koguma.images.hashing import FileHasher
from koguma.images.objects import ObjectStore, ObjectWriter
from koguma.images.packfiles import TEMPORARY_PREFIX

FILES = 300


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them from the first file on, on a machine with any number of processors."""
    monkeypatch.setattr(hashing, "_PROCESSES_MIN_BYTES", 0)
    monkeypatch.setattr(hashing, "processes_worth_it", lambda: 2)
    monkeypatch.setattr(storing_processes, "processors", lambda: 2)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    (tmp_path / "packs").mkdir()
    return ObjectStore(tmp_path / "packs", tmp_path / "writers")


@pytest.fixture
def tree(tmp_path: Path) -> list[tuple[bytes, int, bytes]]:
    """Path, size and digest of files, every third of which is another's equal, and one that is read in pieces."""
    chance = random.Random(7)
    contents = [chance.randbytes(chance.randrange(200)) for _ in range(FILES)]
    contents += contents[::3]
    contents.append(bytes(9 << 20))
    found = []
    for number, content in enumerate(contents):
        path = tmp_path / f"file{number}"
        path.write_bytes(content)
        found.append((os.fsencode(path), len(content), sha256(content).digest()))
    return found


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int, bytes]]:
    """Files each of a size of its own, every other one of which, and so all of one process, takes long."""
    store_files = storing_processes.store_files

    def slowly(writer: ObjectWriter, work: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        time.sleep(0.05 if any(path.endswith(b"slow") for path, _ in work) else 0)
        return store_files(writer, work)

    monkeypatch.setattr(storing_processes, "store_files", slowly)
    found = []
    for number in range(40):
        content = bytes([number]) * (storing._BATCH_BYTES + number)
        path = tmp_path / f"file{number}-{'quick' if number % 2 else 'slow'}"
        path.write_bytes(content)
        found.append((os.fsencode(path), len(content), sha256(content).digest()))
    return found


def store_all(hasher: FileHasher, tree: list[tuple[bytes, int, bytes]]) -> dict[bytes, tuple[bytes, int]]:
    told: dict[bytes, tuple[bytes, int]] = {}
    for path, size, _ in tree:
        hasher.add(path, size, lambda digest, size, path=path: told.__setitem__(path, (digest, size)))
    hasher.finish()
    return told


def temporary(store: ObjectStore) -> list[Path]:
    return [path for path in store.directory.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]


def test_every_file_is_told_of_and_every_content_is_stored_once(
    store: ObjectStore, tree: list[tuple[bytes, int, bytes]]
) -> None:
    read: list[int] = []
    with store.writing() as writer, FileHasher(writer, read.append) as hasher:
        told = store_all(hasher, tree)
        assert not store.packs(), "nothing is visible before the writer has finished"
    assert told == {path: (digest, size) for path, size, digest in tree}
    assert sum(read) == sum(size for _, size, _ in tree)
    ids = Counter(found for pack in store.packs() for found in pack.ids())
    assert set(ids) == {digest for _, _, digest in tree}
    assert set(ids.values()) == {1}
    assert writer.objects == len(ids)
    assert len(store.packs()) == 2
    assert not multiprocessing.active_children()


def test_what_is_stored_already_is_not_stored_again(store: ObjectStore, tree: list[tuple[bytes, int, bytes]]) -> None:
    for _ in range(2):
        with store.writing() as writer, FileHasher(writer) as hasher:
            store_all(hasher, tree)
    assert writer.objects == 0
    assert len(store.packs()) == 2


def test_who_is_done_takes_over_from_who_is_slow(store: ObjectStore, slow: list[tuple[bytes, int, bytes]]) -> None:
    with store.writing() as writer, FileHasher(writer) as hasher:
        told = store_all(hasher, slow)
    assert told == {path: (digest, size) for path, size, digest in slow}
    counts = sorted(len(pack) for pack in store.packs())
    assert sum(counts) == len(slow)
    assert counts[0] < len(slow) // 3


def test_what_may_be_equal_stays_with_the_process_that_has_the_other(
    store: ObjectStore, slow: list[tuple[bytes, int, bytes]]
) -> None:
    """Twins of all files come at the end: none is stored a second time."""
    with store.writing() as writer, FileHasher(writer) as hasher:
        store_all(hasher, [*slow, *slow])
    ids = Counter(found for pack in store.packs() for found in pack.ids())
    assert set(ids.values()) == {1}
    assert sorted(len(pack) for pack in store.packs()) == [len(slow) // 2] * 2


def test_an_error_of_a_process_is_raised_and_nothing_is_left(
    store: ObjectStore, tree: list[tuple[bytes, int, bytes]]
) -> None:
    Path(os.fsdecode(tree[200][0])).unlink()
    with (
        pytest.raises(TreeError, match="must stay readable during the commit"),
        store.writing() as writer,
        FileHasher(writer) as hasher,
    ):
        store_all(hasher, tree)
    assert not store.packs()
    assert not temporary(store)
    assert not multiprocessing.active_children()


def test_an_error_of_a_process_that_has_ended_is_not_lost_when_more_is_to_be_sent(
    store: ObjectStore, tree: list[tuple[bytes, int, bytes]]
) -> None:
    for path, _, _ in tree[:64]:
        Path(os.fsdecode(path)).unlink()

    def commit() -> None:
        with store.writing() as writer:
            helper = storing_processes._Helper(writer, [])
            helper.send([(path, size) for path, size, _ in tree[:64]])
            helper.process.join()
            helper.send([])

    with pytest.raises(TreeError, match="must stay readable during the commit"):
        commit()


def test_a_process_that_is_killed_ends_the_commit_with_nothing_stored(
    store: ObjectStore, tree: list[tuple[bytes, int, bytes]]
) -> None:
    def commit() -> None:
        with store.writing() as writer, FileHasher(writer) as hasher:
            for path, size, _ in tree[:100]:
                hasher.add(path, size, lambda *_: None)
            child = multiprocessing.active_children()[0]
            assert child.pid
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            hasher.finish()

    with pytest.raises(StorageError, match="must live until the commit ends, it ended with -9"):
        commit()
    assert not store.packs()
    assert not multiprocessing.active_children()
    with store.writing() as writer, FileHasher(writer) as hasher:
        store_all(hasher, tree)
    assert not temporary(store), "the next writer clears away what the killed one left"


def test_processes_end_when_their_parent_is_killed(store: ObjectStore, tree: list[tuple[bytes, int, bytes]]) -> None:
    readable, writable = os.pipe()
    parent = os.fork()
    if parent == 0:
        with store.writing() as writer, FileHasher(writer) as hasher:
            for path, size, _ in tree:
                hasher.add(path, size, lambda *_: None)
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writable)
    os.waitpid(parent, 0)
    # Every process has inherited the writing end: the pipe ends when the last of them has.
    assert os.read(readable, 1) == b""
    os.close(readable)
    assert not store.packs()
    assert not temporary(store)
