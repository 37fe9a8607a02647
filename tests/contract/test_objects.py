"""What every object backend keeps: run against the fake, a directory, an S3 server and a served repository."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from koguma.contracts.errors import BlobChanged, BlobMissing, ObjectBackendError
from koguma.contracts.objects import FakeObjects, ObjectBackend, ReadableBackend
from koguma.images.repository import Repository
from koguma.images.transfer.directory import DirectoryObjects
from koguma.images.transfer.http import HttpObjects
from koguma.images.transfer.s3 import S3Objects
from tests.unit.images.sites import make_bucket, s3_server, served

PACK = f"packs/pack-{'0' * 32}.pack"
REF = "refs/heads/release%2F1"


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto", reason="needs moto, an S3-compatible server")
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


@pytest.fixture(params=["fake", "directory", "s3"])
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectBackend]:
    if request.param == "fake":
        yield FakeObjects()
    elif request.param == "directory":
        yield DirectoryObjects(tmp_path / "objects")
    else:
        bucket = "".join(char for char in tmp_path.name.lower() if char.isalnum())[-40:]
        make_bucket(request.getfixturevalue("s3_url"), bucket)
        yield S3Objects(f"s3://{bucket}/site/a")


@pytest.fixture(params=["fake", "directory", "s3", "http"])
def readable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReadableBackend]:
    """A backend with one pack of 3,000,000 bytes and one ref."""
    content = bytes(range(250)) * 12_000
    if request.param == "http":
        repository = Repository.init(tmp_path / "repository")
        directory = DirectoryObjects(repository.path)
        _fill(directory, content)
        with served(repository.path) as url:
            backend = HttpObjects(url)
            yield backend
            backend.close()
        return
    writable: ObjectBackend
    if request.param == "fake":
        writable = FakeObjects()
    elif request.param == "directory":
        writable = DirectoryObjects(tmp_path / "objects")
    else:
        make_bucket(request.getfixturevalue("s3_url"), "readable")
        writable = S3Objects("s3://readable")
    _fill(writable, content)
    yield cast("ReadableBackend", writable)


def _fill(backend: ObjectBackend, content: bytes) -> None:
    backend.put(PACK, content)
    backend.put(REF, b"a ref\n")


def test_a_listing_names_the_blobs_of_one_folder_with_their_sizes(readable: ReadableBackend) -> None:
    assert [(blob.name, blob.size_bytes) for blob in readable.list("packs/")] == [(PACK, 3_000_000)]
    assert [blob.name for blob in readable.list("refs/heads/")] == [REF]
    assert list(readable.list("refs/tags/")) == []


def test_a_range_is_exactly_what_was_asked_for(readable: ReadableBackend) -> None:
    assert b"".join(readable.read_range(PACK, 251, 5)) == bytes([1, 2, 3, 4, 5])
    assert b"".join(readable.read_range(PACK, 0, 3_000_000)) == bytes(range(250)) * 12_000
    pieces = list(readable.read_range(PACK, 1_000_000, 1_999_999))
    assert b"".join(pieces) == (bytes(range(250)) * 12_000)[1_000_000:2_999_999]


def test_a_range_past_the_end_is_an_error_and_never_a_short_answer(readable: ReadableBackend) -> None:
    with pytest.raises(ObjectBackendError):
        list(readable.read_range(PACK, 2_999_000, 2_000))
    with pytest.raises(ObjectBackendError):
        list(readable.read_range(PACK, 4_000_000, 10))


def test_a_blob_that_is_not_there_is_named(readable: ReadableBackend) -> None:
    with pytest.raises(BlobMissing, match="shallow"):
        readable.get("shallow", bytes_max=100)
    with pytest.raises(BlobMissing):
        list(readable.read_range(PACK.replace("0", "1"), 0, 1))


def test_a_blob_larger_than_its_reader_wants_is_refused(readable: ReadableBackend) -> None:
    assert readable.get(REF, bytes_max=6).data == b"a ref\n"
    with pytest.raises(ObjectBackendError, match="at most 5 bytes, got 6"):
        readable.get(REF, bytes_max=5)


def test_a_blob_is_replaced_only_while_it_is_what_it_was(writable: ObjectBackend) -> None:
    first = writable.put_if(REF, b"1", None)
    with pytest.raises(BlobChanged):
        writable.put_if(REF, b"2", None)
    second = writable.put_if(REF, b"2", first)
    with pytest.raises(BlobChanged):
        writable.put_if(REF, b"3", first)

    found = writable.get(REF, bytes_max=10)
    assert (found.data, found.version) == (b"2", second)


def test_of_many_who_replace_a_blob_at_once_one_succeeds(writable: ObjectBackend) -> None:
    version = writable.put_if(REF, b"start", None)
    won: list[int] = []

    def attempt(number: int) -> None:
        try:
            writable.put_if(REF, str(number).encode(), version)
            won.append(number)
        except BlobChanged:
            pass

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert writable.get(REF, bytes_max=10).data == str(won[0]).encode()


def test_a_file_can_be_put_and_a_blob_removed_twice(writable: ObjectBackend, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_bytes(b"x" * 20_000_000)
    writable.put(PACK, file)
    assert [blob.size_bytes for blob in writable.list("packs/")] == [20_000_000]

    writable.delete(PACK)
    writable.delete(PACK)
    assert list(writable.list("packs/")) == []


def test_the_fake_fails_when_told() -> None:
    fake = FakeObjects()
    fake.failures.append(ObjectBackendError("told to"))
    with pytest.raises(ObjectBackendError, match="told to"):
        fake.get(REF, bytes_max=1)
    fake.put(REF, b"1")
    assert fake.calls == [f"get {REF}", f"put {REF}"]
