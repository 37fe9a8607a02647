"""The object store: content-addressed, deduplicated, compressed objects over all packs of a repository.

An object's id is the SHA-256 of its content, for a file's content the same digest OCI uses. Reading verifies the
record's checksum; `fsck` verifies the digest. Writing goes through an ObjectWriter: one per commit, one fsync per pack.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, cast

import zstandard

from koguma.images.errors import CorruptError, ObjectMissingError, RevisionError
from koguma.images.files import locked, storage_errors, write_all
from koguma.images.packs import (
    INDEX_SUFFIX,
    RAW,
    ZSTD,
    PackReader,
    PackWriter,
    Stored,
    record_header,
    remove_leftovers,
)

BLOB, TREE, COMMIT = (ord(letter) for letter in "btc")
"""What an object was stored as. It orders packs and narrows searches; identity is the content alone."""

ZSTD_LEVEL = 3
ZSTD_LEVEL_OBJECT_FILE = 1
"""For ELF files that are to be linked, in a root those are kernel modules."""
COMPRESS_MIN_BYTES = 64
"""Shorter objects gain nothing: a zstd frame costs some ten bytes."""
STREAM_MIN_BYTES = 32 * 1024 * 1024
"""Larger files are hashed and compressed piece by piece, so that memory does not grow with the largest file."""
PACK_MAX_BYTES = 1024 * 1024 * 1024
"""A writer goes on in a new pack after this, so that gc rewrites a part and not the whole."""

_CHUNK_BYTES = 1024 * 1024
_local = threading.local()


class Prepared(NamedTuple):
    """An object hashed and compressed, ready to be appended to a pack."""

    id: bytes
    header: bytes
    payload: bytes


def prepare(kind: int, content: bytes) -> Prepared:
    """Hash and compress; releases the interpreter's lock for anything but tiny objects, so threads run at once."""
    return prepare_hashed(kind, content, sha256(content).digest())


def prepare_hashed(kind: int, content: bytes, object_id: bytes) -> Prepared:
    codec, payload = RAW, content
    if len(content) >= COMPRESS_MIN_BYTES:
        compressed = _compressor(_level(content)).compress(content)
        if len(compressed) < len(content):
            codec, payload = ZSTD, compressed
    return Prepared(object_id, record_header(object_id, kind, codec, len(content), payload), payload)


