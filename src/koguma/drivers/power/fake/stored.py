"""A fake machine that lives in two small JSON files, so that it outlives a worker and is the same to all of them.

    NAME.json         what the machine is; only drivers write it
    NAME.faults.json  {"delay_s": 0.5, "stuck": true, "failures": ["unreachable", "refused", "timeout"]}: how its BMC
                      misbehaves; written by whoever tests (`set_faults`), shortened by drivers as failures happen

NAME is the address. Every key may be missing. One node's calls come one at a time, so the last writer is the only one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from koguma.contracts.errors import PowerError, PowerRefused, PowerTimeout, PowerUnreachable
from koguma.contracts.management import (
    BootChoice,
    BootDevice,
    BootMode,
    FakeMachine,
    FirmwareUpdate,
    MediaKind,
    Progress,
)
from koguma.model.states import PowerState

FAILURES: Mapping[str, type[PowerError]] = {
    "unreachable": PowerUnreachable,
    "refused": PowerRefused,
    "timeout": PowerTimeout,
}


class StoredMachine(FakeMachine):
    """Reads its files at each call and writes after each change."""

    def __init__(self, directory: Path, address: str) -> None:
        super().__init__()
        self._directory = directory
        self._name = _file_name(address)

    def _answer(self, call: str, timeout_s: float) -> None:
        self._take_faults()
        super()._answer(call, timeout_s)
        self._load()

    def _changed(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(
            self._directory / f"{self._name}.json",
            {
                "power": self.state.value,
                "boot": [self.boot.device, self.boot.persistent, self.boot.mode],
                "media": {kind.value: url for kind, url in self.media.items()},
                "bios": self.bios,
                "pending_bios": self.pending_bios,
                "secure_boot": self.secure_boot,
                "updates": list(self.updates),
                "nmis": self.nmis,
                "resets": self.resets,
            },
        )

    def _load(self) -> None:
        stored = _read(self._directory / f"{self._name}.json")
        if not stored:
            return
        device, persistent, mode = stored["boot"]
        self.state = PowerState(stored["power"])
        self.boot = BootChoice(device and BootDevice(device), persistent, mode and BootMode(mode))
        self.media = {MediaKind(kind): url for kind, url in stored["media"].items()}
        self.updates = {url: FirmwareUpdate(Progress.DONE, 100) for url in stored["updates"]}
        self.bios, self.pending_bios = stored["bios"], stored["pending_bios"]
        self.secure_boot, self.nmis, self.resets = stored["secure_boot"], stored["nmis"], stored["resets"]

    def _take_faults(self) -> None:
        """This call's delay and failure; the failure is gone from the file then."""
        path = self._directory / f"{self._name}.faults.json"
        if not path.exists():
            self.delay_s, self.stuck, self.failures = 0.0, False, []
            return
        with _locked(self._directory):
            faults = _read(path)
            waiting = list(faults.get("failures", []))
            if waiting:
                _write(path, {**faults, "failures": waiting[1:]})
        self.delay_s, self.stuck = float(faults.get("delay_s", 0)), bool(faults.get("stuck"))
        self.failures = [FAILURES[kind](f"the BMC was told to fail: {kind} (fake)") for kind in waiting[:1]]


def set_faults(
    directory: Path, address: str, *, delay_s: float = 0.0, stuck: bool = False, failures: tuple[str, ...] = ()
) -> None:
    """Make the BMC at this address misbehave from its next call on, in whatever process."""
    if unknown := set(failures) - set(FAILURES):
        raise ValueError(f"a failure must be one of {', '.join(FAILURES)}, got {', '.join(sorted(unknown))}")
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        _write(
            directory / f"{_file_name(address)}.faults.json",
            {"delay_s": delay_s, "stuck": stuck, "failures": list(failures)},
        )


def _file_name(address: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\.[A-Za-z0-9_-]{1,99})*", address)
    return address if plain and len(address) < 200 else sha256(address.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return stored


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """In one piece; not made durable, for a machine that does not exist."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.rename(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / ".faults.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
