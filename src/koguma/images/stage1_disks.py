"""Stage 1's third initramfs, `disks`: the tools that divide, fill and empty disks, and GRUB for both firmwares.

Loaded only by boots that write or clean a disk, so that no other boot downloads it. Like the rest of stage 1 it is
taken out of extracted Debian packages. Called by `koguma.images.stage1`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from koguma.images import stage1_contents
from koguma.images.tools import run_tool

PACKAGES = (
    "coreutils", "util-linux", "fdisk", "e2fsprogs", "dosfstools", "mdadm", "grub-common", "grub-pc-bin",
    "grub-efi-amd64-bin",
)  # fmt: skip
PROGRAMS = ("sbin/sfdisk", "sbin/mke2fs", "sbin/mkfs.fat", "sbin/wipefs", "sbin/blkdiscard", "sbin/mdadm")
CP = "bin/cp"
"""Busybox's keeps no extended attributes: this one goes beside it, under Koguma's own library."""
GRUB = "usr/lib/koguma/grub"
MODULES = ("part_gpt", "fat", "normal", "linux", "configfile", "echo", "minicmd")
"""What a GRUB needs to read its configuration from a FAT partition and start Linux."""
SEARCH = ("search", "search_label", "search_fs_file", "chain")
LOCAL = """search --no-floppy --label --set=root KOGUMA-ESP
if [ -n "$root" ]; then configfile ($root)/grub/grub.cfg; fi
search --no-floppy --file --set=root /EFI/BOOT/BOOTX64.EFI
chainloader ($root)/EFI/BOOT/BOOTX64.EFI
boot
"""
"""What `local.efi` does: the disk that Koguma wrote, or else any disk's own loader, for a foreign image."""
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


def make_local_loader(packages: Path, target: Path) -> None:
    """GRUB that UEFI machines get from the network to boot their disk: leaving iPXE would try the network once more."""
    platform, _, prefix, modules = IMAGES[1]
    configuration = packages / "local.cfg"
    configuration.write_text(LOCAL, encoding="ascii")
    _make_image(packages, platform, prefix, (*modules, *SEARCH), target, f"--config=/{configuration.name}")


def _make_image(
    packages: Path, platform: str, prefix: str, modules: tuple[str, ...], target: Path, *options: str
) -> None:
    """By the packages' own grub-mkimage, so that modules and tool are of one version."""
    command = ["chroot", str(packages), "/usr/bin/grub-mkimage", f"--format={platform}", f"--prefix={prefix}", *options]
    run_tool([*command, f"--output=/{target.name}", "--compression=auto", *MODULES, *modules])
    shutil.move(packages / target.name, target)


def _make_grub(packages: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for platform, name, prefix, modules in IMAGES:
        _make_image(packages, platform, prefix, modules, target / name)
    (target / "boot.img").write_bytes((packages / "usr/lib/grub/i386-pc/boot.img").read_bytes())
