"""The SSH host key a switch offers: for a person to compare and put on record. Nothing is sent to the switch beyond
the key exchange.
"""

from __future__ import annotations

import contextlib
import socket

import paramiko

from koguma.contracts.errors import SwitchUnreachable

SSH_PORT = 22


def offered_host_key(address: str, port: int | None = None, *, timeout_s: float = 10.0) -> str:
    """`ssh-ed25519 AAAA…`. Raises SwitchUnreachable."""
    try:
        with socket.create_connection((address, port or SSH_PORT), timeout=timeout_s) as link:
            transport = paramiko.Transport(link)
            with contextlib.closing(transport):
                transport.banner_timeout = timeout_s
                transport.start_client(timeout=timeout_s)
                key = transport.get_remote_server_key()
                return f"{key.get_name()} {key.get_base64()}"
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise SwitchUnreachable(
            f"the switch must offer an SSH host key: {error or type(error).__name__} (switch {address})"
        ) from None
