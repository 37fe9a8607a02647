"""The queues of packet sockets, of a process that is not the lab's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from koguma.lab import queues

pytestmark = [pytest.mark.root]

OPENS_AND_WAITS = """
import socket, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("open", flush=True)
for line in sys.stdin:
    print(*(each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for each in (packets, plain)), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets need root")
def test_every_packet_socket_of_a_process_gets_the_deep_queue_and_no_other_socket_does() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-c", OPENS_AND_WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        assert queues.deepen(process.pid) == 1
        process.stdin.write("tell\n")
        process.stdin.close()
        packets, plain = map(int, process.stdout.readline().split())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as untouched:
        assert plain == untouched.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert packets >= queues.QUEUE_BYTES
