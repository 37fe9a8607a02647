"""Stores the content of files in parallel: few of them in threads, many in processes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from koguma.images.objects import ObjectWriter
from koguma.images.processors import processes_worth_it

if TYPE_CHECKING:
    from koguma.images.storing import Done
    from koguma.images.storing_processes import StoringProcesses
    from koguma.images.storing_threads import StoringThreads

_PROCESSES_MIN_BYTES = 32 * 1024 * 1024
"""From here on processes save more than starting them costs, some hundredths of a second."""


class FileHasher:
    """Stores the content of files; call `add` for each, then `finish`."""

    def __init__(self, writer: ObjectWriter, progress: Callable[[int], None] | None = None) -> None:
        self._writer = writer
        self._progress = progress or _nobody
        self._early: list[tuple[bytes, int, Done]] | None = []
        """Files held back until it is known whether they are many; None from then on."""
        self._early_bytes = 0
        self._threads: StoringThreads | None = None
        self._processes: StoringProcesses | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads:
            self._threads.stop()

    def add(self, path: bytes, size: int, done: Done) -> None:
        if self._early is None:
            self._add(path, size, done)
            return
        self._early.append((path, size, done))
        self._early_bytes += size
        if self._early_bytes >= _PROCESSES_MIN_BYTES:
            self._start_processes()
            self._release()

    def add_bytes(self, content: bytes, done: Done) -> None:
        """Store a content that is at hand; it counts as a file."""
        self._release()
        self._in_threads().add(content, -1, done)

    def finish(self) -> None:
        """Wait for everything; the first error of any thread or process is raised here."""
        self._release()
        for storing in (self._threads, self._processes):
            if storing:
                storing.wait()

    def _release(self) -> None:
        held, self._early = self._early or (), None
        for path, size, done in held:
            self._add(path, size, done)

    def _add(self, path: bytes, size: int, done: Done) -> None:
        (self._processes or self._in_threads()).add(path, size, done)

    def _in_threads(self) -> StoringThreads:
        if self._threads is None:
            from koguma.images.storing_threads import StoringThreads  # noqa: PLC0415 - many commits change no file

            self._threads = StoringThreads(self._writer, self._progress)
        return self._threads

    def _start_processes(self) -> None:
        if processes_worth_it():
            from koguma.images.storing_processes import StoringProcesses  # noqa: PLC0415 - few commits are large

            self._processes = StoringProcesses(self._writer, self._progress)


def _nobody(_: int) -> None:
    """Nobody asks for progress."""
