"""Packs that are arriving. Owns `incoming/` of a repository.

A part file is a pack without an index. Its writer holds a lock on the file itself; when the writer dies, however it
dies, whoever comes next keeps the contents of files that are whole: that is what makes every transfer resumable. Trees
and commits of an interrupted transfer are not kept: whoever finds a tree in the store counts on all that lies below it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from koguma.images.commits import decode_commit
from koguma.images.condemned import condemned_names
from koguma.images.errors import CorruptError
from koguma.images.files import storage_errors, write_all
from koguma.images.objects import BLOB, COMMIT
from koguma.images.packfiles import adopt_pack, pack_name
from koguma.images.packindex import VERSION, encode_index
from koguma.images.packs import PACK_HEADER, PACK_MAGIC, RECORD, filler_record
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.records import LARGE_BYTES, Check, Header, parse_header, verified
from koguma.images.trees import DIRECTORY, FILE, decode

if TYPE_CHECKING:
    from koguma.images.repository import Repository

FOLDER = "incoming"
_PREFIX = "part-"
_BUFFER_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024

Places = dict[bytes, tuple[int, int]]
Batch = list[tuple[Header, int]]
"""Records and where each begins."""
PACK_START = PACK_HEADER.pack(PACK_MAGIC, VERSION, 0)


class PartFile:
    """A pack that grows, record by verified record, until `publish` gives it an index and a name.

    Closed without `publish`, it stays for `salvage`.
    """

    def __init__(self, repository: Path) -> None:
        folder = repository / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        self._repository = repository
        self._path = folder / f"{_PREFIX}{os.urandom(8).hex()}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.places: Places = {}
        self._parts: set[bytes] = set()
        """Trees and commits among them."""
        self._pending: list[bytes] = [PACK_START]
        self._pending_bytes = len(PACK_START)
        self.size_bytes = len(PACK_START)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, data: memoryview, records: Sequence[tuple[Header, int]]) -> None:
        """Add verified records that lie in `data` at these places; neighbours are written at once."""
        at = 0
        while at < len(records):
            start = end = records[at][1]
            while at < len(records) and records[at][1] == end:
                header = records[at][0]
                self._note(header, self.size_bytes + end - start)
                end += RECORD.size + header.stored
                at += 1
            self.size_bytes += end - start
            self._write(data[start:end])

    def append_pieces(self, header: Header, pieces: Iterator[bytes], place: str) -> None:
        """Add a large record as it arrives; when it is not what its id says, nothing of it stays."""
        self.flush()
        start = self.size_bytes
        check = Check(header, place)
        try:
            write_all(self._fd, header.raw)
            got = 0
            for piece in pieces:
                check.feed(piece)
                got += len(piece)
                write_all(self._fd, piece)
            check.finish(got)
        except BaseException:
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            raise
        self._note(header, start)
        self.size_bytes = start + RECORD.size + header.stored

    def read(self, object_id: bytes) -> tuple[Header, bytes] | None:
        """A record that arrived already, if it did."""
        place = self.places.get(object_id)
        if place is None:
            return None
        self.flush()
        data = os.pread(self._fd, RECORD.size + place[1], place[0])
        return Header(data[: RECORD.size], *_fields(data[: RECORD.size])), data[RECORD.size :]

    def flush(self) -> None:
        if self._pending:
            data, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
            write_all(self._fd, data)

    def _note(self, header: Header, at: int) -> None:
        self.places[header.id] = (at, header.stored)
        if header.kind != BLOB:
            self._parts.add(header.id)

    def _write(self, data: memoryview) -> None:
        if len(data) < _BUFFER_BYTES // 16:
            self._pending.append(bytes(data))
            self._pending_bytes += len(data)
            if self._pending_bytes >= _BUFFER_BYTES:
                self.flush()
        else:
            self.flush()
            write_all(self._fd, data)

    def sync(self) -> None:
        """Make what arrived durable, before the locks that `publish` needs are taken."""
        if self.places:
            self.flush()
            os.fsync(self._fd)

    def publish(self, whole: Container[bytes]) -> None:
        """Make the pack one of the repository's. The caller holds the `objects` lock.

        Of trees and commits only those that are `whole` are named in its index: all that they refer to is here.
        """
        named = {item: place for item, place in self.places.items() if item not in self._parts or item in whole}
        if named:
            self.sync()
            publish_pack(self._repository, self._path, named, self.size_bytes)
        else:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what arrived for the next run; an empty part goes."""
        if self._fd < 0:
            return
        try:
            if not self.places:
                self._path.unlink(missing_ok=True)
            else:
                with suppress(OSError):  # a full disk: what was written before is salvaged
                    self.flush()
        finally:
            os.close(self._fd)
            self._fd = -1


class UploadFile:
    """A pack that somebody sends, as it arrives and not yet verified; `accept` verifies it."""

    def __init__(self, repository: Path) -> None:
        folder = repository / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / f"{_PREFIX}{os.urandom(8).hex()}"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        write_all(self._fd, data)
        self.size_bytes += len(data)

    def close(self) -> None:
        os.close(self._fd)


def salvage(repository: Path) -> int:
    """Turn what interrupted transfers left into packs; the number of objects saved.

    The caller holds the `objects` lock (shared). Parts that are still written are let alone.
    """
    saved = 0
    folder = repository / FOLDER
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - most repositories have no such folder, this is the cheapest look
    except FileNotFoundError:
        return 0
    for name in names:
        if not name.startswith(_PREFIX):
            continue
        with _own(folder / name) as descriptor:
            if descriptor is not None:
                saved += _salvage_one(repository, folder / name, descriptor)
    return saved