class ObjectStore:
    """Reads objects of one repository; safe to use from several threads and beside writers."""

    def __init__(self, directory: Path, lock: Path) -> None:
        self.directory = directory
        self._lock = lock
        self._readers: dict[str, PackReader] = {}
        self._refreshing = threading.Lock()
        self.refresh()

    def refresh(self) -> bool:
        """Look for packs that appeared or went away; whether there was a change."""
        with self._refreshing:
            names = {name for name in os.listdir(self.directory) if name.endswith(INDEX_SUFFIX)}  # noqa: PTH208 - thousands of packs may lie here; Path objects would double the time of `log`
            if names == self._readers.keys():
                return False
            readers = {name: self._readers.get(name) or PackReader(self.directory / name) for name in names}
            self._readers = dict(sorted(readers.items(), key=lambda item: len(item[1]), reverse=True))
            return True

    def packs(self) -> list[PackReader]:
        return list(self._readers.values())

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers = {}

    def contains(self, object_id: bytes) -> bool:
        """Whether an object is stored, as far as the packs known now tell; `refresh` looks for newer ones."""
        return any(reader.find(object_id) for reader in self._readers.values())

    def describe(self, object_id: bytes) -> Stored:
        """Kind and sizes of an object. Raises ObjectMissingError."""
        reader, (offset, _) = self._find(object_id)
        return reader.header(object_id, offset)

    def read(self, object_id: bytes) -> bytes:
        """The whole content of an object. Raises ObjectMissingError or CorruptError."""
        reader, place = self._find(object_id)
        return self._content(*reader.payload(object_id, place))

    def read_verified(self, object_id: bytes) -> bytes:
        """As `read`, but the digest is verified too: for the objects that everything else hangs on."""
        content = self.read(object_id)
        if sha256(content).digest() != object_id:
            raise CorruptError(f"an object must match its id, got other content ({object_id.hex()})")
        return content

    def chunks(self, object_id: bytes) -> Iterator[bytes]:
        """The content of an object in pieces, for contents too large to hold; checked when the last piece is read."""
        reader, _ = self._find(object_id)
        yield from self.chunks_in(reader, object_id)

    def chunks_in(self, reader: PackReader, object_id: bytes) -> Iterator[bytes]:
        """As `chunks`, of the copy in one certain pack."""
        place = reader.find(object_id)
        if place is None:
            raise ObjectMissingError(f"object {object_id.hex()} is not in its pack ({reader.path})")
        found = reader.header(object_id, place[0])
        if found.size < STREAM_MIN_BYTES and found.stored < STREAM_MIN_BYTES:
            yield self._content(*reader.payload(object_id, place))
            return
        pieces = reader.payload_chunks(found)
        size = 0
        for piece in pieces if found.codec == RAW else self._decompress_pieces(found, pieces):
            size += len(piece)
            yield piece
        if size != found.size:
            raise CorruptError(
                f"an object must have the {found.size} bytes its record says, got {size} ({object_id.hex()})"
            )

    def ids_with_prefix(self, text: str) -> set[bytes]:
        """Ids that start with these hex digits (at least two)."""
        if len(text) < 2:
            raise RevisionError(f"an abbreviated id needs at least two digits, got {text!r}")
        even = text[: len(text) // 2 * 2]
        odd = int(text[-1], 16) if len(text) % 2 else None
        return {found for reader in self.packs() for found in reader.ids_with_prefix(bytes.fromhex(even), odd)}

    @contextmanager
    def writing(self) -> Iterator[ObjectWriter]:
        """A writer whose objects become visible together, when the block ends without an exception.

        Many writers may work at once; gc waits for all of them. The first one clears away what dead ones left.
        """
        with storage_errors("a commit"), self._lock_for_writing():
            self.refresh()
            with ObjectWriter(self) as writer:
                yield writer
            self.refresh()

    @contextmanager
    def _lock_for_writing(self) -> Iterator[None]:
        self._clear_leftovers()
        with locked(self._lock, shared=True, what="the object store"):
            yield

    def _clear_leftovers(self) -> None:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_leftovers(self.directory)
        except BlockingIOError:
            return  # somebody is writing; whoever writes alone next clears up
        finally:
            os.close(descriptor)

    def _find(self, object_id: bytes) -> tuple[PackReader, tuple[int, int]]:
        for _ in range(2):
            for reader in self._readers.values():
                if place := reader.find(object_id):
                    return reader, place
            if not self.refresh():
                break
        raise ObjectMissingError(f"object {object_id.hex()} is in no pack ({self.directory})")

    def _content(self, found: Stored, payload: bytes) -> bytes:
        try:
            content: bytes = (
                payload if found.codec == RAW else _decompressor().decompress(payload, max_output_size=found.size)
            )
        except zstandard.ZstdError as error:
            raise CorruptError(f"object {found.id.hex()} cannot be decompressed: {error}") from None
        if len(content) != found.size:
            raise CorruptError(f"object {found.id.hex()} must have {found.size} bytes, got {len(content)}")
        return content

    def _decompress_pieces(self, found: Stored, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Content in pieces of bounded size, however well it was compressed."""
        with zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", _Pieces(pieces))) as stream:
            try:
                while content := stream.read(_CHUNK_BYTES):
                    yield content
            except zstandard.ZstdError as error:
                raise CorruptError(f"object {found.id.hex()} cannot be decompressed: {error}") from None


class _Pieces:
    """An iterator of bytes as the file that the decompressor wants to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        piece, self._rest = piece[:size], piece[size:]
        return piece


class ObjectWriter:
    """Adds objects to new packs. `add*` may be called from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._seen: set[bytes] = set()
        self._pack: PackWriter | None = None
        self._full: list[PackWriter] = []
        self.objects = 0
        self.stored_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        packs = [*self._full, self._pack] if self._pack else self._full
        for pack in packs:
            if kind is None:
                pack.finish()
            else:
                pack.abandon()

    def claim(self, object_id: bytes) -> bool:
        """Whether the caller is the one to store this object: it is not stored yet and nobody else claimed it."""
        if self.has(object_id):
            return False
        with self._guard:
            before = len(self._seen)
            self._seen.add(object_id)
            return len(self._seen) > before

    def has(self, object_id: bytes) -> bool:
        """Whether an object is stored, or is about to be by this writer."""
        return object_id in self._seen or self._store.contains(object_id)

    def add(self, kind: int, content: bytes) -> bytes:
        """Store content (at most STREAM_MIN_BYTES of it, by custom) and return its id."""
        object_id = sha256(content).digest()
        if self.claim(object_id):
            self.append([prepare_hashed(kind, content, object_id)])
        return object_id

    def append(self, batch: Iterable[Prepared]) -> None:
        """Append objects that were claimed before. Batches keep the lock rare."""
        with self._guard:
            for item in batch:
                self._room().append(item.id, item.header, item.payload)
                self._count(len(item.payload))

    def add_stream(self, pieces: Iterable[bytes]) -> tuple[bytes, int]:
        """Store a large content that arrives in pieces; returns its id and size. Memory stays bounded."""
        digest, size = sha256(), 0
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=False).compressobj()
        with _spool(self._store.directory) as spool:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                _write(spool, compressor.compress(piece))
            _write(spool, compressor.flush())
            object_id = digest.digest()
            if self.claim(object_id):
                with self._guard:
                    self._room().append_file(object_id, BLOB, ZSTD, size, spool)
                    self._count(os.fstat(spool).st_size)
        return object_id, size

    def _room(self) -> PackWriter:
        if self._pack is not None and self._pack.size_bytes >= PACK_MAX_BYTES:
            self._full.append(self._pack)
            self._pack = None
        if self._pack is None:
            self._pack = PackWriter(self._store.directory)
        return self._pack

    def _count(self, stored: int) -> None:
        self.objects += 1
        self.stored_bytes += stored


def _write(descriptor: int, data: bytes) -> None:
    if data:
        write_all(descriptor, data)


@contextmanager
def _spool(directory: Path) -> Iterator[int]:
    """A file without a name on the store's own file system: gone with the process, whatever happens to it."""
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _level(content: bytes) -> int:
    """Kernel modules are a third of a root, and a higher level gains 3 % of them for half as much time again."""
    return ZSTD_LEVEL_OBJECT_FILE if content[:4] == b"\x7fELF" and content[16:18] == b"\1\0" else ZSTD_LEVEL


def _compressor(level: int) -> Any:
    compressors = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level, write_content_size=False)
    return compressors[level]


def _decompressor() -> Any:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
