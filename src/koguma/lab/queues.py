"""Deepens the queues that the userspace switch reads its ports from.

Open vSwitch's netdev datapath reads a port through a packet socket, whose queue the kernel limits to
net.core.rmem_default: less than a hundred packets. A server that sends 64 KiB at a time overruns it, and a fifth of
what the machines download came twice. Open vSwitch has no setting for it and the kernel none for a namespace, so the
lab takes a descriptor of each socket and sets it itself (pidfd_getfd(2), SO_RCVBUFFORCE of socket(7)); both need root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

QUEUE_BYTES = 8 * 1024 * 1024
PIDFD_GETFD = 438
SO_RCVBUFFORCE = 33


def deepen(pid: int) -> int:
    """Set QUEUE_BYTES for every packet socket of a process; how many there are."""
    count = 0
    for port in _packet_sockets(pid):
        port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
        count += 1
    return count


def _packet_sockets(pid: int) -> Iterator[socket.socket]:
    """Descriptors of our own for a process's packet sockets, each closed after its turn."""
    process = os.pidfd_open(pid)
    try:
        for number in _sockets(pid):
            descriptor = _libc.syscall(PIDFD_GETFD, process, number, 0)
            if descriptor < 0:
                continue  # closed since it was listed
            with socket.socket(fileno=descriptor) as found:
                if found.family == socket.AF_PACKET:
                    yield found
    finally:
        os.close(process)


def _sockets(pid: int) -> Iterator[int]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()).startswith("socket:"):
                yield int(descriptor.name)


_libc = ctypes.CDLL(None, use_errno=True)
