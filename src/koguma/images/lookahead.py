"""Which directories of a tree are as they were, found out by processes of their own that begin at the tree's other end.

A walk asks for the status of one name after the other; in memory most of its time is the kernel's work, and with a
cold disk it is waiting. Where the walk and these meet, it has only their answers to collect. They are a help: what they
have not looked at yet, or found changed, the walk looks at itself.

Each process takes the next stretch of directories from one pipe and answers in another; what is written to a pipe at
once and fits its buffer stays together, so they need no lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NoReturn, Self

from koguma.images.processors import processes_worth_it

_DIRECTORIES_MIN = 300
"""A process costs as much as looking at some hundred directories."""
_STRETCH = 32
"""Directories that are taken and answered for at once."""
_STRETCHES_MAX = 8192
"""Their numbers fit the buffer of a pipe twice. What does not, of a larger tree or where pipes are small because there
are many, is left to the walk.
"""
_STRETCH_NUMBER = struct.Struct("<I")
_ANSWER = struct.Struct(f"<I{_STRETCH}s")
"""The number of a stretch, and a 1 for every directory in it that is as it was."""
_ANSWERS_MAX = 1024
"""That are read at once."""
_COLLECT_EVERY = 16
_JUDGE_AT = 64
"""Directories after which it is known whether the walk waits for a disk."""
_BUSY_SHARE = 0.75
"""Of its time the walk works more where everything is in memory, nearly all of it, and half where nothing is."""
_NICENESS = 19
"""They take what the walk leaves: while it waits for the disk, and the other processors."""


class Lookahead:
    """Begins with the last of `paths`, which end where the walk will; `end` it in any case."""

    def __init__(self, paths: Sequence[bytes], is_unchanged: Callable[[bytes], bool]) -> None:
        self._paths = paths[: -_STRETCH * _STRETCHES_MAX - 1 : -1]
        self._is_unchanged = is_unchanged
        self._unchanged: set[bytes] = set()
        self._asked = 0
        self._began_s, self._worked_s = time.perf_counter(), time.process_time()
        self._ends: list[int] = []
        self.processes: list[int] = []
        count = processes_worth_it() if len(paths) >= _DIRECTORIES_MIN else 0
        if count:
            with contextlib.suppress(OSError):  # where no pipe is to be had, the walk does it all
                self._give_out_work()
                self._start(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def unchanged(self, path: bytes) -> bool:
        """Whether this directory is known by now to be as it was."""
        self._asked += 1
        if self.processes and self._asked % _COLLECT_EVERY == 0:
            self._collect()
        if self._asked == _JUDGE_AT and self._waits():
            self._start(len(self.processes))
        return path in self._unchanged

    def end(self) -> None:
        """End the processes: they only read, and nobody needs what they have not said yet."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # where SIGCHLD is ignored they just go
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        for end in self._ends:
            os.close(end)
        self.processes, self._ends = [], []

    def _give_out_work(self) -> None:
        self._work, work = os.pipe()
        self._ends += [self._work, work]
        self._answers, self._answering = os.pipe()
        self._ends += [self._answers, self._answering]
        os.set_blocking(self._answers, False)
        os.set_blocking(work, False)  # nobody reads yet
        stretches = range(-(-len(self._paths) // _STRETCH))
        os.write(work, b"".join(map(_STRETCH_NUMBER.pack, stretches)))
        os.close(work)  # so that who finds no more is at its end
        self._ends.remove(work)

    def _start(self, count: int) -> None:
        with contextlib.suppress(OSError):  # where no process is to be had, the walk does it all
            for _ in range(count):
                process = os.fork()
                if process == 0:
                    self._serve()
                self.processes.append(process)

    def _waits(self) -> bool:
        """Whether the walk has waited for a disk so far: then more processes can wait at once."""
        worked_s, passed_s = time.process_time() - self._worked_s, time.perf_counter() - self._began_s
        return worked_s < _BUSY_SHARE * passed_s

    def _collect(self) -> None:
        try:
            answers = os.read(self._answers, _ANSWER.size * _ANSWERS_MAX)
        except BlockingIOError:
            return
        for number, flags in _ANSWER.iter_unpack(answers):
            found = zip(self._stretch(number), flags, strict=False)
            self._unchanged.update(path for path, unchanged in found if unchanged)

    def _stretch(self, number: int) -> Sequence[bytes]:
        return self._paths[number * _STRETCH : (number + 1) * _STRETCH]

    def _serve(self) -> NoReturn:
        """What a process does until every stretch is taken, or nobody is there to hear it."""
        try:
            # Its parent hears the interrupt from the keyboard and decides for both.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(self._answers)  # or it would write to itself when its parent is gone
            os.nice(_NICENESS)
            while taken := os.read(self._work, _STRETCH_NUMBER.size):
                (number,) = _STRETCH_NUMBER.unpack(taken)
                unchanged = bytes(map(self._is_unchanged, self._stretch(number)))
                os.write(self._answering, _ANSWER.pack(number, unchanged))
        finally:
            os._exit(0)
