"""The root on two disks at once: software RAID 1 over a partition of each, as Linux itself does it.

Each disk boots by itself: only the root is in the array, and everything that a firmware reads is on both. An image
without mdadm could not start the array and is refused before anything is booted from it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage1.disk import tools

DEVICE = "/dev/md0"
SYNC_ACTION = Path("/sys/block/md0/md/sync_action")
MDADM = "sbin/mdadm"
DIGITS = 32


def create(partitions: list[str]) -> str:
    """The array's UUID; its device is DEVICE. Both halves are written from now on; that they are made equal where
    nothing was written goes on when the root has been copied and the machine runs.
    """
    tools.run(["modprobe", "-abq", "raid1"], 60.0)
    options = ["--run", "--level=1", "--metadata=1.2", "--bitmap=internal", "--homehost=any", "--name=koguma-root"]
    tools.run(["mdadm", "--create", DEVICE, *options, f"--raid-devices={len(partitions)}", *partitions], 120.0)
    with contextlib.suppress(OSError):
        SYNC_ACTION.write_text("frozen", encoding="ascii")
    return uuid_in(tools.run(["mdadm", "--detail", "--export", DEVICE], 60.0))


def stop() -> None:
    """Leave both halves marked clean."""
    tools.run(["mdadm", "--stop", DEVICE], 60.0)


def uuid_in(said: str) -> str:
    """Of what `mdadm --detail --export` said, in the form that blkid has for it."""
    for line in said.splitlines():
        key, _, value = line.partition("=")
        digits = value.strip().replace(":", "")
        if key == "MD_UUID" and len(digits) == DIGITS:
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    raise NodeError(f"the array must have a UUID, mdadm said {said[:200]!r}")


def require_mdadm(root: Path) -> None:
    if not (root / MDADM).exists():
        raise NodeError(f"an image for mirrored disks must have the package mdadm, /{MDADM} is not there")
