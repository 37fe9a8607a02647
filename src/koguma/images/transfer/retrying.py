"""Trying again: what may succeed later is tried again, later each time; the clock is an argument."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from koguma.errors import KogumaError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Backoff:
    """How often and how late; the waits double."""

    attempts_max: int = 5
    first_s: float = 0.2
    longest_s: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int) -> None:
        """After so many failures, one after the other."""
        self.sleep(min(self.longest_s, self.first_s * 2 ** (failures - 1)))


def retrying(
    attempt: Callable[[], Result], backoff: Backoff, *, progressed: Callable[[], bool] = lambda: False
) -> Result:
    """The result of the first attempt that succeeds. An error that is not worth a retry is raised at once, another
    one after the last attempt. An attempt that `progressed` does not count: only standing still ends a transfer.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except KogumaError as error:
            if not error.retry:
                raise
            failures = 1 if progressed() else failures + 1
            if failures >= backoff.attempts_max:
                raise
            backoff.wait(failures)


def resumed(read: Callable[[int], Iterator[bytes]], backoff: Backoff) -> Iterator[bytes]:
    """The pieces that `read` gives from an offset on, at first 0. After an error that is worth a retry it is asked for
    the rest; only attempts that bring nothing count.
    """
    got = failures = 0
    while True:
        try:
            for piece in read(got):
                got, failures = got + len(piece), 0
                yield piece
        except KogumaError as error:
            failures += 1
            if not error.retry or failures >= backoff.attempts_max:
                raise
            backoff.wait(failures)
        else:
            return
