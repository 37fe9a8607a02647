"""Reads, hashes and stores files in parallel.

SHA-256 and zstd release the interpreter's lock, so threads use all cores; small files travel in batches, because
handing over each one alone would cost more than hashing it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from types import TracebackType
from typing import Self

from koguma.images.errors import TreeError
from koguma.images.objects import BLOB, ObjectWriter, prepare_hashed

Done = Callable[[bytes, int], None]
"""Told the digest and size of a file once it is stored, in the thread that called `add` or `finish`."""

_BATCH_FILES = 64
_BATCH_BYTES = 2 * 1024 * 1024
_IN_FLIGHT_MAX = 16
"""Batches waiting or running: bounds memory to some tens of megabytes."""
_READ_BYTES = 1024 * 1024
_STREAM_MIN_BYTES = 8 * 1024 * 1024
"""Larger files are read in pieces: every thread may hold one that is not, and what it compresses to."""
_BUFFER_MIN_BYTES = 1024 * 1024
_own = threading.local()


class FileHasher:
    """Stores the content of files; call `add` for each, then `finish`."""

    def __init__(self, writer: ObjectWriter, progress: Callable[[int], None] | None = None) -> None:
        self._writer = writer
        self._progress = progress
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="hash")
        self._batch: list[tuple[bytes, int, Done]] = []
        self._batch_bytes = 0
        self._running: deque[tuple[Future[list[tuple[bytes, int]]], list[Done]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, path: bytes, size: int, done: Done) -> None:
        self._batch.append((path, size, done))
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_FILES:
            self._submit()

    def add_bytes(self, content: bytes, done: Done) -> None:
        """Store a content that is at hand; it counts as a file."""
        self._batch.append((content, -1, done))
        self._batch_bytes += len(content)
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_FILES:
            self._submit()

    def finish(self) -> None:
        """Wait for everything; the first error of any thread is raised here."""
        self._submit()
        while self._running:
            self._collect()

    def _submit(self) -> None:
        if not self._batch:
            return
        work = [(path, size) for path, size, _ in self._batch]
        self._running.append((self._pool.submit(store_files, self._writer, work), [done for _, _, done in self._batch]))
        self._batch, self._batch_bytes = [], 0
        while len(self._running) > _IN_FLIGHT_MAX or (self._running and self._running[0][0].done()):
            self._collect()

    def _collect(self) -> None:
        future, callbacks = self._running.popleft()
        results = future.result()
        for done, (digest, size) in zip(callbacks, results, strict=True):
            done(digest, size)
        if self._progress:
            self._progress(sum(size for _, size in results))


def store_files(writer: ObjectWriter, work: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Store these files (path and expected size) or contents (size -1); returns digest and size of each, in order."""
    results, prepared = [], []
    for path, expected in work:
        if expected >= _STREAM_MIN_BYTES:
            results.append(_store_large(writer, path))
            continue
        content = path if expected < 0 else _content(path, expected)
        digest = sha256(content).digest()
        results.append((digest, len(content)))
        if writer.claim(digest):
            prepared.append(prepare_hashed(BLOB, content, digest))
    if prepared:
        writer.append(prepared)
    return results


def _store_large(writer: ObjectWriter, path: bytes) -> tuple[bytes, int]:
    """Hash a file piece by piece, and read it again to compress it only when its content is new."""
    with _opened(path) as descriptor:
        digest, size = sha256(), 0
        for piece in _pieces(descriptor):
            digest.update(piece)
            size += len(piece)
        if writer.has(digest.digest()):
            return digest.digest(), size
        os.lseek(descriptor, 0, os.SEEK_SET)
        return writer.add_stream(_pieces(descriptor))


def _content(path: bytes, expected: int) -> bytes | memoryview:
    """The content of a file, until the thread reads the next one."""
    with _opened(path) as descriptor:
        return _read_all(descriptor, expected)


@contextmanager
def _opened(path: bytes) -> Iterator[int]:
    descriptor = _open_regular(path)
    try:
        yield descriptor
    finally:
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
    """Into the thread's own buffer: new memory for every file would cost more than its hash."""
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
