"""Which directories of a tree are as they were, found out by processes of their own that begin at the tree's other end.

A walk asks for the status of one name after the other; on a disk that sleeps or is far away most of its time is
waiting, and in memory still most of it is the kernel's work. Where the walk and these meet, it has only their answers
to collect. They are a help: what they have not looked at yet, or found changed, the walk looks at itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NoReturn, Self

from koguma.images.processors import processes_worth_it

_DIRECTORIES_MIN = 300
"""A process costs as much as looking at some hundred directories."""
_ANSWERS = 32
"""Directories answered for at once, and taken as a stretch where several processes share a tree."""
_COLLECT_EVERY = 16
_NICENESS = 19
"""They take what the walk leaves: while it waits for the disk, and the other processors."""
_READ_BYTES = 64 * 1024


class Lookahead:
    """Begins with the last of `paths`, which end where the walk will; `end` it in any case."""

    def __init__(self, paths: Sequence[bytes], is_unchanged: Callable[[bytes], bool]) -> None:
        self._unchanged: set[bytes] = set()
        self._helpers: list[_Helper] = []
        self._asked = 0
        count = processes_worth_it() if len(paths) >= _DIRECTORIES_MIN else 0
        backwards = paths[::-1]
        stretches = [backwards[start : start + _ANSWERS] for start in range(0, len(backwards), _ANSWERS)]
        with contextlib.suppress(OSError):  # where no process is to be had, the walk does it all
            for number in range(count):
                others = [helper.answers for helper in self._helpers]
                self._helpers.append(_Helper(stretches[number::count], is_unchanged, others))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def unchanged(self, path: bytes) -> bool:
        """Whether this directory is known by now to be as it was."""
        self._asked += 1
        if self._asked % _COLLECT_EVERY == 0:
            for helper in self._helpers:
                self._unchanged.update(helper.collect())
        return path in self._unchanged

    def end(self) -> None:
        """End the processes: they only read, and nobody needs what they have not said yet."""
        for helper in self._helpers:
            helper.end()
        self._helpers = []


class _Helper:
    """One process, as its parent sees it."""

    def __init__(
        self, stretches: Sequence[Sequence[bytes]], is_unchanged: Callable[[bytes], bool], others: Sequence[int]
    ) -> None:
        self._paths = iter([path for stretch in stretches for path in stretch])
        self.answers, theirs = os.pipe()
        try:
            self.process = os.fork()
            if self.process == 0:
                _serve(theirs, (*others, self.answers), stretches, is_unchanged)
        except OSError:
            os.close(self.answers)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self.answers, False)

    def collect(self) -> Iterator[bytes]:
        """The unchanged ones among those it has answered for since."""
        try:
            answers = os.read(self.answers, _READ_BYTES)
        except BlockingIOError:
            return
        for unchanged in answers:
            path = next(self._paths)
            if unchanged:
                yield path

    def end(self) -> None:
        os.close(self.answers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def _serve(
    answers: int, ends: Sequence[int], stretches: Sequence[Sequence[bytes]], is_unchanged: Callable[[bytes], bool]
) -> NoReturn:
    """What a process does until it has answered for all, or nobody is there to hear it."""
    try:
        # Its parent hears the interrupt from the keyboard and decides for both.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for end in ends:
            os.close(end)  # or it would write to itself when its parent is gone
        os.nice(_NICENESS)
        for stretch in stretches:
            os.write(answers, bytes(map(is_unchanged, stretch)))
    finally:
        os._exit(0)
