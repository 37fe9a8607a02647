"""What the kernel and the firmware's tables say about this machine, as `register` wants it.

Firmware tables are full of placeholders ("To be filled by O.E.M."); what means nothing is given as an empty string.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from koguma_node import command

SYS = Path("/sys")
PROC = Path("/proc")
DMIDECODE_TIMEOUT_S = 10.0
PLACEHOLDERS = {"", "none", "not specified", "default string", "to be filled by o.e.m.", "system serial number", "0"}
VIRTUAL_DISKS = ("loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd")
UNITS = {"kB": 1024, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


def identity(sys: Path = SYS) -> dict[str, str]:
    dmi = sys / "class/dmi/id"
    return {
        "serial": _known(dmi / "product_serial"),
        "manufacturer": _known(dmi / "sys_vendor"),
        "product": _known(dmi / "product_name"),
        "bios_version": _known(dmi / "bios_version"),
        "firmware": "uefi" if (sys / "firmware/efi").is_dir() else "bios",
        "architecture": os.uname().machine,
    }


def cpu(proc: Path = PROC) -> dict[str, Any]:
    text = _text(proc / "cpuinfo")
    models = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    sockets = set(re.findall(r"^physical id\s*: (\d+)$", text, re.MULTILINE))
    return {"model": models[0] if models else "", "count": max(1, len(models)), "sockets": max(1, len(sockets))}


def memory_bytes(proc: Path = PROC) -> int:
    """The sum of the memory devices in the firmware's table, or else what the kernel can use."""
    try:
        table = command.run(["dmidecode", "-q", "-t", "17"], DMIDECODE_TIMEOUT_S).stdout
    except Exception:
        table = ""
    return installed_memory_bytes(table) or _kernel_memory_bytes(proc)


def installed_memory_bytes(table: str) -> int:
    """The sum of the sizes in `dmidecode -t 17`; 0 when it names none."""
    sizes = re.findall(r"^\s*Size: (\d+) ([kKMGT]B)$", table, re.MULTILINE)
    return sum(int(number) * UNITS[unit] for number, unit in sizes)


def disks(sys: Path = SYS) -> list[dict[str, Any]]:
    found = []
    for block in sorted((sys / "block").glob("*")):
        if block.name.startswith(VIRTUAL_DISKS) or not (block / "device").exists():
            continue
        found.append(
            {
                "name": block.name,
                "size_bytes": int(_text(block / "size") or 0) * 512,
                "model": _text(block / "device/model"),
                "serial": _text(block / "device/serial") or _text(block / "serial") or _page_80(block),
                "rotational": _text(block / "queue/rotational") == "1",
            }
        )
    return found


def ports(boot_mac: str, sys: Path = SYS) -> list[dict[str, Any]]:
    """Physical NICs; `boot` is the one the machine was booted from."""
    found = []
    for nic in sorted((sys / "class/net").glob("*")):
        if not (nic / "device").exists():
            continue
        speed = _text(nic / "speed")
        mac = _text(nic / "address").lower()
        found.append(
            {
                "name": nic.name,
                "mac": mac,
                "driver": _driver(nic),
                "link": _text(nic / "carrier") == "1",
                "speed_mbps": int(speed) if speed.isdigit() and int(speed) > 0 else None,
                "boot": mac == boot_mac,
                "lldp": None,
            }
        )
    return found


def _kernel_memory_bytes(proc: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _driver(nic: Path) -> str:
    link = nic / "device/driver"
    return link.resolve().name if link.exists() else ""


def _page_80(block: Path) -> str:
    """The serial of a SCSI disk: vital product data page 0x80, four bytes of head, then text."""
    try:
        return (block / "device/vpd_pg80").read_bytes()[4:].decode("ascii", "replace").strip("\0 ")
    except OSError:
        return ""


def _known(path: Path) -> str:
    text = _text(path)
    return "" if text.lower() in PLACEHOLDERS else text


def _text(path: Path) -> str:
    """A sysfs attribute; empty when it is not there or the driver refuses to tell, as `speed` without a link does."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