def accept(repository: Repository, path: Path, place: str) -> int:
    """Verify a pack that was sent, wholly, and make it one of the repository's; the number of its objects.

    What its trees and commits refer to must be in it or here. The caller holds the `objects` lock (shared). Raises
    HostileRemoteError, after which the file is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        headers, end = _scan(descriptor, place, strict=True)
        places = {header.id: (at, header.stored) for header, at in headers}
        _require_closed(repository, descriptor, headers, places, place)
        os.fsync(descriptor)
        if places:
            publish_pack(repository.path, path, places, end)
        else:
            path.unlink(missing_ok=True)
    except HostileRemoteError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return len(places)


def _require_closed(repository: Repository, descriptor: int, headers: Batch, places: Places, place: str) -> None:
    for header, at in headers:
        if header.kind == BLOB:
            continue
        content = verified(header, os.pread(descriptor, header.stored, at + RECORD.size), place, whole=True)
        for below in _referred(header, bytes(content), repository):
            if below not in places and not repository.objects.contains(below):
                raise HostileRemoteError(
                    f"a pack must come after what it refers to, object {below.hex()} is not here "
                    f"(wanted by {header.id.hex()}, {place})"
                )


def _referred(header: Header, content: bytes, repository: Repository) -> list[bytes]:
    try:
        if header.kind == COMMIT:
            commit = decode_commit(content, header.id.hex())
            parents = () if commit.id in repository.shallow else commit.parents
            return [bytes.fromhex(item) for item in (commit.tree, *parents)]
        return [
            entry.digest for entry in decode(content) if entry.kind == DIRECTORY or (entry.kind == FILE and entry.size)
        ]
    except CorruptError as error:
        raise HostileRemoteError(f"a pack's trees and commits must be readable: {error}") from None


def publish_pack(repository: Path, path: Path, places: Places, size_bytes: int) -> None:
    """Give a whole, synced pack its index and its name, which is none of a pack that is being removed."""
    with storage_errors("a received pack"):
        taken = condemned_names(repository / "packs")
        index = encode_index(places, size_bytes)
        while pack_name(index) in taken:
            places, size_bytes = _with_filler(path, places, size_bytes)
            index = encode_index(places, size_bytes)
        path.chmod(0o644)
        os.utime(path)  # gc's grace period begins when a transfer ends, not when it began
        adopt_pack(repository / "packs", path, index)


def _with_filler(path: Path, places: Places, size_bytes: int) -> tuple[Places, int]:
    filler_id, record = filler_record()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        write_all(descriptor, record)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return places | {filler_id: (size_bytes, len(record) - RECORD.size)}, size_bytes + len(record)


def _salvage_one(repository: Path, path: Path, descriptor: int) -> int:
    try:
        headers, end = _scan(descriptor, str(path))
    except HostileRemoteError:
        headers, end = [], 0  # an upload that broke the rules and died before it was refused
    places = {header.id: (at, header.stored) for header, at in headers if header.kind == BLOB}
    if not places:
        path.unlink(missing_ok=True)
        return 0
    os.ftruncate(descriptor, end)
    os.fsync(descriptor)
    publish_pack(repository, path, places, end)
    return len(places)


def _scan(descriptor: int, place: str, *, strict: bool = False) -> tuple[Batch, int]:
    """The whole, verified records of a file and where the last of them ends; `strict`: which must be its end."""
    size = os.fstat(descriptor).st_size
    start = os.pread(descriptor, len(PACK_START), 0)
    if start != PACK_START:
        raise HostileRemoteError(f"a pack must start with {PACK_MAGIC!r} version {VERSION}, got {start!r} ({place})")
    found: Batch = []
    with ThreadPoolExecutor(thread_name_prefix="verify") as pool:
        for batch in pool.map(partial(_verify_batch, descriptor, place), _batches(descriptor, size, place)):
            found += batch
    end = found[-1][1] + RECORD.size + found[-1][0].stored if found else len(PACK_START)
    if strict and end != size:
        raise HostileRemoteError(f"a pack must consist of whole records, it breaks off at {end} ({place})")
    return found, end


def _batches(descriptor: int, size: int, place: str) -> Iterator[Batch]:
    """Headers and offsets of the whole records of a file, in batches of a few megabytes."""
    at, start = len(PACK_START), len(PACK_START)
    batch: Batch = []
    while size - at >= RECORD.size:
        header = parse_header(os.pread(descriptor, RECORD.size, at), place)
        if size - at - RECORD.size < header.stored:
            break
        batch.append((header, at))
        at += RECORD.size + header.stored
        if at - start >= _BUFFER_BYTES:
            yield batch
            batch, start = [], at
    if batch:
        yield batch


def _verify_batch(descriptor: int, place: str, batch: Batch) -> Batch:
    for header, at in batch:
        payload_at = at + RECORD.size
        if header.stored < LARGE_BYTES:
            verified(header, os.pread(descriptor, header.stored, payload_at), place)
            continue
        check = Check(header, place)
        for position in range(0, header.stored, _PIECE_BYTES):
            length = min(_PIECE_BYTES, header.stored - position)
            check.feed(os.pread(descriptor, length, payload_at + position))
        check.finish(header.stored)
    return batch


@contextmanager
def _own(path: Path) -> Iterator[int | None]:
    """The file, locked; None when its writer is alive or somebody else has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Whoever had the lock before may have published or removed the file meanwhile.
        yield descriptor if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino else None
    finally:
        os.close(descriptor)


def _fields(raw: bytes) -> tuple[int, int, int, int, int, bytes]:
    crc, kind, codec, _, stored, size, object_id = RECORD.unpack(raw)
    return crc, kind, codec, stored, size, object_id
