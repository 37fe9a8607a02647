"""Trying again: what may succeed later is tried again, later each time; the clock is an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
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
            backoff.sleep(min(backoff.longest_s, backoff.first_s * 2 ** (failures - 1)))
