"""One SSH session with a switch, under one deadline: says commands and returns answers.

netmiko knows prompts, paging and echoes; this module owns the end in time whatever the switch does, the check of the
host key before anything is sent, and errors of ours that say whether another try is worth it.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import netmiko
import paramiko

from koguma.contracts.errors import SwitchError, SwitchRefused, SwitchUnreachable
from koguma.contracts.switches import SwitchAccess
from koguma.drivers.switch.netmiko.dialect import Dialect

SSH_PORT = 22
_STATUS = re.compile(r"koguma-exit=(\d+)\s*$")
_BUSY = re.compile(r"locked by|database is locked|being modified|in progress|try again|resource temporarily|busy", re.I)
_KEY_TYPES = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class Session:
    """A context: connected inside it."""

    def __init__(self, access: SwitchAccess, dialect: Dialect, timeout_s: float) -> None:
        self._access = access
        self._dialect = dialect
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self.where = f"switch {access.address}"
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Session:
        if not re.fullmatch(r"[a-z0-9-]+ [A-Za-z0-9+/=]+", self._access.host_key):
            raise SwitchRefused(
                f"a switch's SSH host key must be on record as 'TYPE KEY', it is not ({self.where});"
                " read it with koguma.drivers.switch.netmiko.host_key and compare it with the switch's own"
            )
        try:
            self._connection = self._connected()
            self._prompt = re.escape(self._connection.base_prompt) + r"[^\n]*[>#$]\s*$"
        except BaseException as error:
            self._open.close()
            raise self._translated(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def ask(self, command: str) -> str:
        """What the switch says to a command. Raises SwitchRefused when it says no."""
        sent = f"{command}; echo koguma-exit=$?" if self._dialect.shell else command
        try:
            said = str(
                self._connection.send_command(
                    sent, expect_string=self._prompt, read_timeout=self._left_s(), strip_prompt=True
                )
            )
        except Exception as error:
            raise self._translated(error) from None
        if self._dialect.shell:
            status = _STATUS.search(said)
            if status is None:
                raise SwitchUnreachable(f"a command must end with its status, {command!r} did not ({self.where})")
            said = said[: status.start()]
            refused = status[1] != "0"
        else:
            refused = self._dialect.refusal.search(said) is not None
        if refused:
            words = printable(said)
            kind = SwitchUnreachable if _BUSY.search(said) else SwitchRefused
            raise kind(f"the switch refused {command!r}: {words} ({self.where})")
        return said

    def change(self, commands: list[str]) -> None:
        """Run the commands of one change, and what the dialect needs before and after them."""
        try:
            for command in (*self._dialect.enter(), *commands, *self._dialect.commit):
                self.ask(command)
        except SwitchError:
            for command in self._dialect.abandon:
                with contextlib.suppress(SwitchError):
                    self.ask(command)
            raise

    def _connected(self) -> netmiko.BaseConnection:
        access = self._access
        port = access.port or SSH_PORT
        link = socket.create_connection((access.address, port), timeout=self._left_s())
        self._open.callback(link.close)
        timer = threading.Timer(self._left_s(), _cut, [link])
        timer.daemon = True
        timer.start()
        self._open.callback(timer.cancel)
        name = access.address if port == SSH_PORT else f"[{access.address}]:{port}"
        known = self._open.enter_context(_file_of(f"{name} {access.host_key}\n"))
        limit_s = self._left_s()
        connection = netmiko.ConnectHandler(
            device_type=self._dialect.device_type, host=access.address, port=port, sock=link,
            username=access.username, password=access.password or None, pkey=_key(access.private_key),
            ssh_strict=True, alt_host_keys=True, alt_key_file=known,
            conn_timeout=limit_s, auth_timeout=limit_s, banner_timeout=limit_s, read_timeout_override=limit_s,
        )  # fmt: skip
        self._open.callback(_end, connection)
        return connection

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _translated(self, error: BaseException) -> BaseException:
        """The error of ours; defects and interruptions as they are."""
        words = printable(str(error)) or type(error).__name__
        if isinstance(error, SwitchError) or not isinstance(error, Exception):
            return error
        if isinstance(error, netmiko.NetmikoAuthenticationException):
            return SwitchRefused(f"the switch refused user {self._access.username!r} ({self.where})")
        if "host key" in words.lower() or "not found in known_hosts" in words or "does not match" in words:
            return SwitchRefused(f"the switch must have the SSH host key on record, it has another one ({self.where})")
        if time.monotonic() >= self._deadline or isinstance(error, TimeoutError | netmiko.exceptions.ReadTimeout):
            return SwitchUnreachable(f"the switch must answer within {self._timeout_s:g} s ({self.where})")
        if isinstance(
            error,
            OSError
            | EOFError
            | ValueError
            | paramiko.SSHException
            | netmiko.exceptions.NetmikoBaseException
            | netmiko.NetmikoTimeoutException,
        ):
            return SwitchUnreachable(f"the switch must answer over SSH: {words} ({self.where})")
        return error


def _key(text: str) -> paramiko.PKey | None:
    if not text:
        return None
    for kind in _KEY_TYPES:
        with contextlib.suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(io.StringIO(text))
    raise SwitchRefused("a switch's private key must be an OpenSSH key without passphrase, got something else")


@contextlib.contextmanager
def _file_of(text: str) -> Iterator[str]:
    """The name of a file that exists as long as it is needed."""
    with tempfile.NamedTemporaryFile("w", prefix="koguma-host-key-") as file:
        file.write(text)
        file.flush()
        yield file.name


def _cut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _end(connection: Any) -> None:
    """Close without netmiko's polite words, which wait for answers."""
    with contextlib.suppress(Exception):
        connection.remote_conn_pre.close()


def printable(text: str) -> str:
    """What a switch said, safe and short enough for a message."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]
