"""Reads, hashes and stores a batch of files, in whatever thread or process calls it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from koguma.images.errors import TreeError
from koguma.images.objects import BLOB, ObjectWriter, Prepared, prepare_hashed

Done = Callable[[bytes, int], None]
"""Told the digest and size of a file once it is stored, in the thread that handed it over."""

_BATCH_FILES = 64
"""All of a batch are open at once: what is not in memory the disk is asked for together."""
_BATCH_BYTES = 2 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_AHEAD_BYTES = 4 * 1024 * 1024
"""Of a file: what the disk reads ahead of a reader by itself follows."""
_WHOLE_BYTES_MAX = 112 * 1024 * 1024
"""What all threads or processes together may hold of files and what they compress to."""
_STREAM_MIN_BYTES = max(8 * 1024 * 1024, _WHOLE_BYTES_MAX // (2 * max(2, os.cpu_count() or 1)))
"""Larger files are read and compressed in pieces, which takes longer and stores a little more."""
_BUFFER_MIN_BYTES = 1024 * 1024
_own = threading.local()


class Batch:
    """Small files travel together, because handing over each one alone would cost more than hashing it."""

    def __init__(self) -> None:
        self.work: list[tuple[bytes, int]] = []
        """Paths and their expected sizes, or contents with size -1."""
        self._done: list[Done] = []
        self._bytes = 0

    def add(self, source: bytes, size: int, done: Done) -> None:
        self.work.append((source, size))
        self._done.append(done)
        self._bytes += len(source) if size < 0 else size

    def is_full(self) -> bool:
        return self._bytes >= _BATCH_BYTES or len(self.work) >= _BATCH_FILES

    def tell(self, results: list[tuple[bytes, int]]) -> int:
        """Pass on what `store_files` returned; how many bytes were read."""
        for done, (digest, size) in zip(self._done, results, strict=True):
            done(digest, size)
        return sum(size for _, size in results)


def store_files(writer: ObjectWriter, work: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Store these files (path and expected size) or contents (size -1); returns digest and size of each, in order."""
    results: list[tuple[bytes, int]] = []
    prepared: list[Prepared] = []
    with _opened(work) as descriptors:
        for (source, expected), descriptor in zip(work, descriptors, strict=True):
            if expected >= _STREAM_MIN_BYTES:
                results.append(_store_large(writer, descriptor))
                continue
            content = source if expected < 0 else _read_all(descriptor, expected)
            digest = sha256(content).digest()
            results.append((digest, len(content)))
            if writer.claim(digest):
                prepared.append(prepare_hashed(BLOB, content, digest))
    if prepared:
        writer.append(prepared)
    return results


def _store_large(writer: ObjectWriter, descriptor: int) -> tuple[bytes, int]:
    """Hash a file piece by piece, and read it again to compress it only when its content is new."""
    digest, size = sha256(), 0
    for piece in _pieces(descriptor):
        digest.update(piece)
        size += len(piece)
    if writer.has(digest.digest()):
        return digest.digest(), size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return writer.add_stream(_pieces(descriptor))


@contextmanager
def _opened(work: list[tuple[bytes, int]]) -> Iterator[list[int]]:
    """These files, -1 for contents. What is not in memory the disk is asked for, for all of them at once."""
    descriptors: list[int] = []
    try:
        for path, expected in work:
            descriptors.append(_open_regular(path) if expected >= 0 else -1)
            if expected > 0:
                os.posix_fadvise(descriptors[-1], 0, min(expected, _AHEAD_BYTES), os.POSIX_FADV_WILLNEED)
        yield descriptors
    finally:
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def _open_regular(path: bytes) -> int:
    """Open a file that the walk saw as regular; one that was replaced by a FIFO since must not block us."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TreeError(
            f"a file must stay readable during the commit: {error.strerror} ({os.fsdecode(path)!r})"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TreeError(f"a file must stay a file during the commit, it was replaced ({os.fsdecode(path)!r})")
    return descriptor


def _read_all(descriptor: int, expected: int) -> bytes | memoryview:
    """Into the thread's own buffer, until it reads the next: new memory for every file costs more than its hash."""
    buffer = _own.__dict__.get("buffer")
    if buffer is None or len(buffer) <= expected:
        buffer = _own.buffer = memoryview(bytearray(max(_BUFFER_MIN_BYTES, expected + 1)))
    size = os.readv(descriptor, [buffer[: expected + 1]])
    if size == expected:
        return buffer[:size]
    pieces = [bytes(buffer[:size])]  # a short read, or a file that grew since the walk
    while piece := os.read(descriptor, _READ_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _READ_BYTES):
        yield piece
