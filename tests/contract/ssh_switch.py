"""An SSH server for tests whose shell is a switch's command line: it echoes, prompts and keeps a running configuration
as the real ones do, and refuses what it does not know.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Protocol

import paramiko

USER, PASSWORD = "koguma", "s3cretpw1"


class CommandLine(Protocol):
    """One vendor's."""

    ports: tuple[str, ...]

    def reset(self) -> None:
        """Back to what the factory made it."""

    def open(self) -> object:
        """What is remembered of one session."""

    def prompt(self, session: object) -> str: ...

    def run(self, session: object, line: str) -> str:
        """What the switch says; a text that ends with a newline, or nothing."""


class SshSwitch:
    """Serves on loopback until `close`. `mute` makes it take commands without an answer."""

    def __init__(self, command_line: CommandLine) -> None:
        self.command_line = command_line
        self.mute = False
        self.key = paramiko.RSAKey.generate(2048)
        self.client_key: paramiko.PKey | None = None
        self.commands: list[str] = []
        self.logins = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = False
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def host_key(self) -> str:
        return f"{self.key.get_name()} {self.key.get_base64()}"

    def close(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while not self._stopped:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        transport = paramiko.Transport(link)
        self._transports.append(transport)
        transport.add_server_key(self.key)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=_Login(self))
            channel = transport.accept(20)
            if channel is not None:
                self._talk(channel)
        transport.close()

    def _talk(self, channel: paramiko.Channel) -> None:
        session = self.command_line.open()
        channel.sendall(self.command_line.prompt(session).replace("\n", "\r\n").encode())
        pending = ""
        while data := channel.recv(4096):
            pending += data.decode().replace("\r\n", "\n").replace("\r", "\n")
            while "\n" in pending:
                line, _, pending = pending.partition("\n")
                if line.strip():
                    self.commands.append(line.strip())
                said = self.command_line.run(session, line.strip()) if line.strip() else ""
                answer = f"{line}\n{said}{self.command_line.prompt(session)}"
                if not self.mute:
                    channel.sendall(answer.replace("\n", "\r\n").encode())


class _Login(paramiko.ServerInterface):
    def __init__(self, switch: SshSwitch) -> None:
        self._switch = switch

    def get_allowed_auths(self, username: str) -> str:
        return "password,publickey"

    def check_auth_password(self, username: str, password: str) -> int:
        self._switch.logins += 1
        right = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == USER and key == self._switch.client_key
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return True

    def check_channel_pty_request(self, *args: object) -> bool:
        return True
