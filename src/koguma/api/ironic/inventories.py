"""What a machine told when it registered, as Ironic's agent would have told it; and what follows from an inventory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koguma.db.models import NodeRow


def of_registration(row: NodeRow) -> dict[str, Any]:
    """The inventory of a node that registered by itself, in the form of ironic-python-agent's."""
    kept = row.inventory
    cpu, boots = kept.get("cpu") or {}, next((port for port in row.ports.all() if port.boot), None)
    return {
        "bmc_address": row.bmc_address or None,
        "boot": {"current_boot_mode": row.firmware, "pxe_interface": boots.mac if boots else None},
        "cpu": {
            "architecture": row.architecture,
            "count": cpu.get("count"),
            "model_name": cpu.get("model") or None,
            "socket_count": cpu.get("sockets"),
        },
        "disks": [
            {
                "name": f"/dev/{disk['name']}",
                "size": disk["size_bytes"],
                "model": disk.get("model"),
                "serial": disk.get("serial"),
                "rotational": disk.get("rotational"),
            }
            for disk in kept.get("disks") or ()
        ],
        "interfaces": [
            {
                "name": port.name,
                "mac_address": port.mac,
                "has_carrier": port.link,
                "speed_mbps": port.speed_mbps,
                "driver": port.driver or None,
                "lldp": port.lldp,
            }
            for port in row.ports.all()
        ],
        "memory": {"total": kept.get("memory_bytes"), "physical_mb": (kept.get("memory_bytes") or 0) >> 20 or None},
        "system_vendor": {
            "manufacturer": row.manufacturer or None,
            "product_name": row.product or None,
            "serial_number": row.serial or None,
            "firmware": {"version": kept.get("bios_version") or None},
        },
    }


def properties_of(inventory: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler looks at: Ironic's `architecture`, `memory` and `boot-mode` hooks, and the number of CPUs."""
    found: dict[str, Any] = {}
    cpu, memory = _object(inventory, "cpu"), _object(inventory, "memory")
    if cpu.get("architecture"):
        found["cpu_arch"] = cpu["architecture"]
    if cpu.get("count"):
        found["cpus"] = cpu["count"]
    if memory.get("physical_mb"):
        found["memory_mb"] = memory["physical_mb"]
    return found


def boot_mode_of(inventory: Mapping[str, Any]) -> str | None:
    mode = _object(inventory, "boot").get("current_boot_mode")
    return mode if mode in ("bios", "uefi") else None


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}
