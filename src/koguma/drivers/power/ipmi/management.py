"""What IPMI can do beside power: boot device, reset, power cycle, NMI.

IPMI has no virtual media, BIOS settings, firmware inventory, firmware update or secure boot: those raise Unsupported.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from koguma.contracts.errors import PowerRefused, PowerTimeout, PowerUnreachable, Unsupported
from koguma.contracts.management import (
    BiosSettings,
    BiosValue,
    BootChoice,
    BootDevice,
    BootMode,
    Capability,
    FirmwareItem,
    FirmwareUpdate,
    Media,
    MediaKind,
)
from koguma.drivers.power.ipmi.driver import IpmiPower
from koguma.model.states import PowerState

_WORDS = {
    BootDevice.NETWORK: "pxe",
    BootDevice.DISK: "disk",
    BootDevice.CDROM: "cdrom",
    BootDevice.SETUP: "bios",
}
_SELECTORS = {1: BootDevice.NETWORK, 2: BootDevice.DISK, 5: BootDevice.CDROM, 6: BootDevice.SETUP}
"""Boot device selectors of the boot flags (IPMI 2.0, table 28-14, parameter 5)."""

_FLAGS = re.compile(r"Boot parameter data: ([0-9a-f]{10})\b", re.IGNORECASE)
_WITHOUT = re.compile(
    r"boot parameter \d+ failed|not supported|unsupported|invalid command|invalid data field|out of range", re.I
)
"""What ipmitool says when the BMC answers and does not have the thing at all."""

_KEEP_FLAGS = ["raw", "0x00", "0x08", "0x03", "0x08"]
"""Boot parameter 3: don't forget the flags when the machine is not restarted within a minute."""


class IpmiManagement(IpmiPower):
    """The same BMC, with all else that it can do."""

    capabilities = frozenset({Capability.BOOT_DEVICE, Capability.RESET, Capability.NMI})

    def get_boot(self, *, timeout_s: float) -> BootChoice:
        flags = self._boot_flags(timeout_s)
        device = _SELECTORS.get(_selector(flags))
        if not flags[0] & 0x80 or device is None:
            return BootChoice(None)
        return BootChoice(device, bool(flags[0] & 0x40), BootMode.UEFI if flags[0] & 0x20 else BootMode.BIOS)

    def set_boot(self, choice: BootChoice, *, timeout_s: float) -> None:
        deadline = self._clock() + timeout_s
        if choice.device is BootDevice.HTTP:
            raise Unsupported(f"an IPMI boot device must be one of {', '.join(_WORDS)}, got {choice.device}")
        word = _WORDS[choice.device] if choice.device else "none"
        wishes = {"persistent": choice.persistent, "efiboot": choice.mode is BootMode.UEFI}
        options = ",".join(option for option, wished in wishes.items() if wished)
        with self._having("boot device"):
            with contextlib.suppress(PowerRefused):
                self._run(_KEEP_FLAGS, timeout_s)
            self._run(
                ["chassis", "bootdev", word, *([f"options={options}"] if options else [])],
                self._left(deadline),
            )
        # The device alone is compared: BMCs differ in when they call the flags valid, and simple ones keep no more.
        now = _SELECTORS.get(_selector(self._boot_flags(self._left(deadline))))
        if now is not choice.device:
            raise PowerTimeout(f"the boot device must read back as {choice.device}, it is {now} ({self._place})")

    def reset(self, *, timeout_s: float) -> None:
        deadline = self._clock() + timeout_s
        self._require_on("reset", timeout_s)
        self._run(["chassis", "power", "reset"], self._left(deadline))

    def power_cycle(self, *, timeout_s: float) -> None:
        """Off and on as two commands: a cycle of the BMC's own ends before anybody could see it."""
        deadline = self._clock() + timeout_s
        self.set_power_state(PowerState.OFF, timeout_s=timeout_s)
        self.set_power_state(PowerState.ON, timeout_s=self._left(deadline))

    def inject_nmi(self, *, timeout_s: float) -> None:
        deadline = self._clock() + timeout_s
        self._require_on("interrupted", timeout_s)
        with self._having("NMI"):
            self._run(["chassis", "power", "diag"], self._left(deadline))

    def get_media(self, *, timeout_s: float) -> tuple[Media, ...]:
        self._lacks(Capability.VIRTUAL_MEDIA)

    def insert_media(self, kind: MediaKind, url: str, *, timeout_s: float) -> None:
        self._lacks(Capability.VIRTUAL_MEDIA)

    def eject_media(self, kind: MediaKind, *, timeout_s: float) -> None:
        self._lacks(Capability.VIRTUAL_MEDIA)

    def get_bios(self, *, timeout_s: float) -> BiosSettings:
        self._lacks(Capability.BIOS)

    def set_bios(self, settings: Mapping[str, BiosValue], *, timeout_s: float) -> None:
        self._lacks(Capability.BIOS)

    def reset_bios(self, *, timeout_s: float) -> None:
        self._lacks(Capability.BIOS)

    def get_firmware(self, *, timeout_s: float) -> tuple[FirmwareItem, ...]:
        self._lacks(Capability.FIRMWARE)

    def start_firmware_update(self, url: str, *, timeout_s: float) -> str:
        self._lacks(Capability.FIRMWARE_UPDATE)

    def get_firmware_update(self, task: str, *, timeout_s: float) -> FirmwareUpdate:
        self._lacks(Capability.FIRMWARE_UPDATE)

    def get_secure_boot(self, *, timeout_s: float) -> bool:
        self._lacks(Capability.SECURE_BOOT)

    def set_secure_boot(self, on: bool, *, timeout_s: float) -> None:
        self._lacks(Capability.SECURE_BOOT)

    def _boot_flags(self, timeout_s: float) -> bytes:
        """Boot parameter 5: five bytes."""
        with self._having("boot device"):
            output = self._run(["chassis", "bootparam", "get", "5"], timeout_s)
        match = _FLAGS.search(output)
        if match is None:
            raise PowerUnreachable(f"the BMC must answer with its boot flags, it did not ({self._place})")
        return bytes.fromhex(match[1])

    @contextlib.contextmanager
    def _having(self, what: str) -> Iterator[None]:
        """A BMC that does not know the thing is Unsupported; one that refuses the user, or is away, is as ever."""
        try:
            yield
        except (PowerRefused, PowerUnreachable) as error:
            if _WITHOUT.search(str(error)):
                raise Unsupported(f"the BMC must have a {what}: {error}") from None
            raise

    def _lacks(self, capability: Capability) -> NoReturn:
        raise Unsupported(f"{capability} needs a BMC that speaks Redfish, this one speaks IPMI ({self._place})")

    def _require_on(self, done: str, timeout_s: float) -> None:
        state = self.get_power_state(timeout_s=timeout_s)
        if state is not PowerState.ON:
            raise PowerRefused(f"a machine must be on to be {done}, it is {state.value!r} ({self._place})")


def _selector(flags: bytes) -> int:
    return flags[1] >> 2 & 0xF
