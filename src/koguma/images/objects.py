"""The object store: content-addressed, deduplicated, compressed objects over all packs of a repository.

An object's id is the SHA-256 of its content, for a file's content the same digest OCI uses. Reading verifies the
record's checksum; `fsck` verifies the digest. Writing goes through an ObjectWriter: one per commit, one fsync per pack.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from koguma.images.codec import Prepared, content_of, content_pieces, piecewise_compressor, prepare, prepare_hashed
from koguma.images.condemned import Stage, condemned_names, read_condemned
from koguma.images.errors import CorruptError, ObjectMissingError, RevisionError
from koguma.images.files import storage_errors, write_all
from koguma.images.packfiles import INDEX_SUFFIX, remove_leftovers, visible_packs
from koguma.images.packindex import Place
from koguma.images.packs import ZSTD, OpenPack, PackReader, PackWriter, Stored
from koguma.images.writerlock import writing

T = TypeVar("T")

__all__ = [
    "BLOB",
    "COMMIT",
    "COMMIT_BYTES_MAX",
    "PACK_MAX_BYTES",
    "STREAM_MIN_BYTES",
    "TREE",
    "TREE_BYTES_MAX",
    "ObjectStore",
    "ObjectWriter",
    "Prepared",
    "part_bytes_max",
    "prepare",
    "prepare_hashed",
]

BLOB, TREE, COMMIT = (ord(letter) for letter in "btc")
"""What an object was stored as. It orders packs and narrows searches; identity is the content alone."""

COMMIT_BYTES_MAX = 4 * 1024 * 1024
TREE_BYTES_MAX = 256 * 1024 * 1024
"""A directory of a million names has a third of this."""


def part_bytes_max(kind: int) -> int:
    """The most bytes that a tree or commit may have."""
    return COMMIT_BYTES_MAX if kind == COMMIT else TREE_BYTES_MAX


STREAM_MIN_BYTES = 32 * 1024 * 1024
"""Larger files are hashed and compressed piece by piece, so that memory does not grow with the largest file."""
PACK_MAX_BYTES = 1024 * 1024 * 1024
"""A writer goes on in a new pack after this, so that gc rewrites a part and not the whole."""


class ObjectStore:
    """Reads objects of one repository; safe to use from several threads and beside writers."""

    def __init__(self, directory: Path, lock: Path) -> None:
        self.directory = directory
        self.lock = lock
        self.broken: dict[str, str] = {}
        """Packs whose index cannot be used, and why: `fsck` reports them, what is elsewhere stays readable."""
        self._readers: dict[str, PackReader] = {}
        self._condemned: dict[str, PackReader] = {}
        self._recent: tuple[PackReader, ...] = ()
        """Up to two packs in which objects were found last."""
        self._refreshing = threading.Lock()
        self.refresh()

    def refresh(self) -> bool:
        """Look for packs that appeared or went away; whether there was a change."""
        with self._refreshing:
            while True:
                staying, going = self._listed()
                if staying == self._readers.keys() | self.broken.keys() and going == self._condemned.keys():
                    return False
                try:
                    self._load(staying, going)
                except FileNotFoundError:
                    continue  # gc removed it since it was listed
                return True

    def packs(self) -> list[PackReader]:
        """The packs that stay, the largest first."""
        return list(self._readers.values())

    def condemned(self) -> list[PackReader]:
        """The packs that can be read, but that gc is about to remove."""
        return list(self._condemned.values())

    def close(self) -> None:
        for reader in (*self._readers.values(), *self._condemned.values()):
            reader.close()
        self._readers, self._condemned, self._recent = {}, {}, ()

    def contains(self, object_id: bytes) -> bool:
        """Whether an object is stored to stay, with all it refers to, as far as the packs known now tell.

        Writers ask this. What gc is about to remove is not contained, though it can still be read.
        """
        return any(reader.find(object_id) for reader in self._readers.values())

    def readable(self, object_id: bytes) -> bool:
        """Whether an object can be read, in a pack that gc is about to remove, too."""
        try:
            self._find(object_id)
        except ObjectMissingError:
            return False
        return True

    def describe(self, object_id: bytes) -> Stored:
        """Kind and sizes of an object. Raises ObjectMissingError."""
        return self._reading(object_id, lambda reader, place: reader.header(object_id, place[0]))

    def read(self, object_id: bytes) -> bytes:
        """The whole content of an object. Raises ObjectMissingError, or CorruptError when no copy is sound."""
        return self._reading(object_id, lambda reader, place: content_of(*reader.payload(object_id, place)))

    def read_verified(self, object_id: bytes) -> bytes:
        """As `read`, but the digest is verified too: for the objects that everything else hangs on."""
        content = self.read(object_id)
        if sha256(content).digest() != object_id:
            raise CorruptError(f"an object must match its id, got other content ({object_id.hex()})")
        return content

    def read_part(self, object_id: bytes, kind: int = TREE, *, verify: bool = False) -> bytes:
        """A tree (a root object is one) or a commit; with `verify` its digest is verified, too.

        A tree may name as a directory what is a file of any size: that is a CorruptError before it is read.
        """
        bytes_max = part_bytes_max(kind)

        def require(size: int) -> None:
            if size > bytes_max:
                raise CorruptError(f"a tree or commit has at most {bytes_max} bytes, got {size} ({object_id.hex()})")

        def payload(reader: PackReader, place: Place) -> tuple[Stored, memoryview]:
            require(place[1])
            return reader.payload(object_id, place)

        found, data = self._reading(object_id, payload)
        require(found.size)
        content = content_of(found, data)
        if verify and sha256(content).digest() != object_id:
            raise CorruptError(f"an object must match its id, got other content ({object_id.hex()})")
        return content

    def chunks(self, object_id: bytes) -> Iterator[bytes]:
        """The content of an object in pieces, for contents too large to hold; checked when the last piece is read."""
        if _is_held(self.describe(object_id)):
            yield self.read(object_id)
        else:
            reader, _held = self._reading(object_id, _opened)
            yield from self.chunks_in(reader, object_id)

    def chunks_in(self, reader: PackReader, object_id: bytes) -> Iterator[bytes]:
        """As `chunks`, of the copy in one certain pack."""
        place = reader.find(object_id)
        if place is None:
            raise ObjectMissingError(f"object {object_id.hex()} is not in its pack ({reader.path})")
        found = reader.header(object_id, place[0])
        if _is_held(found):
            yield content_of(*reader.payload(object_id, place))
            return
        pieces = reader.payload_chunks(found)
        yield from content_pieces(found, pieces)

    def ids_with_prefix(self, text: str) -> set[bytes]:
        """Ids that start with these hex digits (at least two)."""
        if len(text) < 2:
            raise RevisionError(f"an abbreviated id needs at least two digits, got {text!r}")
        even = text[: len(text) // 2 * 2]
        odd = int(text[-1], 16) if len(text) % 2 else None
        return {
            found
            for reader in (*self.packs(), *self.condemned())
            for found in reader.ids_with_prefix(bytes.fromhex(even), odd)
        }

    @contextmanager
    def writing(self) -> Iterator[ObjectWriter]:
        """A writer whose objects become visible together, when the block ends without an exception.

        Many writers may work at once. Move the ref inside the block, after `writer.finish()`: gc leaves alone what a
        writer found until the block ends. The block begins by clearing away what dead writers left and may end by
        merging small packs.
        """
        with storage_errors("a commit"):
            with writing(self.lock):
                remove_leftovers(self.directory)
                self.refresh()
                with ObjectWriter(self) as writer:
                    yield writer
                self.refresh()
            from koguma.images.repack import merge_if_many  # noqa: PLC0415 - it imports this module

            merge_if_many(self)

    def forget(self, names: Iterable[str]) -> None:
        """Load these packs' indexes again: they were replaced."""
        with self._refreshing:
            for name in names:
                self._readers.pop(name, None)
                self._condemned.pop(name, None)
                self.broken.pop(name, None)
        self.refresh()

    def _listed(self) -> tuple[set[str], set[str]]:
        """The packs that stay and those that can only be read.

        The list of the condemned is read first: what replaces them was visible before it was written, so the directory,
        read after it, has that.
        """
        try:
            found = read_condemned(self.directory)
        except CorruptError:
            found = None
        visible = visible_packs(os.listdir(self.directory))  # noqa: PTH208 - `log` starts with this
        if found is None:
            return visible, set()
        return visible - found.packs, visible & found.packs if found.stage is Stage.WAITING else set()

    def _load(self, staying: set[str], going: set[str]) -> None:
        known = self._readers | self._condemned
        loaded: dict[str, PackReader] = {}
        broken = {}
        for name in staying | going:
            try:
                loaded[name] = known.get(name) or PackReader(self.directory / (name + INDEX_SUFFIX))
            except CorruptError as error:
                broken[name] = str(error)
        readers = [(name, reader) for name, reader in loaded.items() if name in staying]
        self._readers = dict(sorted(readers, key=lambda item: len(item[1]), reverse=True))
        self._condemned = {name: reader for name, reader in loaded.items() if name in going}
        self._recent = ()
        self.broken = {name: why for name, why in broken.items() if name in staying}

    def _find(self, object_id: bytes) -> tuple[PackReader, Place]:
        # What was stored together is read together, and of two commits in turn.
        recent = self._recent
        for reader in recent:
            if place := reader.find(object_id):
                return reader, place
        for _ in range(2):
            for reader in (*self._readers.values(), *self._condemned.values()):
                if reader not in recent and (place := reader.find(object_id)):
                    self._recent = (reader, *recent[:1])
                    return reader, place
            if not self.refresh():
                break
        damaged = f"; {len(self.broken)} packs have a damaged index, koguma image fsck says more" if self.broken else ""
        raise ObjectMissingError(f"object {object_id.hex()} is in no pack ({self.directory}){damaged}")

    def _reading(self, object_id: bytes, read: Callable[[PackReader, Place], T]) -> T:
        """Find an object and read it; once more when its pack was merged into another before it was opened.

        When what is found is damaged, other copies are tried.
        """
        try:
            return read(*self._find(object_id))
        except FileNotFoundError:
            self.refresh()
        except CorruptError as error:
            return self._reading_others(object_id, read, error)
        try:
            return read(*self._find(object_id))
        except FileNotFoundError as error:
            raise ObjectMissingError(f"object {object_id.hex()} is in a pack that is gone ({error.filename})") from None
        except CorruptError as error:
            return self._reading_others(object_id, read, error)

    def _reading_others(self, object_id: bytes, read: Callable[[PackReader, Place], T], error: CorruptError) -> T:
        for reader in (*self._readers.values(), *self._condemned.values()):
            if place := reader.find(object_id):
                with suppress(CorruptError, FileNotFoundError):
                    return read(reader, place)
        raise error


