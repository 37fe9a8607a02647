"""ManagementDriver: what a BMC can do beside power, and a stateful fake machine that can do all of it.

Power itself is `PowerDriver`; one BMC is opened as either. `tests/contract/test_management.py` holds every driver, the
fake included, to what is said here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from koguma.contracts.errors import PowerRefused
from koguma.contracts.power import Access, FakePower
from koguma.model.states import PowerState

BiosValue = str | int | float | bool | None


class Capability(StrEnum):
    """What a BMC may be able to do; a driver raises Unsupported for those that it does not name."""

    BOOT_DEVICE = "boot device"  # choose what the machine boots from
    RESET = "reset"  # reset at once, and power off and on again
    NMI = "inject nmi"  # make the operating system dump
    VIRTUAL_MEDIA = "virtual media"  # a disc image over the network
    BIOS = "bios settings"  # read and write the firmware's settings
    FIRMWARE = "firmware inventory"  # what firmware there is, in which version
    FIRMWARE_UPDATE = "firmware update"  # write firmware from a URL
    SECURE_BOOT = "secure boot"  # switch UEFI secure boot


class BootDevice(StrEnum):
    """What a machine boots from, by Ironic's names."""

    NETWORK = "pxe"
    DISK = "disk"
    CDROM = "cdrom"
    SETUP = "bios"
    HTTP = "uefihttp"


class BootMode(StrEnum):
    """How the firmware starts an operating system."""

    BIOS = "bios"
    UEFI = "uefi"


class MediaKind(StrEnum):
    """What a virtual disc looks like to the machine."""

    CDROM = "cdrom"
    DISK = "disk"


@dataclass(frozen=True)
class BootChoice:
    """What is booted next. `device` None: the firmware's own order, or the BMC does not tell; `mode` None: as the
    firmware is set, or the BMC does not tell.
    """

    device: BootDevice | None
    persistent: bool = False
    mode: BootMode | None = None


@dataclass(frozen=True)
class Media:
    """One virtual drive, and the URL of the image in it."""

    kind: MediaKind
    url: str | None


@dataclass(frozen=True)
class BiosSettings:
    """`pending` holds those that another value waits for until the next reset."""

    current: Mapping[str, BiosValue]
    pending: Mapping[str, BiosValue]


@dataclass(frozen=True)
class FirmwareItem:
    name: str
    version: str
    updateable: bool


class Progress(StrEnum):
    """How far a task of a BMC is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class FirmwareUpdate:
    progress: Progress
    percent: int | None = None
    message: str = ""


class ManagementDriver(Protocol):
    """One machine's BMC. Every call ends within about its timeout and raises PowerError otherwise: Unsupported for what
    it cannot do at all; `retry` on the error tells whether the same call may succeed later. Asking again for what is so
    already is harmless.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the driver can ask for; a particular BMC may still refuse."""

    def get_boot(self, *, timeout_s: float) -> BootChoice: ...

    def set_boot(self, choice: BootChoice, *, timeout_s: float) -> None:
        """Choose what is booted next, once or from now on. A `device` of None goes back to the firmware's own order."""

    def reset(self, *, timeout_s: float) -> None:
        """Reset the machine at once, without asking its operating system. Raises PowerRefused when it is off."""

    def power_cycle(self, *, timeout_s: float) -> None:
        """Power off at once and on again; returns when the BMC confirms that it is on."""

    def inject_nmi(self, *, timeout_s: float) -> None:
        """Raises PowerRefused when the machine is off."""

    def get_media(self, *, timeout_s: float) -> tuple[Media, ...]: ...

    def insert_media(self, kind: MediaKind, url: str, *, timeout_s: float) -> None:
        """Ensure that the image is in the drive, in place of another one."""

    def eject_media(self, kind: MediaKind, *, timeout_s: float) -> None: ...

    def get_bios(self, *, timeout_s: float) -> BiosSettings: ...

    def set_bios(self, settings: Mapping[str, BiosValue], *, timeout_s: float) -> None:
        """Wish for settings; they hold after the next reset. Raises PowerRefused for a name the firmware lacks."""

    def reset_bios(self, *, timeout_s: float) -> None:
        """Wish for the settings the machine left the factory with; they hold after the next reset."""

    def get_firmware(self, *, timeout_s: float) -> tuple[FirmwareItem, ...]: ...

    def start_firmware_update(self, url: str, *, timeout_s: float) -> str:
        """Tell the BMC to fetch an image and write it where it belongs. Returns the BMC's name of the task."""

    def get_firmware_update(self, task: str, *, timeout_s: float) -> FirmwareUpdate: ...

    def get_secure_boot(self, *, timeout_s: float) -> bool: ...

    def set_secure_boot(self, on: bool, *, timeout_s: float) -> None:
        """Wish for secure boot to be on or off; it is so after the next reset."""


OpenManagement = Callable[[Access], ManagementDriver]
"""Makes the driver that `Access.driver` names. Raises UnknownDriver, or Unsupported for a driver that knows power
only.
"""


