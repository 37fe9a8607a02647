"""Makes the disk boot by itself: GRUB for BIOS and for UEFI, both reading one grub.cfg beside the commit's own kernel.

The GRUB images were made when stage 1 was built (`koguma.images.stage1_disks`): each knows only that its files are in
`/grub` of the second partition. For BIOS, GRUB is three pieces that find each other by sector numbers:

    sector 0            boot.img    its first 440 bytes; at 0x5c the sector (8 bytes) where core.img begins
    BIOS partition      core.img    first sector: at 0x1f4 the sector (8 bytes) where the rest of it begins
"""

from __future__ import annotations

import shutil
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage1.disk.layout import BIOS, Disk

IMAGES = Path("/usr/lib/koguma/grub")
BOOT_CODE_BYTES = 440
CORE_SECTOR_AT = 0x5C
REST_SECTOR_AT = 0x1F4
CORE_BYTES_MAX = 1024 * 1024
CONFIGURATION = """set default=0
set timeout=0
menuentry "Koguma: {title}" {{
    linux /koguma/kernel {command_line}
    initrd /koguma/initrd
}}
"""


def install(disk: Disk, esp: Path, kernel: Path, initrd: Path, command_line: str, title: str) -> None:
    """`esp` is the mounted FAT partition. Raises NodeError for a command line that grub.cfg cannot hold."""
    for folder in ("grub", "koguma", "EFI/BOOT"):
        (esp / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kernel, esp / "koguma/kernel")
    shutil.copyfile(initrd, esp / "koguma/initrd")
    (esp / "grub/grub.cfg").write_text(configuration(command_line, title), encoding="ascii")
    shutil.copyfile(IMAGES / "BOOTX64.EFI", esp / "EFI/BOOT/BOOTX64.EFI")
    install_bios(disk, IMAGES)


def configuration(command_line: str, title: str) -> str:
    """grub.cfg. Its language expands `$`, quotes and braces: an argument with one of those is refused."""
    if not command_line.isascii() or any(char in command_line for char in "$\"'\\{};`|&<>\n"):
        raise NodeError(f"kernel arguments of a disk must be plain words, got {command_line!r} (profile)")
    plain = "".join(char for char in title if char.isascii() and (char.isalnum() or char in " ._-/"))
    return CONFIGURATION.format(title=plain, command_line=command_line)


def install_bios(disk: Disk, images: Path) -> None:
    start = disk.start_sector(BIOS)
    core = core_at((images / "core.img").read_bytes(), start)
    with open(disk.device, "r+b", buffering=0) as file:  # noqa: PTH123 - unbuffered
        file.seek(start * 512)
        file.write(core + bytes(-len(core) % 512))
        # The partition table is in the same sector: only the boot code before it is written.
        file.seek(0)
        sector = bytearray(file.read(512))
        sector[:BOOT_CODE_BYTES] = boot_code((images / "boot.img").read_bytes(), start)
        file.seek(0)
        file.write(sector)


def core_at(core: bytes, start: int) -> bytes:
    if not 512 < len(core) <= CORE_BYTES_MAX:
        raise NodeError(f"GRUB's core image must fit the BIOS partition, got {len(core)} bytes")
    return core[:REST_SECTOR_AT] + (start + 1).to_bytes(8, "little") + core[REST_SECTOR_AT + 8 :]


def boot_code(boot: bytes, start: int) -> bytes:
    return boot[:CORE_SECTOR_AT] + start.to_bytes(8, "little") + boot[CORE_SECTOR_AT + 8 : BOOT_CODE_BYTES]
