"""The disks of this machine, as hints see them, once every driver has been loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from koguma_stage1 import hardware
from koguma_stage1.context import Context

DRIVERS_WAIT_S = 30.0
SETTLE_S = 10.0
"""A controller may show its disks some seconds after its driver was loaded."""
POLL_S = 0.1


def disks(context: Context) -> list[dict[str, Any]]:
    """Those of `hardware.disks` that can be written, with vendor, wwn and hctl. Empty when there is none."""
    end = time.monotonic() + DRIVERS_WAIT_S
    while not (context.work / "drivers-loaded").exists() and time.monotonic() < end:
        time.sleep(POLL_S)
    end = time.monotonic() + SETTLE_S
    while not (found := _disks()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return found


def _disks(sys: Path = hardware.SYS) -> list[dict[str, Any]]:
    return [
        {**disk, **_more(sys / "block" / disk["name"])}
        for disk in hardware.disks(sys)
        if disk["size_bytes"] and _text(sys / "block" / disk["name"] / "ro") != "1"
    ]


def _more(block: Path) -> dict[str, str]:
    wwn = _text(block / "device/wwid") or _text(block / "wwid")
    return {
        "vendor": _text(block / "device/vendor"),
        "wwn": wwn.removeprefix("naa.").removeprefix("eui."),
        "hctl": (block / "device").resolve().name,
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
