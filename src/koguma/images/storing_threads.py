"""Stores files in threads: SHA-256 and zstd release the interpreter's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from koguma.images.objects import ObjectWriter
from koguma.images.storing import Batch, Done, store_files

_COUNT_MAX = 8
"""Each has the files of a batch open, and a process may have not many more than a thousand."""
_IN_FLIGHT_MAX = 16
"""Batches waiting or running: bounds memory to some tens of megabytes."""


class StoringThreads:
    """Call `add` for each file or content (size -1), then `wait`; `stop` in any case."""

    def __init__(self, writer: ObjectWriter, progress: Callable[[int], None]) -> None:
        self._writer = writer
        self._progress = progress
        self._pool = ThreadPoolExecutor(min(_COUNT_MAX, max(2, os.cpu_count() or 1)), thread_name_prefix="hash")
        self._batch = Batch()
        self._running: deque[tuple[Future[list[tuple[bytes, int]]], Batch]] = deque()

    def add(self, source: bytes, size: int, done: Done) -> None:
        self._batch.add(source, size, done)
        if self._batch.is_full():
            self._submit()

    def wait(self) -> None:
        """Until everything is stored; the first error of any thread is raised here."""
        self._submit()
        while self._running:
            self._collect()

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        if not self._batch.work:
            return
        self._running.append((self._pool.submit(store_files, self._writer, self._batch.work), self._batch))
        self._batch = Batch()
        while len(self._running) > _IN_FLIGHT_MAX or (self._running and self._running[0][0].done()):
            self._collect()

    def _collect(self) -> None:
        future, batch = self._running.popleft()
        self._progress(batch.tell(future.result()))
