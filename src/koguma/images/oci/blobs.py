"""Where an image's blobs lie: an OCI layout in a directory or in a tar, or what `docker save` writes.

A tar is not unpacked: its members are found once and read in place, so their names can do no harm. One that is
compressed is decompressed into a nameless file first. What is read by a digest must have that digest.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, Self, cast

from koguma.images.errors import TreeError
from koguma.images.importing.options import Budget, Limits
from koguma.images.importing.streams import PIECE_BYTES, PLAIN, ByteStream
from koguma.images.importing.tarreader import HARD_LINK, Member, TarReader
from koguma.images.oci.documents import DOCUMENT_MAX_BYTES, Descriptor
from koguma.images.trees import DIRECTORY, FILE, SYMLINK

_FOLLOWED_MAX = 10


class Blobs(Protocol):
    """Files by their name in the layout."""

    place: str

    def open(self, name: str) -> IO[bytes]:
        """Raises TreeError when there is no such file."""
        ...

    def size(self, name: str) -> int: ...


class DirectoryBlobs:
    """A layout in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def open(self, name: str) -> IO[bytes]:
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TreeError(f"an image must have all its files: {error.strerror}, {name} ({self.place})") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise TreeError(f"an image consists of regular files, got another kind for {name} ({self.place})")
        return os.fdopen(descriptor, "rb")

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size


class ArchiveBlobs:
    """Files of a tar, read where they lie in it."""

    def __init__(self, file: IO[bytes], place: str, limits: Limits) -> None:
        """`file` is a plain tar that can be read anywhere; see `archive`."""
        self._file = file
        self.place = place
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        budget = Budget(limits)
        file.seek(0)
        stream = ByteStream(file, limits, seek=True)
        try:
            for member in TarReader(stream, limits):
                budget.take_entry()
                self._note(member, stream.offset)
        except TreeError as error:
            raise type(error)(f"{error} (in the archive itself)") from None

    def open(self, name: str) -> IO[bytes]:
        offset, size = self._found(name)
        return cast("IO[bytes]", _Part(self._file.fileno(), offset, size))

    def size(self, name: str) -> int:
        return self._found(name)[1]

    def _note(self, member: Member, offset: int) -> None:
        name = posixpath.normpath(os.fsdecode(member.name))
        if member.kind == DIRECTORY:
            return
        if name in self._places or name in self._links:
            raise TreeError(f"a name may come once in an archive, got {name!r} again")
        if member.kind == FILE and member.extents is None:
            self._places[name] = (offset, member.size)
        elif member.kind in (SYMLINK, HARD_LINK):
            folder = posixpath.dirname(name) if member.kind == SYMLINK else ""
            self._links[name] = posixpath.normpath(posixpath.join(folder, os.fsdecode(member.target)))

    def _found(self, name: str) -> tuple[int, int]:
        asked = name
        for _ in range(_FOLLOWED_MAX):
            if name in self._places:
                return self._places[name]
            name = self._links.get(name, "")
        raise TreeError(f"an image must have all its files, there is no {asked[:200]!r}")


class _Part:
    """A part of a file as a file of its own, that can only be read from front to end."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._at = offset
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = os.pread(self._descriptor, wanted, self._at)
        self._at += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        """The file stays open: other parts of it are still to be read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def archive(path: Path, limits: Limits, scratch: Path) -> Iterator[ArchiveBlobs]:
    """An archive opened; one that is compressed or a pipe goes to a file without a name first, within the limits."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise TreeError(f"an image archive must be a file that can be read: {error.strerror}") from None
    with file, tempfile.TemporaryFile(dir=scratch) as plain:
        stream = ByteStream(file, limits)
        if stream.compression == PLAIN and file.seekable():
            yield ArchiveBlobs(file, str(path), limits)
            return
        while piece := stream.read(PIECE_BYTES):
            plain.write(piece)
        plain.flush()
        yield ArchiveBlobs(plain, str(path), limits)


def read_small(blobs: Blobs, name: str) -> bytes:
    """A file that is named and not addressed by its digest, such as an index."""
    if blobs.size(name) > DOCUMENT_MAX_BYTES:
        raise TreeError(
            f"a document of an image has at most {DOCUMENT_MAX_BYTES} bytes, got {blobs.size(name)}: {name}"
        )
    with blobs.open(name) as file:
        return file.read(DOCUMENT_MAX_BYTES)


def read_document(blobs: Blobs, descriptor: Descriptor) -> bytes:
    """A small blob, which has the size and digest that its descriptor says."""
    data = read_small(blobs, blob_name(descriptor.digest))
    check = Checked(descriptor.digest, descriptor.size)
    check.take(data)
    check.finish()
    return data


class Checked:
    """The digest of what goes by, held against the one that was promised."""

    def __init__(self, digest: str, size: int | None = None) -> None:
        self._promised = digest
        self._promised_size = size
        self._hash: Any = hashlib.new(digest.partition(":")[0])
        self._size = 0

    def take(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)

    def finish(self, what: str = "a blob") -> None:
        """Raises TreeError when it was another content."""
        if self._promised_size is not None and self._size != self._promised_size:
            raise TreeError(f"{what} must have the {self._promised_size} bytes its descriptor says, got {self._size}"
                            f" for {self._promised}")  # fmt: skip
        if self.found() != self._promised:
            raise TreeError(f"{what} must match its digest {self._promised}, got {self.found()}")

    def found(self) -> str:
        return f"{self._hash.name}:{self._hash.hexdigest()}"


def blob_name(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"
