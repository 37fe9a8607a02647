"""One conversation with QEMU over its monitor socket (QMP): commands, answers, and events in between."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Self

from koguma.lab.errors import LabError

TIMEOUT_S = 5


class Monitor:
    """Use it as a context. QEMU speaks with one at a time, so hold it for a moment only."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.settimeout(timeout_s)
        self._told: set[str] = set()
        """Events that came while an answer was awaited."""

    def __enter__(self) -> Self:
        try:
            self._channel.connect(str(self._path))
            self._stream = self._channel.makefile("rw", encoding="utf-8")
            self._stream.readline()  # the greeting
        except OSError as error:
            self._channel.close()
            raise LabError(f"a machine must be on to be asked anything: {error} ({self._path})") from error
        self.execute("qmp_capabilities")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._channel.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Its answer. LabError when QEMU refuses or goes away."""
        words = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._stream.write(json.dumps(words) + "\n")
            self._stream.flush()
            while "return" not in (message := self._message()):
                if "error" in message:
                    break
        except (OSError, ValueError) as error:
            raise LabError(f"QEMU must take {command}: {error} ({self._path})") from error
        if "error" in message:
            raise LabError(f"QEMU must take {command}: {message['error'].get('desc')} ({self._path})")
        return message["return"]

    def wait_for(self, event: str) -> None:
        """LabError when it does not happen within the time-out."""
        try:
            while event not in self._told:
                self._message()
        except (OSError, ValueError) as error:
            raise LabError(f"QEMU must tell {event}: {error} ({self._path})") from error

    def _message(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise OSError("QEMU closed the connection")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self._told.add(str(message["event"]))
        return message
