"""What a Redfish service can do beside power: boot device, reset, NMI, virtual media, BIOS settings, firmware and
secure boot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import sushy

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
    Progress,
)
from koguma.contracts.power import Access
from koguma.drivers.power.redfish.connection import Conversation, printable
from koguma.drivers.power.redfish.power import POLL_S, RedfishPower, power_of, reset
from koguma.model.states import PowerState

_SOURCES = {
    BootDevice.NETWORK: sushy.BootSource.PXE,
    BootDevice.DISK: sushy.BootSource.HDD,
    BootDevice.CDROM: sushy.BootSource.CD,
    BootDevice.SETUP: sushy.BootSource.BIOS_SETUP,
    BootDevice.HTTP: sushy.BootSource.UEFI_HTTP,
}
_DEVICES = {source: device for device, source in _SOURCES.items()}
_MODES = {BootMode.BIOS: sushy.BootSourceOverrideMode.LEGACY, BootMode.UEFI: sushy.BootSourceOverrideMode.UEFI}
_PROTOCOLS = {
    "http": sushy.UpdateTransferProtocolType.HTTP,
    "https": sushy.UpdateTransferProtocolType.HTTPS,
}
_FAILED = frozenset({"Exception", "Killed", "Cancelled", "Interrupted"})
_KINDS = {
    MediaKind.CDROM: {sushy.VIRTUAL_MEDIA_CD, sushy.VIRTUAL_MEDIA_DVD},
    MediaKind.DISK: {sushy.VIRTUAL_MEDIA_USBSTICK},
}


class RedfishManagement:
    """Each call is a conversation of its own."""

    capabilities = frozenset(Capability)

    def __init__(self, access: Access, sleep: Callable[[float], None] = time.sleep) -> None:
        self._access = access
        self._sleep = sleep

    def get_boot(self, *, timeout_s: float) -> BootChoice:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("tell the boot device"):
            return _boot_of(conversation.system())

    def set_boot(self, choice: BootChoice, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated(f"set the boot device {choice.device or 'to none'}"):
            system = conversation.system()
            enabled = (
                sushy.BootSourceOverrideEnabled.CONTINUOUS
                if choice.persistent
                else (sushy.BootSourceOverrideEnabled.ONCE)
            )
            if choice.device is None:
                system.set_system_boot_options(enabled=sushy.BootSourceOverrideEnabled.DISABLED, mode=_mode(choice))
            else:
                _require_advertised(system, _SOURCES[choice.device], conversation.where)
                system.set_system_boot_options(_SOURCES[choice.device], enabled=enabled, mode=_mode(choice))
            self._require_boot(conversation, system, choice, timeout_s)

    def reset(self, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("reset the machine"):
            system = conversation.system()
            _require_on(system, conversation.where, "reset")
            reset(system, (sushy.ResetType.FORCE_RESTART,))

    def power_cycle(self, *, timeout_s: float) -> None:
        """Off and on as two requests: what PowerCycle means differs between BMCs, and some call a reset so."""
        started = time.monotonic()
        power = RedfishPower(self._access, self._sleep)
        power.set_power_state(PowerState.OFF, timeout_s=timeout_s)
        left_s = timeout_s - (time.monotonic() - started)
        power.set_power_state(PowerState.ON, timeout_s=max(left_s, POLL_S))

    def inject_nmi(self, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("inject an NMI"):
            system = conversation.system()
            _require_on(system, conversation.where, "interrupted")
            reset(system, (sushy.ResetType.NMI,))

    def get_media(self, *, timeout_s: float) -> tuple[Media, ...]:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("list its virtual media"):
            found: dict[MediaKind, Media] = {}
            for drive in _drives(conversation.system()):
                for kind in _kinds_of(drive):
                    found.setdefault(kind, Media(kind, _image_in(drive)))
            return tuple(found.values())

    def insert_media(self, kind: MediaKind, url: str, *, timeout_s: float) -> None:
        if urlsplit(url).scheme not in {"http", "https", "nfs", "cifs"}:
            raise PowerRefused(f"virtual media must be an http, https, nfs or cifs URL, got {url[:120]!r}")
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated(f"insert the virtual {kind}"):
            drive = _drive(conversation, kind)
            if _image_in(drive) == url:
                return
            if drive.inserted:
                drive.eject_media()
            drive.insert_media(url)
            drive.refresh(force=True)
            if not drive.inserted:
                raise PowerTimeout(f"the virtual {kind} must be inserted, it is not ({conversation.where})")

    def eject_media(self, kind: MediaKind, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated(f"eject the virtual {kind}"):
            drive = _drive(conversation, kind)
            if not drive.inserted:
                return
            drive.eject_media()
            drive.refresh(force=True)
            if drive.inserted:
                raise PowerTimeout(f"the virtual {kind} must be ejected, it is not ({conversation.where})")

    def get_bios(self, *, timeout_s: float) -> BiosSettings:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("tell the BIOS settings"):
            bios = conversation.system().bios
            current = dict(bios.attributes or {})
            wished = dict(bios.pending_attributes or {})
            return BiosSettings(
                current, {name: value for name, value in wished.items() if current.get(name, value) != value}
            )

    def set_bios(self, settings: Mapping[str, BiosValue], *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("set BIOS settings"):
            bios = conversation.system().bios
            if unknown := sorted(set(settings) - set(bios.attributes or {})):
                raise PowerRefused(
                    f"a BIOS setting must be one the firmware has, got {', '.join(unknown)[:200]}"
                    f" ({conversation.where})"
                )
            bios.set_attributes(dict(settings))

    def reset_bios(self, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("reset the BIOS settings"):
            conversation.system().bios.reset_bios()

    def get_firmware(self, *, timeout_s: float) -> tuple[FirmwareItem, ...]:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("list its firmware"):
            inventory = conversation.root().get_update_service().firmware_inventory
            return tuple(
                FirmwareItem(item.name or item.identity, item.version or "", bool(item.updateable))
                for item in inventory.get_members()
            )

    def start_firmware_update(self, url: str, *, timeout_s: float) -> str:
        protocol = _PROTOCOLS.get(urlsplit(url).scheme)
        if protocol is None:
            raise PowerRefused(f"firmware must be an http or https URL, got {url[:120]!r}")
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("start a firmware update"):
            service = conversation.root().get_update_service()
            return str(service.simple_update(url, transfer_protocol=protocol).task_monitor_uri)

    def get_firmware_update(self, task: str, *, timeout_s: float) -> FirmwareUpdate:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("tell how far its firmware update is"):
            monitor = conversation.root().get_task_monitor(task)
            if monitor.is_processing:
                return FirmwareUpdate(Progress.RUNNING, monitor.task.percent_complete if monitor.task else None)
            told = monitor.response.json() if monitor.response.content else {}
            message = "; ".join(printable(each.get("Message", "")) for each in told.get("Messages") or ())[:200]
            failed = told.get("TaskState") in _FAILED or told.get("TaskStatus") == "Critical"
            return FirmwareUpdate(Progress.FAILED if failed else Progress.DONE, told.get("PercentComplete"), message)

    def get_secure_boot(self, *, timeout_s: float) -> bool:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("tell whether secure boot is on"):
            return bool(conversation.system().secure_boot.enabled)

    def set_secure_boot(self, on: bool, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated(f"switch secure boot {'on' if on else 'off'}"):
            secure_boot = conversation.system().secure_boot
            if bool(secure_boot.enabled) is on:
                return
            secure_boot.set_enabled(on)
            secure_boot.refresh(force=True)
            if bool(secure_boot.enabled) is not on:
                raise PowerTimeout(f"secure boot must read back as written, it does not ({conversation.where})")

    def _require_boot(self, conversation: Conversation, system: Any, choice: BootChoice, timeout_s: float) -> None:
        """Wait until the BMC reads back what was chosen: some need a moment, and some take it and forget it."""
        now = BootChoice(None)
        while True:
            try:
                with conversation.translated("tell the boot device"):
                    system.refresh(force=True)
                    now = _boot_of(system)
            except PowerUnreachable:
                # A question cut short by the deadline says nothing of the BMC: what it said last counts.
                if conversation.left_s > POLL_S:
                    raise
            if now.device is choice.device and choice.mode in {None, now.mode}:
                return
            if conversation.left_s <= POLL_S:
                raise PowerTimeout(
                    f"the boot device must read back as {choice.device} within {timeout_s:g} s, it is {now.device}"
                    f" ({conversation.where})"
                )
            self._sleep(POLL_S)


def _boot_of(system: Any) -> BootChoice:
    boot = system.boot
    mode = next((ours for ours, theirs in _MODES.items() if theirs is boot.mode), None)
    if boot.enabled not in {sushy.BootSourceOverrideEnabled.ONCE, sushy.BootSourceOverrideEnabled.CONTINUOUS}:
        return BootChoice(None, mode=mode)
    device = _DEVICES.get(boot.target)
    persistent = boot.enabled is sushy.BootSourceOverrideEnabled.CONTINUOUS
    return BootChoice(device, persistent and device is not None, mode)


def _mode(choice: BootChoice) -> sushy.BootSourceOverrideMode | None:
    return _MODES[choice.mode] if choice.mode else None


def _require_advertised(system: Any, source: sushy.BootSource, where: str) -> None:
    known = system.get_allowed_system_boot_source_values()
    if source not in known:
        words = ", ".join(sorted(each.value for each in known))
        raise Unsupported(f"the boot device must be one the BMC knows, which are {words}, got {source.value} ({where})")


def _require_on(system: Any, where: str, done: str) -> None:
    state = power_of(system, where)
    if state is not PowerState.ON:
        raise PowerRefused(f"a machine must be on to be {done}, it is {state.value!r} ({where})")


def _drives(system: Any) -> list[Any]:
    """Those of the system, or of the manager on older services."""
    try:
        return list(system.virtual_media.get_members())
    except sushy.exceptions.MissingAttributeError:
        return [drive for manager in system.managers for drive in manager.virtual_media.get_members()]


def _drive(conversation: Conversation, kind: MediaKind) -> Any:
    for drive in _drives(conversation.system()):
        if kind in _kinds_of(drive):
            return drive
    raise Unsupported(f"the BMC must have a virtual {kind}, it has none ({conversation.where})")


def _kinds_of(drive: Any) -> list[MediaKind]:
    return [kind for kind, theirs in _KINDS.items() if theirs & set(drive.media_types or ())]


def _image_in(drive: Any) -> str | None:
    return str(drive.image) if drive.inserted and drive.image else None