class Companion(Protocol):
    """Others who store for a writer, in packs of their own."""

    def finish(self) -> tuple[int, int]:
        """Make it durable and visible; the number of objects, and their stored bytes."""

    def abandon(self) -> None: ...


class ObjectWriter:
    """Adds objects to new packs. `add*` may be called from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._seen: set[bytes] = set()
        self._pack: PackWriter | None = None
        self._full: list[PackWriter] = []
        self._companions: list[Companion] = []
        self.objects = 0
        self.stored_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abandon()

    def sibling(self) -> ObjectWriter:
        """A writer for another process, which does not store what this one has stored so far."""
        made = ObjectWriter(self._store)
        made._seen = set(self._seen)
        return made

    def accompany(self, companion: Companion) -> None:
        """Its objects belong to this writer: they are finished, or abandoned, with its own."""
        self._companions.append(companion)

    def abandon(self) -> None:
        """Forget what is not finished."""
        for companion in self._companions:
            companion.abandon()
        for pack in self._packs():
            pack.abandon()

    def sync(self) -> None:
        """Begin to make durable what was added so far: `finish` has less to wait for then."""
        with self._guard:
            for pack in self._packs():
                pack.sync()

    def finish(self) -> None:
        """Make everything added so far durable and visible, so that a ref may name it."""
        while self._companions:
            objects, stored = self._companions[0].finish()
            self.objects, self.stored_bytes = self.objects + objects, self.stored_bytes + stored
            del self._companions[0]
        with self._guard:
            taken = condemned_names(self._store.directory)
            for pack in self._packs():
                pack.finish(taken=taken)
            self._full, self._pack = [], None
        self._store.refresh()

    def _packs(self) -> list[PackWriter]:
        return [*self._full, self._pack] if self._pack else self._full

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

    def add_stream(
        self, pieces: Iterable[bytes], *, kind: int = BLOB, expected: bytes | None = None
    ) -> tuple[bytes, int]:
        """Store a large content that arrives in pieces; returns its id and size. Memory stays bounded.

        With `expected` it is stored even if it seems to be there, and refused unless it has this id.
        """
        digest, size = sha256(), 0
        compressor = piecewise_compressor()
        with _spool(self._store.directory) as spool:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                _write(spool, compressor.compress(piece))
            _write(spool, compressor.flush())
            object_id = digest.digest()
            if expected not in (None, object_id):
                raise CorruptError(f"an object must match its id, got other content ({expected.hex()})")
            if expected or self.claim(object_id):
                with self._guard:
                    self._room().append_file(object_id, kind, ZSTD, size, spool)
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


def _is_held(found: Stored) -> bool:
    """Whether an object is small enough to be read at once."""
    return found.size < STREAM_MIN_BYTES and found.stored < STREAM_MIN_BYTES


def _opened(reader: PackReader, _place: Place) -> tuple[PackReader, OpenPack]:
    """The reader and its open pack, which can be read to the end whatever gc removes meanwhile."""
    return reader, reader.opened()


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
