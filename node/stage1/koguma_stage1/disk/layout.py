"""How the root's disk, or each of two, is divided: GPT, bootable by BIOS and by UEFI.

1  koguma-bios    1 MiB     BIOS boot partition: GRUB's core image
2  koguma-esp     512 MiB   FAT: GRUB for UEFI, its configuration, kernel and initramfs
3  config-2       64 MiB    FAT: the config drive (always there, so that the others keep their numbers)
4  koguma-root    the rest  ext4: the root, or half of the array it is on
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage1.disk import mirror, tools

BIOS, ESP, CONFIG, ROOT = 1, 2, 3, 4
LINUX, RAID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "A19D880F-05FC-4D3B-A006-743F0F84911E"
TABLE = """label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=koguma-bios
size=512MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=koguma-esp
size=64MiB, type={linux}, name=config-2
type={root_type}, name=koguma-root
"""
APPEAR_S = 10.0


class Disk:
    """One disk by its kernel name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = f"/dev/{name}"

    def partition(self, number: int) -> str:
        return f"{self.device}{'p' if self.name[-1].isdigit() else ''}{number}"

    def start_sector(self, number: int) -> int:
        """Where a partition begins, in sectors of 512 bytes."""
        path = Path(f"/sys/class/block/{Path(self.partition(number)).name}/start")
        return int(path.read_text(encoding="ascii"))


class Root:
    """Where the root file system was made, and what finds it again."""

    def __init__(self, device: str, uuid: str, esp_uuid: str) -> None:
        self.device = device
        self.uuid = uuid
        self.esp_uuid = esp_uuid
        self.mirror = ""
        """UUID of the array it is on; empty where it is on one disk."""

    def kernel_arguments(self) -> str:
        words = f"koguma.root=UUID={self.uuid}"
        return f"{words} koguma.mirror={self.mirror}" if self.mirror else words


def erase(disk: Disk, timeout_s: float) -> None:
    """Overwrite the disk with zeros, by its own command for that where it has one: the next user reads nothing of the
    last one's. What a disk merely discards, it may still show.
    """
    empty(disk)
    tools.run(["blkdiscard", "--force", "--zeroout", disk.device], timeout_s)


def empty(disk: Disk) -> None:
    """Let nothing find anything on the disk: its blocks are discarded where it can, and all signatures go."""
    for partition in sorted(Path("/dev").glob(f"{disk.name}?*"), reverse=True):
        tools.run(["wipefs", "--all", "--force", str(partition)], 60.0)
    with contextlib.suppress(NodeError):  # many disks cannot; what follows is enough to make them say nothing
        tools.run(["blkdiscard", "--force", disk.device], 600.0)
    tools.run(["wipefs", "--all", "--force", disk.device], 60.0)
    _zero_ends(disk)


def divide(disks: list[Disk]) -> Root:
    """Make partitions and file systems; the root is mirrored where there is more than one disk, the rest is on each."""
    root_uuid, esp_id = _new_uuid(), secrets.token_hex(4).upper()
    for disk in disks:
        table = TABLE.format(linux=LINUX, root_type=RAID if len(disks) > 1 else LINUX)
        tools.run(["sfdisk", "--quiet", "--wipe", "always", disk.device], 60.0, text=table)
        _wait_for(disk.partition(ROOT))
        tools.run(["mkfs.fat", "-F", "32", "-i", esp_id, "-n", "KOGUMA-ESP", disk.partition(ESP)], 60.0)
        tools.run(["mkfs.fat", "-n", "config-2", disk.partition(CONFIG)], 60.0)
    root = Root(disks[0].partition(ROOT), root_uuid, f"{esp_id[:4]}-{esp_id[4:]}")
    if len(disks) > 1:
        root.mirror = mirror.create([disk.partition(ROOT) for disk in disks])
        root.device = mirror.DEVICE
    # Nothing of the inode tables is written now: the kernel does that when the machine has time.
    options = ["-q", "-F", "-t", "ext4", "-L", "koguma-root", "-U", root_uuid, "-E", "lazy_itable_init=1,nodiscard"]
    tools.run(["mke2fs", *options, root.device], 300.0)
    return root


def _new_uuid() -> str:
    """The kernel's own: Python's module for them is larger than all of this package."""
    return Path("/proc/sys/kernel/random/uuid").read_text(encoding="ascii").strip()


def _zero_ends(disk: Disk) -> None:
    """The first and the last MiB: boot code, partition tables and their copies, RAID superblocks."""
    size = int(Path(f"/sys/class/block/{disk.name}/size").read_text(encoding="ascii")) * 512
    with open(disk.device, "r+b", buffering=0) as file:  # noqa: PTH123 - unbuffered
        for position in (0, max(0, size - 1024 * 1024)):
            file.seek(position)
            file.write(bytes(min(size, 1024 * 1024)))


def _wait_for(device: str) -> None:
    end = time.monotonic() + APPEAR_S
    while not Path(device).exists():
        if time.monotonic() >= end:
            raise NodeError(f"a partition must appear within {APPEAR_S:g} s of being made ({device})")
        time.sleep(0.05)
