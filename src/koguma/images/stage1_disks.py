"""Stage 1's third initramfs, `disks`: the tools that divide, fill and empty disks, and GRUB for both firmwares.

Loaded only by boots that write or clean a disk, so that no other boot downloads it. Like the rest of stage 1 it is
taken out of extracted Debian packages. Called by `koguma.images.stage1`.
"""

from __future__ import annotations

from pathlib import Path

from koguma.images import stage1_contents
from koguma.images.tools import run_tool

PACKAGES = (
    "coreutils", "util-linux", "fdisk", "e2fsprogs", "dosfstools", "grub-common", "grub-pc-bin", "grub-efi-amd64-bin",
)  # fmt: skip
PROGRAMS = ("sbin/sfdisk", "sbin/mke2fs", "sbin/mkfs.fat", "sbin/wipefs", "sbin/blkdiscard")
CP = "bin/cp"
"""Busybox's keeps no extended attributes: this one goes beside it, under Koguma's own library."""
GRUB = "usr/lib/koguma/grub"
MODULES = ("part_gpt", "fat", "normal", "linux", "configfile", "echo", "minicmd")
"""What a GRUB needs to read its configuration from a FAT partition and start Linux."""
IMAGES = (
    # In the BIOS, "(," is completed with the disk that the firmware booted; UEFI knows the partition it loaded from.
    ("i386-pc", "core.img", "(,gpt2)/grub", ("biosdisk",)),
    ("x86_64-efi", "BOOTX64.EFI", "/grub", ("all_video", "efi_gop")),
)


def lay_out_disks(packages: Path, system: Path, target: Path) -> None:
    """Into `target`, without what `system`, which every boot has, brings already."""
    (target / "usr/lib").mkdir(parents=True, exist_ok=True)
    stage1_contents.copy_programs(packages, (*PROGRAMS, CP), target)
    (target / "usr/lib/koguma").mkdir(exist_ok=True)
    (target / f"usr/{CP}").rename(target / "usr/lib/koguma/cp")
    _make_grub(packages, target / GRUB)
    stage1_contents.remove_what_is_in(system, target)


def _make_grub(packages: Path, target: Path) -> None:
    """The images are made by the packages' own grub-mkimage, so that modules and tool are of one version."""
    target.mkdir(parents=True)
    for platform, name, prefix, modules in IMAGES:
        command = ["chroot", str(packages), "/usr/bin/grub-mkimage", f"--format={platform}", f"--prefix={prefix}"]
        run_tool([*command, f"--output=/{name}", "--compression=auto", *MODULES, *modules])
        (packages / name).rename(target / name)
    (target / "boot.img").write_bytes((packages / "usr/lib/grub/i386-pc/boot.img").read_bytes())
