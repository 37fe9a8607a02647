"""Downloads to memory, hashed while they come in: what does not have the promised size and digest is refused.

One thread receives and writes, another hashes, so that both CPUs of a small machine work. No pipe is in between:
moving 180 MB through one takes longer under emulation than hashing them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import BinaryIO

from koguma_node import transport
from koguma_node.console import say
from koguma_node.errors import NodeError, UnverifiedError

BUFFER_BYTES = 1024 * 1024
BUFFERS = 8
RESUMES_MAX = 2
IDLE_TIMEOUT_S = 15.0
"""A connection that brings nothing for this long has broken."""


def fetch_verified(
    url: str, target: Path, name: str, size_bytes: int, sha256: str, deadline: float, resumes_max: int = RESUMES_MAX
) -> None:
    """Fetch URL to target; a download that breaks off is resumed with Range, `resumes_max` times.

    Raises UnverifiedError when size or digest are not as given, NodeError when memory or time (monotonic) run out.
    What is refused is removed.
    """
    ensure_room(target.parent, name, size_bytes)
    download = Download(url, name, size_bytes, deadline)
    try:
        with target.open("wb", buffering=0) as file:
            digest = download.run(file, resumes_max)
        _require_equal(name, "size", f"{size_bytes} bytes", f"{download.received} bytes", url)
        _require_equal(name, "SHA-256", sha256, digest, url)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _require_equal(name: str, what: str, expected: str, got: str, url: str) -> None:
    if got != expected:
        raise UnverifiedError(f"{name}: {what} must be {expected}, got {got} ({url})")


def ensure_room(folder: Path, name: str, size_bytes: int, reserve_bytes: int = 0) -> None:
    """Raises NodeError when the file system or the memory behind it is too small."""
    room = os.statvfs(folder)
    available = min(room.f_bavail * room.f_frsize, available_memory_bytes() - reserve_bytes)
    if size_bytes > available:
        raise NodeError(f"{name}: {size_bytes} bytes of memory are needed, {available} are available ({folder})")


def available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


class Download:
    """One file on its way: how much of it came, and its digest so far, in spite of broken connections."""

    def __init__(self, url: str, name: str, size_bytes: int, deadline: float) -> None:
        self.received = 0
        self._url = url
        self._name = name
        self._size_bytes = size_bytes
        self._deadline = deadline
        self._hasher = Hasher()

    def run(self, file: BinaryIO, resumes_max: int) -> str:
        """The SHA-256 of what came, all of it or less, or one buffer more when the server sends too much."""
        try:
            for attempt in range(1 + resumes_max):
                if attempt:
                    say(f"{self._name}: {self.received} of {self._size_bytes} bytes came; asking for the rest")
                    time.sleep(min(0.2 * 2**attempt, self._left_s()))
                self._receive(file)
                if self.received >= self._size_bytes:
                    break
        finally:
            digest = self._hasher.finish()
        return digest

    def _receive(self, file: BinaryIO) -> None:
        """Take what one request brings."""
        headers = {"Range": f"bytes={self.received}-"} if self.received else {}
        try:
            response = transport.request("GET", self._url, headers, None, min(IDLE_TIMEOUT_S, self._left_s()))
        except transport.TransportError as error:
            say(f"{self._name}: {error}")
            return
        try:
            # An answer 200 to a request for the rest would be the whole file again.
            if response.status == (206 if self.received else 200):
                self._take_body(response, file)
            else:
                say(f"{self._name}: HTTP {response.status} ({self._url})")
        except transport.TransportError as error:
            say(f"{self._name}: {error}")
        finally:
            response.close()

    def _take_body(self, response: transport.Response, file: BinaryIO) -> None:
        while self.received <= self._size_bytes and self._left_s():
            # Whole buffers only: handing over each packet's worth costs more than hashing it.
            buffer = self._hasher.free_buffer()
            broken = None
            try:
                count = response.fill(buffer)
            except transport.TransportError as error:
                broken, count = error, response.partial
            self._write(file, buffer[:count])
            self._hasher.add(buffer, count)
            self.received += count
            if broken:
                raise broken
            if count < len(buffer):
                return

    def _write(self, file: BinaryIO, part: memoryview) -> None:
        try:
            while part:
                part = part[file.write(part) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise NodeError(
                    f"{self._name}: the memory of this machine is too small for {self._size_bytes} bytes"
                ) from error
            raise

    def _left_s(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise NodeError(f"{self._name}: the download must end in time, got {self.received} bytes ({self._url})")
        return left


class Hasher:
    """SHA-256 on a thread of its own, over buffers that go round between it and the receiver."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(BUFFER_BYTES)))
        self._thread = threading.Thread(target=self._run, daemon=True, name="hasher")
        self._thread.start()

    def free_buffer(self) -> memoryview:
        return self._free.get()

    def add(self, buffer: memoryview, count: int) -> None:
        """Hash the first `count` bytes; the buffer comes back by itself."""
        self._full.put((buffer, count))

    def finish(self) -> str:
        self._full.put(None)
        self._thread.join()
        return self._digest.hexdigest()

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            buffer, count = item
            self._digest.update(buffer[:count])
            self._free.put(buffer)
