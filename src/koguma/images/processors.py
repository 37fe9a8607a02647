"""How many processes of its own a command may start to be done sooner."""

from __future__ import annotations

import os
import threading

_COUNT_MAX = 16


def processors() -> int:
    """Those this process may use, up to a number that is of use."""
    return min(_COUNT_MAX, len(os.sched_getaffinity(0)))


def processes_worth_it() -> int:
    """How many to fork; none with a single processor, or beside a thread whose locks they would inherit."""
    count = processors()
    return count if count > 1 and threading.active_count() == 1 else 0
