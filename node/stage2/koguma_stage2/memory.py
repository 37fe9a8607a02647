"""The RAM ledger of this machine: what the image costs, what the writable layer has taken, what is left."""

from __future__ import annotations

import os
from pathlib import Path

from koguma_stage2 import places


def figures(root: Path = Path("/")) -> dict[str, int]:
    values = _meminfo(root / "proc/meminfo")
    overlay_used, overlay_size = _used_and_size(root / places.OVERLAY[1:])
    return {
        "total_bytes": values.get("MemTotal", 0),
        "available_bytes": values.get("MemAvailable", 0),
        "image_bytes": _image_bytes(root),
        "overlay_used_bytes": overlay_used,
        "overlay_size_bytes": overlay_size,
    }


def _image_bytes(root: Path) -> int:
    """What the tmpfs of the image holds: the compressed image, or the files copied from NFS; 0 for a local root."""
    for place in (places.IMAGE, places.LOWER):
        path = root / place[1:]
        if path.is_mount() and _is_writable_kind(path):
            return _used_and_size(path)[0]
    return 0


def _is_writable_kind(path: Path) -> bool:
    """Whether a tmpfs is mounted there: a mounted squashfs has no free blocks and no room for inodes."""
    room = os.statvfs(path)
    return room.f_bfree > 0 or room.f_ffree > 0


def _used_and_size(path: Path) -> tuple[int, int]:
    try:
        room = os.statvfs(path)
    except OSError:
        return 0, 0
    return (room.f_blocks - room.f_bfree) * room.f_frsize, room.f_blocks * room.f_frsize


def _meminfo(path: Path) -> dict[str, int]:
    values = {}
    for line in path.read_text(encoding="ascii").splitlines():
        key, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            values[key] = int(rest.split()[0]) * 1024
    return values
