"""The lab's processes: started detached, recorded by pid and start time, found again and ended.

A record is `<home>/pids/<name>.json`. A pid alone would be a lie after a restart of the machine or a wrap of the pid
counter, so a record holds the start time too and counts only while both agree. Every process also carries MARKER in
its environment, and so do all its descendants: `stray` finds what no record names.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from koguma.lab.command import PATH
from koguma.lab.errors import LabError, ProcessDiedError

MARKER = "KOGUMA_LAB_HOME"
"""Environment variable of every process of a lab: the lab's directory."""

SPAWN = 'umask 022; log="$1"; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
"""The shell starts the program in the background and ends, so that the program's parent is init, which reaps it."""

_HEAL_S = 0.02
_EXEC_S = 0.5
"""How long a process may show no environment because it executes another program just then: microseconds, unless the
processors are busy."""
_GENERATIONS = 10
"""How often what was started while its parent was ended is looked for."""


@dataclass(frozen=True)
class Record:
    """One process, for certain: no other process ever has both the same pid and the same start time."""

    pid: int
    started: int
    """In clock ticks since the kernel started."""

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the kernel did; None if there is none or only its corpse."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


class Processes:
    """The processes of one lab."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._dir = home / "pids"

    @property
    def mark(self) -> dict[str, str]:
        """What of its environment makes a process, and all its descendants, the lab's."""
        return {MARKER: str(self._home)}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Record:
        """Start a program detached from the caller, unless it runs already."""
        if running := self.running(name):
            return running
        log.parent.mkdir(parents=True, exist_ok=True)
        started = subprocess.run(
            ["sh", "-c", SPAWN, "spawn", str(log), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            start_new_session=True,
            cwd=cwd or self._home,
            env={**os.environ, **(environ or {}), "PATH": PATH, **self.mark},
        )
        pid = int(started.stdout)
        ticks = start_time(pid)
        if ticks is None:
            raise ProcessDiedError(f"{name} ended as soon as it was started; its log: {log}")
        record = Record(pid, ticks)
        self._write(name, record)
        return record

    def running(self, name: str) -> Record | None:
        """The record of a process that is alive."""
        record = self._read(self._dir / f"{name}.json")
        return record if record and record.alive else None

    def recorded(self, name: str) -> bool:
        """Whether the lab started this process and has not stopped it since, dead or alive."""
        return (self._dir / f"{name}.json").exists()

    def require(self, name: str, log: Path) -> None:
        """ProcessDiedError when a process is not there any more."""
        if self.running(name) is None:
            raise ProcessDiedError(f"{name} ended unexpectedly; {_last_words(log)}")

    def stop(self, name: str, *, term_s: float = 5, kill_s: float = 5) -> None:
        """End one process by its record: TERM, then KILL. Harmless when it is gone."""
        record = self._read(self._dir / f"{name}.json")
        if record:
            end([record], term_s=term_s, kill_s=kill_s)
        (self._dir / f"{name}.json").unlink(missing_ok=True)

    def stop_all(self) -> None:
        """End all recorded processes and then all that carry the lab's mark."""
        records = [record for path in self._paths() if (record := self._read(path))]
        end(records, term_s=3, kill_s=5)
        for _ in range(_GENERATIONS):
            if not (strays := self.stray()):
                break
            end(strays, term_s=2, kill_s=5)
        else:
            left = ", ".join(f"{record.pid} ({program_of(record.pid)})" for record in self.stray())
            raise LabError(f"what the lab started must end, still there or started again: {left}")
        for path in self._paths():
            path.unlink(missing_ok=True)

    def stray(self) -> list[Record]:
        """Every living process that was started by this lab, or by a process that was, whoever is its parent now."""
        mark = f"{MARKER}={self._home}".encode()
        deadline = time.monotonic() + _EXEC_S
        found, unsure = [], _pids()
        while True:
            environments = {pid: _environment(pid) for pid in unsure}
            found += [pid for pid, environ in environments.items() if environ and mark in environ]
            unsure = [pid for pid, environ in environments.items() if environ is None]
            if not unsure or time.monotonic() > deadline:
                break
            time.sleep(_HEAL_S)
        return records_of(found)

    def _paths(self) -> list[Path]:
        return sorted(self._dir.glob("*.json"))

    def _write(self, name: str, record: Record) -> None:
        write_atomically(self._dir / f"{name}.json", json.dumps({"pid": record.pid, "started": record.started}) + "\n")

    @staticmethod
    def _read(path: Path) -> Record | None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Record(int(values["pid"]), int(values["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a record cut short by a crash names nobody; `stray` still finds its process


def records_of(pids: Iterable[int]) -> list[Record]:
    """Records of the living among these pids, never of the caller."""
    own = os.getpid()
    return [Record(pid, ticks) for pid in pids if pid != own and (ticks := start_time(pid)) is not None]


def program_of(pid: int) -> str:
    """The name of a process's program, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def end(records: Sequence[Record], *, term_s: float, kill_s: float) -> None:
    """TERM to all, wait, KILL to those that remain, wait; LabError when even that does not end one."""
    for number, patience_s in ((signal.SIGTERM, term_s), (signal.SIGKILL, kill_s)):
        for record in records:
            if record.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, number)
        deadline = time.monotonic() + patience_s
        while any(record.alive for record in records):
            if time.monotonic() > deadline:
                break
            time.sleep(_HEAL_S)
        else:
            return
    left = ", ".join(str(record.pid) for record in records if record.alive)
    raise LabError(f"a process must end when it is killed, still there: {left}")


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: a reader sees the old text or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.chmod(mode)
    part.rename(path)


def _environment(pid: int) -> list[bytes] | None:
    """What a process was started with, NAME=VALUE each; None when it has a program but shows no environment."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
        return text.split(b"\0") if text or not Path(f"/proc/{pid}/exe").exists() else None
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _last_words(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    said = " / ".join(lines[-3:]) or "it said nothing"
    return f"its log {log} ends: {said}"
