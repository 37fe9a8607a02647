"""Packs that are arriving. Owns `incoming/` of a repository.

A part file is a pack without an index. Its writer holds a lock on the file itself; when the writer dies, however it
dies, whoever comes next keeps the contents of files that are whole: that is what makes every transfer resumable. Trees
and commits of an interrupted transfer are not kept: whoever finds a tree in the store counts on all that lies below it.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from koguma.images.commits import decode_commit
from koguma.images.condemned import condemned_names
from koguma.images.errors import CorruptError
from koguma.images.files import storage_errors, write_all
from koguma.images.objects import BLOB, COMMIT, TREE, part_bytes_max
from koguma.images.packfiles import adopt_pack, pack_name
from koguma.images.packindex import VERSION, encode_index
from koguma.images.packs import PACK_HEADER, PACK_MAGIC, RECORD, filler_record
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.limits import RECORDS_MAX
from koguma.images.transfer.records import LARGE_BYTES, Check, Header, parse_header, verified
from koguma.images.trees import DIRECTORY, FILE, decode

if TYPE_CHECKING:
    from koguma.images.repository import Repository

FOLDER = "incoming"
_PREFIX = "part-"
_BUFFER_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_IN_FLIGHT_MAX = 6

Places = dict[bytes, tuple[int, int]]
Batch = list[tuple[Header, int]]
"""Records and where each begins."""
PACK_START = PACK_HEADER.pack(PACK_MAGIC, VERSION, 0)


class PartFile:
    """A pack that grows, record by verified record, until `publish` gives it an index and a name.

    Closed without `publish`, it stays for `salvage`.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._path, self._fd = _create(repository)
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

    def read(self, object_id: bytes, kind: int) -> bytes | None:
        """A tree or commit that arrived already, if it did. Raises CorruptError when it is larger than any."""
        place = self.places.get(object_id)
        if place is None:
            return None
        self.flush()
        offset, stored = place
        header = parse_header(os.pread(self._fd, RECORD.size, offset), "a part file")
        bytes_max = part_bytes_max(kind)
        if max(header.size, stored) > bytes_max:
            raise CorruptError(
                f"a tree or commit has at most {bytes_max} bytes, got {header.size} ({object_id.hex()}, a part file)"
            )
        payload = os.pread(self._fd, stored, offset + RECORD.size)
        return bytes(verified(header, payload, "a part file", whole=True))

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
        self.path, self._fd = _create(repository)
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
        places, parts, end = _scan(descriptor, place, strict=True)
        _require_closed(repository, descriptor, parts, places, place)
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


def _require_closed(repository: Repository, descriptor: int, parts: Batch, places: Places, place: str) -> None:
    """What trees and commits refer to is here; what they name as a tree or commit is none of the larger files."""
    store = repository.objects
    for header, at in parts:
        content = verified(header, os.pread(descriptor, header.stored, at + RECORD.size), place, whole=True)
        for below, kind in _referred(header, bytes(content), repository).items():
            if below not in places and not store.contains(below):
                raise HostileRemoteError(
                    f"a pack must come after what it refers to, object {below.hex()} is not here "
                    f"(wanted by {header.id.hex()}, {place})"
                )
            if kind == BLOB:
                continue
            size = _header(descriptor, places[below][0], place).size if below in places else store.describe(below).size
            if size > part_bytes_max(kind):
                raise HostileRemoteError(
                    f"a tree or commit has at most {part_bytes_max(kind)} bytes, object {below.hex()} has {size} "
                    f"(wanted by {header.id.hex()}, {place})"
                )


def _referred(header: Header, content: bytes, repository: Repository) -> dict[bytes, int]:
    """What a tree or commit refers to, each as what."""
    try:
        if header.kind == COMMIT:
            commit = decode_commit(content, header.id.hex())
            parents = () if commit.id in repository.shallow else commit.parents
            return {bytes.fromhex(item): COMMIT for item in parents} | {bytes.fromhex(commit.tree): TREE}
        entries = decode(content)
        files = {entry.digest: BLOB for entry in entries if entry.kind == FILE and entry.size}
        return files | {entry.digest: TREE for entry in entries if entry.kind == DIRECTORY}
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
        places, parts, end = _scan(descriptor, str(path))
    except HostileRemoteError:
        places, parts, end = {}, [], 0  # an upload that broke the rules and died before it was refused
    for header, _ in parts:
        del places[header.id]
    if not places:
        path.unlink(missing_ok=True)
        return 0
    os.ftruncate(descriptor, end)
    os.fsync(descriptor)
    publish_pack(repository, path, places, end)
    return len(places)


def _scan(descriptor: int, place: str, *, strict: bool = False) -> tuple[Places, Batch, int]:
    """Where the whole, verified records of a file are, the trees and commits among them, and where the last of all
    ends; `strict`: which must be its end.
    """
    size = os.fstat(descriptor).st_size
    start = os.pread(descriptor, len(PACK_START), 0)
    if start != PACK_START:
        raise HostileRemoteError(f"a pack must start with {PACK_MAGIC!r} version {VERSION}, got {start!r} ({place})")
    places: Places = {}
    parts: Batch = []
    end = len(PACK_START)
    with closing(_verified_batches(descriptor, size, place)) as batches:
        for header, at in chain.from_iterable(batches):
            if header.id in places or len(places) >= RECORDS_MAX:
                raise HostileRemoteError(
                    f"a pack has at most {RECORDS_MAX} objects and each once, {header.id.hex()} is one more ({place})"
                )
            places[header.id] = (at, header.stored)
            if header.kind != BLOB:
                parts.append((header, at))
            end = at + RECORD.size + header.stored
    if strict and end != size:
        raise HostileRemoteError(f"a pack must consist of whole records, it breaks off at {end} ({place})")
    return places, parts, end


def _verified_batches(descriptor: int, size: int, place: str) -> Generator[Batch]:
    """In order; few of them are in memory, however many records a file has."""
    running: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(thread_name_prefix="verify") as pool:
        for batch in _batches(descriptor, size, place):
            running.append(pool.submit(_verify_batch, descriptor, place, batch))
            if len(running) > _IN_FLIGHT_MAX:
                yield running.popleft().result()
        for future in running:
            yield future.result()


def _batches(descriptor: int, size: int, place: str) -> Iterator[Batch]:
    """Headers and offsets of the whole records of a file, in batches of a few megabytes."""
    at, start = len(PACK_START), len(PACK_START)
    batch: Batch = []
    while size - at >= RECORD.size:
        header = _header(descriptor, at, place)
        if size - at - RECORD.size < header.stored:
            break
        batch.append((header, at))
        at += RECORD.size + header.stored
        if at - start >= _BUFFER_BYTES:
            yield batch
            batch, start = [], at
    if batch:
        yield batch


def _header(descriptor: int, at: int, place: str) -> Header:
    return parse_header(os.pread(descriptor, RECORD.size, at), place)


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


def _create(repository: Path) -> tuple[Path, int]:
    """A new part file and its descriptor, locked: whoever salvages sees that its writer lives."""
    folder = repository / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        path = folder / f"{_PREFIX}{os.urandom(8).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):  # somebody salvages and took it for dead in the instant before it was locked
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return path, descriptor
        os.close(descriptor)


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
