"""The lock of those who write objects, and the turn of its page.

Every writer holds `locks/objects` shared from before its first look-up until its ref moved. gc never waits for them: it
renames the lock's file, so that new writers lock a new one, and learns by the old files when the writers that began
before the turn are done. FORMAT.md draws what gc may do then.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from koguma.images.errors import ImageError

_POLL_S = 0.02


@contextmanager
def writing(lock: Path, timeout_s: float = 600) -> Iterator[None]:
    """Hold the present page, shared. Nobody ever holds it alone for long, so waiting is the exception."""
    descriptor = _hold_present_page(lock, time.monotonic() + timeout_s)
    try:
        yield
    finally:
        os.close(descriptor)


def turn_page(lock: Path) -> None:
    """Writers that begin from now on lock a new file."""
    if lock.exists():
        lock.rename(lock.with_name(f"{lock.name}-old-{os.urandom(8).hex()}"))


def writers_of_old_pages_are_done(lock: Path, timeout_s: float = 0) -> bool:
    """Whether nobody is left who began before the last turn; waits for them for at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        held = [page for page in sorted(lock.parent.glob(f"{lock.name}-old-*")) if not _remove_if_free(page)]
        if not held:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)


def _hold_present_page(lock: Path, deadline: float) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_file(lock, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise ImageError(f"the object store is held by another process for too long ({lock})") from None
            time.sleep(_POLL_S)
        os.close(descriptor)  # its page was turned in the instant before it was locked


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        there, ours = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _remove_if_free(page: Path) -> bool:
    try:
        descriptor = os.open(page, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        page.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
