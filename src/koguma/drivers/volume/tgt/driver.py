"""The tgt driver: a volume is a sparse file, a target of tgtd while it is shown to a machine.

    DIR/NAME.img      the volume; made under another name and renamed, so it is whole or not there
    DIR/tgtd          tgtd's control socket is DIR/tgtd.0, by its environment variable TGT_IPC_SOCKET=DIR/tgtd

tgtd keeps targets in memory: after its restart volumes are hidden, and `show` brings them back. tgtadm takes a CHAP
secret only as an argument, where users of the storage host can see it for a moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from koguma.contracts.errors import VolumeRefused, VolumeUnreachable
from koguma.contracts.volumes import (
    Initiator,
    Volume,
    VolumeAccess,
    require_free,
    require_initiator,
    require_name,
)
from koguma.model.volume import Target

PREFIX = "iqn.2026-01.koguma.volume:"
LUN = 1
_AWAY = re.compile(r"can't connect|not connected|refused|failed to (send|receive)|No such file|busy|in use", re.I)
_EXISTS = re.compile(r"already exists", re.I)


@dataclass(frozen=True)
class _Served:
    """A target of tgtd."""

    tid: int
    name: str
    initiators: tuple[str, ...]
    accounts: tuple[str, ...]
    connections: tuple[tuple[int, int], ...]
    """Session and connection ids."""
    whole: bool
    """Whether its disk is attached."""


class TgtVolumes:
    """The volumes in one directory."""

    def __init__(self, access: VolumeAccess, program: str = "tgtadm") -> None:
        self._directory = Path(access.address)
        self._portal = access.portal
        self._program = program
        self._place = f"storage {access.address}"

    def volumes(self, *, timeout_s: float) -> Mapping[str, Volume]:
        served = {target.name: target for target in self._served(time.monotonic() + timeout_s)}
        found = {}
        for path in sorted(self._directory.glob("*.img")):
            found[path.stem] = Volume(path.stem, path.stat().st_size, _initiator(served.get(path.stem)))
        return found

    def create(self, name: str, source: Path, size_bytes: int, *, timeout_s: float) -> Volume:
        require_name(name, self._place)
        path = self._path(name)
        if not path.exists():
            self._clone(source, path, size_bytes, time.monotonic() + timeout_s)
        size = path.stat().st_size
        if size != size_bytes:
            raise VolumeRefused(f"volume {name!r} must have {size_bytes} bytes, it has {size} ({self._place})")
        return self.volumes(timeout_s=timeout_s)[name]

    def show(self, name: str, initiator: Initiator, *, timeout_s: float) -> Target:
        deadline = time.monotonic() + timeout_s
        require_name(name, self._place)
        require_initiator(initiator, self._place)
        require_free(self.volumes(timeout_s=timeout_s).get(name), name, initiator.name, self._place)
        served = self._served(deadline)
        target = next((each for each in served if each.name == name), None)
        if target and not target.whole:
            # Cut short the last time: nobody was let in yet, so it begins again.
            self._end(target, deadline)
            target = None
        if target is None:
            self._serve(name, initiator, self._free_tid(served), deadline)
        return Target(self._portal, f"{PREFIX}{name}", LUN, initiator.user, initiator.secret)

    def hide(self, name: str, *, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        target = next((each for each in self._served(deadline) if each.name == name), None)
        if target:
            self._end(target, deadline)

    def delete(self, name: str, *, timeout_s: float) -> None:
        require_name(name, self._place)
        if self._path(name).exists():
            require_free(self.volumes(timeout_s=timeout_s).get(name), name, None, self._place)
            self._path(name).unlink(missing_ok=True)

    def _serve(self, name: str, initiator: Initiator, tid: int, deadline: float) -> None:
        """The machine is let in last, when the secret is asked for and the disk is there."""
        target = ("--tid", str(tid))
        self._run(["--mode", "target", "--op", "new", *target, "-T", f"{PREFIX}{name}"], deadline)
        path = str(self._path(name))
        self._run(["--mode", "logicalunit", "--op", "new", *target, "--lun", str(LUN), "-b", path], deadline)
        with self._no_matter_if_gone():
            self._run(["--mode", "account", "--op", "delete", "--user", initiator.user], deadline)
        account = ["--user", initiator.user, "--password", initiator.secret]
        self._run(["--mode", "account", "--op", "new", *account], deadline)
        self._run(["--mode", "account", "--op", "bind", *target, "--user", initiator.user], deadline)
        self._run(["--mode", "target", "--op", "bind", *target, "--initiator-name", initiator.name], deadline)

    def _end(self, target: _Served, deadline: float) -> None:
        """New logins are refused first; then sessions are cut and the target goes."""
        tid = ("--tid", str(target.tid))
        for initiator in target.initiators:
            with self._no_matter_if_gone():
                self._run(["--mode", "target", "--op", "unbind", *tid, "--initiator-name", initiator], deadline)
        for session, connection in target.connections:
            with self._no_matter_if_gone():
                ids = ["--sid", str(session), "--cid", str(connection)]
                self._run(["--mode", "conn", "--op", "delete", *tid, *ids], deadline)
        self._run(["--mode", "target", "--op", "delete", *tid, "--force"], deadline)
        for account in target.accounts:
            with self._no_matter_if_gone():
                self._run(["--mode", "account", "--op", "delete", "--user", account], deadline)

    def _clone(self, source: Path, path: Path, size_bytes: int, deadline: float) -> None:
        if not source.is_file() or source.stat().st_size > size_bytes:
            raise VolumeRefused(f"a volume must be made of a file that fits, got {source} ({self._place})")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._execute(["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(temporary)], deadline)
            with temporary.open("r+b") as file:
                file.truncate(size_bytes)
                os.fsync(file.fileno())
            temporary.chmod(0o600)
            temporary.rename(path)
        except OSError as error:
            raise VolumeUnreachable(f"a volume must be written: {error.strerror} ({self._place})") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _served(self, deadline: float) -> list[_Served]:
        text = self._run(["--mode", "target", "--op", "show"], deadline)
        blocks = re.split(r"(?m)^Target (\d+): (\S+)\s*$", text)[1:]
        return [
            _target(int(tid), name.removeprefix(PREFIX), block)
            for tid, name, block in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True)
        ]

    def _free_tid(self, served: list[_Served]) -> int:
        taken = {target.tid for target in served}
        return next(tid for tid in range(1, 1 << 15) if tid not in taken)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.img"

    @contextlib.contextmanager
    def _no_matter_if_gone(self) -> Iterator[None]:
        with contextlib.suppress(VolumeRefused):
            yield

    def _run(self, words: list[str], deadline: float) -> str:
        return self._execute([self._program, "--lld", "iscsi", *words], deadline)

    def _execute(self, argv: list[str], deadline: float) -> str:
        left_s = max(deadline - time.monotonic(), 0.1)
        environ = {**os.environ, "TGT_IPC_SOCKET": str(self._directory / "tgtd"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=left_s, check=False, env=environ,
                errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise VolumeUnreachable(f"the storage must answer within {left_s:.1f} s ({self._place})") from None
        except OSError as error:
            raise VolumeUnreachable(f"{argv[0]} must be installed on the worker: {error.strerror}") from None
        if done.returncode == 0:
            return done.stdout
        said = "".join(char if char.isprintable() else " " for char in done.stderr).strip()[:200]
        # Two that took the same free target id: the later one asks again.
        away = done.returncode < 0 or argv[0] == "cp" or _AWAY.search(said) or _EXISTS.search(said)
        kind = VolumeUnreachable if away else VolumeRefused
        raise kind(f"the storage must do {' '.join(argv[3:7])!r}: {said or 'it said nothing'} ({self._place})")


def _initiator(target: _Served | None) -> str | None:
    return ", ".join(target.initiators) or None if target else None


def _target(tid: int, name: str, block: str) -> _Served:
    """One target as tgtadm shows it: headings indented by four, what is under them by more."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in block.splitlines():
        if re.match(r" {4}\S", line):
            lines = parts.setdefault(line.strip().rstrip(":"), [])
        else:
            lines.append(line.strip())
    connections, session = [], 0
    for line in parts.get("I_T nexus information", []):
        if match := re.fullmatch(r"I_T nexus: (\d+)", line):
            session = int(match[1])
        elif match := re.fullmatch(r"Connection: (\d+)", line):
            connections.append((session, int(match[1])))
    initiators = tuple(line for line in parts.get("ACL information", []) if line)
    whole = f"LUN: {LUN}" in parts.get("LUN information", []) and bool(initiators)
    accounts = tuple(line.split()[0] for line in parts.get("Account information", []) if line)
    return _Served(tid, name, initiators, accounts, tuple(connections), whole)