class FakeMachine(FakePower):
    """A machine and its BMC that exist in memory only: FakePower, with all the rest a BMC can do.

    `failures`, `delay_s` and `stuck` hold for these calls, too.
    """

    capabilities = frozenset(Capability)

    def __init__(self, state: PowerState = PowerState.OFF, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(state, sleep)
        self.boot = BootChoice(None, mode=BootMode.UEFI)
        self.media: dict[MediaKind, str | None] = dict.fromkeys(MediaKind)
        self.factory_bios: dict[str, BiosValue] = {"BootMode": "Uefi", "NumaEnabled": True, "QuietBoot": True}
        self.bios = dict(self.factory_bios)
        self.pending_bios: dict[str, BiosValue] = {}
        self.firmware = (FirmwareItem("BIOS", "1.0", True), FirmwareItem("BMC", "2.1", True))
        self.updates: dict[str, FirmwareUpdate] = {}
        self.secure_boot = False
        self.nmis = 0
        self.resets = 0

    def get_boot(self, *, timeout_s: float) -> BootChoice:
        self._answer("get boot", timeout_s)
        return self.boot

    def set_boot(self, choice: BootChoice, *, timeout_s: float) -> None:
        self._answer(f"boot {choice.device or 'as usual'} {'always' if choice.persistent else 'once'}", timeout_s)
        self.boot = BootChoice(choice.device, choice.persistent and bool(choice.device), choice.mode or self.boot.mode)
        self._changed()

    def reset(self, *, timeout_s: float) -> None:
        self._answer("reset", timeout_s)
        self._require_power("reset")
        self.resets += 1
        self._start()
        self._changed()

    def power_cycle(self, *, timeout_s: float) -> None:
        self._answer("cycle", timeout_s)
        self._become(PowerState.OFF)
        self._become(PowerState.ON)

    def inject_nmi(self, *, timeout_s: float) -> None:
        self._answer("nmi", timeout_s)
        self._require_power("interrupted")
        self.nmis += 1
        self._changed()

    def get_media(self, *, timeout_s: float) -> tuple[Media, ...]:
        self._answer("get media", timeout_s)
        return tuple(Media(kind, url) for kind, url in self.media.items())

    def insert_media(self, kind: MediaKind, url: str, *, timeout_s: float) -> None:
        self._answer(f"insert {kind} {url}", timeout_s)
        self.media[kind] = url
        self._changed()

    def eject_media(self, kind: MediaKind, *, timeout_s: float) -> None:
        self._answer(f"eject {kind}", timeout_s)
        self.media[kind] = None
        self._changed()

    def get_bios(self, *, timeout_s: float) -> BiosSettings:
        self._answer("get bios", timeout_s)
        return BiosSettings(dict(self.bios), dict(self.pending_bios))

    def set_bios(self, settings: Mapping[str, BiosValue], *, timeout_s: float) -> None:
        self._answer(f"bios {', '.join(sorted(settings))}", timeout_s)
        if unknown := sorted(set(settings) - set(self.bios)):
            raise PowerRefused(f"a BIOS setting must be one the firmware has, got {', '.join(unknown)} (fake)")
        wished = {**self.pending_bios, **settings}
        self.pending_bios = {name: value for name, value in wished.items() if self.bios[name] != value}
        self._changed()

    def reset_bios(self, *, timeout_s: float) -> None:
        self._answer("reset bios", timeout_s)
        self.pending_bios = {name: value for name, value in self.factory_bios.items() if self.bios.get(name) != value}
        self._changed()

    def get_firmware(self, *, timeout_s: float) -> tuple[FirmwareItem, ...]:
        self._answer("get firmware", timeout_s)
        return self.firmware

    def start_firmware_update(self, url: str, *, timeout_s: float) -> str:
        self._answer(f"update {url}", timeout_s)
        self.updates[url] = FirmwareUpdate(Progress.DONE, 100)
        self._changed()
        return url

    def get_firmware_update(self, task: str, *, timeout_s: float) -> FirmwareUpdate:
        self._answer(f"get update {task}", timeout_s)
        if task not in self.updates:
            raise PowerRefused(f"a task must be one the BMC knows, got {task[:80]!r} (fake)")
        return self.updates[task]

    def get_secure_boot(self, *, timeout_s: float) -> bool:
        self._answer("get secure boot", timeout_s)
        return self.secure_boot

    def set_secure_boot(self, on: bool, *, timeout_s: float) -> None:
        self._answer(f"secure boot {'on' if on else 'off'}", timeout_s)
        self.secure_boot = on
        self._changed()

    def _require_power(self, done: str) -> None:
        if self.state is not PowerState.ON:
            raise PowerRefused(f"a machine must be on to be {done}, it is {self.state.value!r} (fake)")

    def _become(self, target: PowerState) -> None:
        if target is PowerState.ON and self.state is not target:
            self._start()
        changed = self.state is not target
        super()._become(target)
        if changed:
            self._changed()

    def _changed(self) -> None:
        """The machine is another now; one that is stored somewhere is written there."""

    def _start(self) -> None:
        """What happens when the firmware starts: pending settings hold, and a choice for once is used up."""
        self.bios.update(self.pending_bios)
        self.pending_bios = {}
        if not self.boot.persistent:
            self.boot = BootChoice(None, mode=self.boot.mode)
