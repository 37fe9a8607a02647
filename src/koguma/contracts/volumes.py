"""VolumeDriver: what the lifecycle asks of a storage that machines boot from, and a stateful fake.

A volume is shown to one machine at a time, over iSCSI with CHAP. `tests/contract/test_volumes.py` holds every driver,
the fake included, to what is said here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from koguma.contracts.errors import VolumeError, VolumeRefused
from koguma.model.volume import Target

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_INITIATOR = re.compile(r"iqn\.\d{4}-\d{2}\.[a-z0-9.:-]{1,200}")
SECRET = re.compile(r"[A-Za-z0-9]{12,16}")
"""A CHAP secret: the lengths that every initiator takes."""


@dataclass(frozen=True)
class VolumeAccess:
    """How to reach one storage."""

    driver: str
    address: str
    """For `tgt` the directory of the volumes, on the host of the worker; for `cinder` the name of a cloud."""
    portal: str = ""
    """`HOST:PORT`, where machines find it; empty where the storage says it itself."""


@dataclass(frozen=True)
class Initiator:
    """The machine that a volume is shown to. The secret is stored sealed and handed out as this plain value."""

    name: str
    """Its iSCSI qualified name."""
    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Volume:
    name: str
    size_bytes: int
    initiator: str | None = None
    """Who it is shown to."""


class VolumeDriver(Protocol):
    """One storage. Every call ends within about its timeout and raises VolumeError otherwise; `retry` on the error
    tells whether the same call may succeed later. Asking for what is so already changes nothing.
    """

    def volumes(self, *, timeout_s: float) -> Mapping[str, Volume]: ...

    def create(self, name: str, source: Path, size_bytes: int, *, timeout_s: float) -> Volume:
        """Ensure that the volume exists, with the content of `source` at its beginning; copied on write where the
        storage can. One that exists keeps its content. Raises VolumeRefused for one of another size.
        """

    def show(self, name: str, initiator: Initiator, *, timeout_s: float) -> Target:
        """Ensure that this machine, and no other, can log in to the volume, as the target says: with the initiator's
        user and secret, or with what the storage chose. Raises VolumeRefused while it is shown to another: two
        machines on one file system destroy it. A new secret counts after the volume was hidden.
        """

    def hide(self, name: str, *, timeout_s: float) -> None:
        """Ensure that nobody can reach the volume; whoever is logged in is cut off. Content stays."""

    def delete(self, name: str, *, timeout_s: float) -> None:
        """Ensure that the volume is gone. Raises VolumeRefused while it is shown."""


@dataclass(frozen=True)
class VolumeImage:
    """What a volume is made of: a file system that holds a commit's root."""

    commit: str
    path: Path


class VolumeSite(Protocol):
    """The storage that a site keeps its nodes' roots on."""

    @property
    def size_bytes(self) -> int:
        """Of a volume whose flavor does not say."""

    def driver(self) -> VolumeDriver: ...

    def image_of(self, label: str, size_bytes: int) -> VolumeImage:
        """Made when it is not there yet, which takes about a minute. Raises KogumaError when the label cannot be
        booted.
        """


OpenVolumes = Callable[[VolumeAccess], VolumeDriver]
"""Makes the driver that `VolumeAccess.driver` names. Raises UnknownVolumeDriver."""


def require_name(name: str, place: str) -> None:
    if not _NAME.fullmatch(name):
        raise VolumeRefused(
            f"a volume's name must be 1 to 63 lower-case letters, digits, dots and hyphens, got {name[:80]!r} ({place})"
        )


def require_initiator(initiator: Initiator, place: str) -> None:
    if not _INITIATOR.fullmatch(initiator.name):
        raise VolumeRefused(
            f"an initiator must have a name like iqn.2026-01.x:y, got {initiator.name[:80]!r} ({place})"
        )
    if not SECRET.fullmatch(initiator.secret) or not _NAME.fullmatch(initiator.user):
        raise VolumeRefused(f"a CHAP secret must be 12 to 16 letters and digits, and its user a name ({place})")


def require_free(volume: Volume | None, name: str, initiator: str | None, place: str) -> Volume:
    """A volume that exists and is shown to nobody, or to this initiator. Raises VolumeRefused."""
    if volume is None:
        raise VolumeRefused(f"a volume must exist, got {name!r} ({place})")
    if volume.initiator not in {None, initiator}:
        raise VolumeRefused(f"a volume must be hidden first, {name!r} is shown to {volume.initiator} ({place})")
    return volume


class FakeVolumes:
    """A storage that exists in memory only. `failures` are raised, one for each call, before anything else."""

    def __init__(self) -> None:
        self.found: dict[str, Volume] = {}
        self.failures: list[VolumeError] = []
        self.calls: list[str] = []
        self._lock = threading.Lock()

    def volumes(self, *, timeout_s: float) -> Mapping[str, Volume]:
        self._answer("volumes", timeout_s)
        return dict(self.found)

    def create(self, name: str, source: Path, size_bytes: int, *, timeout_s: float) -> Volume:
        self._answer(f"create {name} of {source}", timeout_s)
        require_name(name, "fake")
        volume = self.found.setdefault(name, Volume(name, size_bytes))
        if volume.size_bytes != size_bytes:
            raise VolumeRefused(f"volume {name!r} must have {size_bytes} bytes, it has {volume.size_bytes} (fake)")
        return volume

    def show(self, name: str, initiator: Initiator, *, timeout_s: float) -> Target:
        self._answer(f"show {name} to {initiator.name}", timeout_s)
        require_initiator(initiator, "fake")
        volume = require_free(self.found.get(name), name, initiator.name, "fake")
        self.found[name] = replace(volume, initiator=initiator.name)
        return Target("192.0.2.1:3260", f"iqn.2026-01.fake:{name}", 1, initiator.user, initiator.secret)

    def hide(self, name: str, *, timeout_s: float) -> None:
        self._answer(f"hide {name}", timeout_s)
        if name in self.found:
            self.found[name] = replace(self.found[name], initiator=None)

    def delete(self, name: str, *, timeout_s: float) -> None:
        self._answer(f"delete {name}", timeout_s)
        if name in self.found:
            require_free(self.found[name], name, None, "fake")
            del self.found[name]

    def _answer(self, call: str, timeout_s: float) -> None:
        with self._lock:
            self.calls.append(f"{call} within {timeout_s:g} s")
            failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure
