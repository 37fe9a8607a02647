"""Downloads to memory, hashed while they come in: what does not have the promised size and digest is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from koguma_node import transport
from koguma_node.console import say
from koguma_node.errors import NodeError, UnverifiedError

BUFFER_BYTES = 256 * 1024
RESUMES_MAX = 2
IDLE_TIMEOUT_S = 15.0
"""A connection that brings nothing for this long has broken."""


def fetch_verified(url: str, target: Path, name: str, size_bytes: int, sha256: str, deadline: float) -> None:
    """Fetch URL to target. A truncated download is resumed twice with Range.

    Raises UnverifiedError when size or digest are not as given, NodeError when memory or time run out.
    """
    _ensure_room(target.parent, name, size_bytes)
    digest = hashlib.sha256()
    received = 0
    with target.open("wb") as file:
        for attempt in range(1 + RESUMES_MAX):
            received = _receive(url, file, digest, received, size_bytes, name, deadline)
            if received >= size_bytes:
                break
            if attempt < RESUMES_MAX:
                say(f"{name}: {received} of {size_bytes} bytes came; asking for the rest")
                time.sleep(min(attempt + 0.2, max(0.0, deadline - time.monotonic())))
    if received != size_bytes:
        raise UnverifiedError(f"{name}: size must be {size_bytes} bytes, got {received} ({url})")
    if digest.hexdigest() != sha256:
        raise UnverifiedError(f"{name}: SHA-256 must be {sha256}, got {digest.hexdigest()} ({url})")


def _receive(url: str, file: BinaryIO, digest: Any, received: int, size_bytes: int, name: str, deadline: float) -> int:
    """Add what one request brings to file and digest; the bytes received so far, one more than promised at most."""
    headers = {"Range": f"bytes={received}-"} if received else {}
    try:
        response = transport.request("GET", url, headers, None, min(IDLE_TIMEOUT_S, _left(deadline, name, url)))
    except transport.TransportError as error:
        say(f"{name}: {error}")
        return received
    buffer = memoryview(bytearray(BUFFER_BYTES))
    try:
        if response.status not in (200, 206) or (received and response.status == 200):
            say(f"{name}: HTTP {response.status} ({url})")
            return received
        while received <= size_bytes and _left(deadline, name, url):
            count = response.read_into(buffer)
            if not count:
                break
            part = buffer[:count]
            digest.update(part)
            _write(file, part, name, size_bytes)
            received += count
    except transport.TransportError as error:
        say(f"{name}: {error}")
    finally:
        response.close()
    return received


def _left(deadline: float, name: str, url: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise NodeError(f"{name}: the download must end in time ({url})")
    return left


def _ensure_room(folder: Path, name: str, size_bytes: int) -> None:
    room = os.statvfs(folder)
    available = min(room.f_bavail * room.f_frsize, _available_memory_bytes())
    if size_bytes > available:
        raise NodeError(f"{name}: {size_bytes} bytes of memory are needed, {available} are available ({folder})")


def _available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _write(file: BinaryIO, part: memoryview, name: str, size_bytes: int) -> None:
    try:
        file.write(part)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise NodeError(f"{name}: the memory of this machine is too small for {size_bytes} bytes") from error
        raise
