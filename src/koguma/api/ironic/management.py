"""What a node's BMC can do beside power: boot device, NMI, virtual media, BIOS settings, firmware.

A BMC is asked while the client waits, as Ironic does it. Hardware that exists on record only is its record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from koguma.api.ironic import checks
from koguma.api.ironic.http import NO_CONTENT, Request, Response, bad, missing, truth
from koguma.api.ironic.node_parts import change
from koguma.api.ironic.nodes import node_row
from koguma.contracts.errors import Unsupported
from koguma.contracts.management import BootChoice, BootDevice, ManagementDriver, MediaKind
from koguma.db.documents import Row
from koguma.db.lifecycle_store import access_of
from koguma.db.models import NodeRow
from koguma.drivers.power import open_management
from koguma.model.hardware import FAKE_HARDWARE
from koguma.model.names import shown

TIMEOUT_S = 30.0
BOOT_DEVICES = ("pxe", "disk", "cdrom", "bios", "safe", "wanboot", "floppy", "usb", "iscsiboot", "ramdisk", "uefihttp")
MEDIA = ("cdrom", "disk", "floppy")

T = TypeVar("T")


def _on_record(row: Row) -> bool:
    return bool(row["bmc_driver"] == FAKE_HARDWARE)


def _ask(row: Row, question: Callable[[ManagementDriver], T]) -> T:
    """The BMC's answer. Raises Refused for what it cannot do, PowerError for what it did not do."""
    access = access_of(NodeRow.objects.get(pk=row["id"]))
    if access is None:
        bad(f"Node {row['uuid']} has no BMC on record.")
    try:
        return question(open_management(access))
    except Unsupported as error:
        bad(str(error))


def show_boot_device(request: Request, reference: str) -> Response:
    request.only()
    row = node_row(reference, "bmc_driver", "boot_device")
    if _on_record(row):
        return Response(document=row["boot_device"] or {"boot_device": "pxe", "persistent": False})
    choice = _ask(row, lambda bmc: bmc.get_boot(timeout_s=TIMEOUT_S))
    device = choice.device.value if choice.device else None
    return Response(document={"boot_device": device, "persistent": choice.persistent if device else None})


def put_boot_device(request: Request, reference: str) -> Response:
    body = {**request.query, **request.document()}
    name, persistent = body.get("boot_device"), truth(body.get("persistent", False), "persistent")
    if name not in BOOT_DEVICES:
        bad(f"Invalid boot device {shown(name)} specified.")
    row = node_row(reference, "bmc_driver")
    if _on_record(row):
        change(reference, "boot_device", lambda _: {"boot_device": name, "persistent": persistent})
        return NO_CONTENT
    if name not in _names(BootDevice):
        bad(f"Invalid boot device {name} specified: a BMC takes {', '.join(_names(BootDevice))}.")
    _ask(row, lambda bmc: bmc.set_boot(BootChoice(BootDevice(str(name)), persistent), timeout_s=TIMEOUT_S))
    return NO_CONTENT


def supported_boot_devices(request: Request, reference: str) -> Response:
    request.only()
    row = node_row(reference, "bmc_driver")
    return Response(document={"supported_boot_devices": ["pxe"] if _on_record(row) else _names(BootDevice)})


def inject_nmi(request: Request, reference: str) -> Response:
    request.at_least(29)
    row = node_row(reference, "bmc_driver")
    if not _on_record(row):
        _ask(row, lambda bmc: bmc.inject_nmi(timeout_s=TIMEOUT_S))
    return NO_CONTENT


def list_media(request: Request, reference: str) -> Response:
    request.at_least(93)
    row = node_row(reference, "bmc_driver", "virtual_media")
    if _on_record(row):
        return Response(document={"vmedia": row["virtual_media"]})
    drives = _ask(row, lambda bmc: bmc.get_media(timeout_s=TIMEOUT_S))
    return Response(document={"vmedia": [{"device_type": item.kind.value, "image_url": item.url} for item in drives]})


def attach_media(request: Request, reference: str) -> Response:
    request.at_least(89)
    body = request.document()
    if unknown := sorted(set(body) - {"device_type", "image_url", "image_download_source"}):
        bad(f"virtual media have no {', '.join(unknown)}")
    kind = checks.one_of(*MEDIA)("device_type", body.get("device_type"))
    url = checks.text(2000, null=False, empty=False)("image_url", body.get("image_url"))
    row = node_row(reference, "bmc_driver")
    if _on_record(row):
        edit: Callable[[Any], Any] = lambda before: [*(item for item in before if item["device_type"] != kind), body]  # noqa: E731
        change(reference, "virtual_media", edit)
    elif kind not in _names(MediaKind):
        bad(f"a BMC has no virtual {kind}, only {', '.join(_names(MediaKind))}")
    else:
        _ask(row, lambda bmc: bmc.insert_media(MediaKind(kind), str(url), timeout_s=TIMEOUT_S))
    return NO_CONTENT


def detach_media(request: Request, reference: str) -> Response:
    request.at_least(89)
    kinds = [item for item in request.query.get("device_types", "").split(",") if item] or list(MEDIA)
    if wrong := [item for item in kinds if item not in MEDIA]:
        bad(f"Invalid device type(s) {', '.join(wrong)[:80]}, valid are {', '.join(MEDIA)}")
    row = node_row(reference, "bmc_driver")
    if _on_record(row):
        change(reference, "virtual_media", lambda before: [item for item in before if item["device_type"] not in kinds])
        return NO_CONTENT
    for kind in MediaKind:
        if kind.value in kinds:
            _ask(row, lambda bmc, kind=kind: bmc.eject_media(kind, timeout_s=TIMEOUT_S))  # type: ignore[misc]
    return NO_CONTENT


def show_bios(request: Request, reference: str) -> Response:
    request.at_least(40)
    return Response(document={"bios": _bios(node_row(reference, "bmc_driver", "bios_settings"))})


def show_bios_setting(request: Request, reference: str, name: str) -> Response:
    request.at_least(40)
    row = node_row(reference, "bmc_driver", "bios_settings")
    found = next((item for item in _bios(row) if item.get("name") == name), None)
    if found is None:
        missing(f"Node {row['uuid']} doesn't have a BIOS setting '{name[:80]}'")
    return Response(document={name: found})


def show_firmware(request: Request, reference: str) -> Response:
    request.at_least(86)
    row = node_row(reference, "bmc_driver", "firmware_components")
    if _on_record(row):
        return Response(document={"firmware": row["firmware_components"]})
    found = _ask(row, lambda bmc: bmc.get_firmware(timeout_s=TIMEOUT_S))
    components = [{"component": item.name, "initial_version": None, "current_version": item.version} for item in found]
    return Response(document={"firmware": components})


def _bios(row: Row) -> list[dict[str, Any]]:
    if _on_record(row):
        return list(row["bios_settings"])
    settings = _ask(row, lambda bmc: bmc.get_bios(timeout_s=TIMEOUT_S))
    return [{"name": name, "value": None if value is None else str(value)} for name, value in settings.current.items()]


def _names(kind: Any) -> list[str]:
    return [member.value for member in kind]
