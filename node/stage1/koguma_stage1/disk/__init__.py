"""Disks of the machine: which are the root's, how they are divided, written, made bootable and emptied.

Used by the steps of the modes deploy and clean only. The tools they call (sfdisk, mke2fs, cp …) are in an
initramfs of their own, `disks`, which no other boot loads (docs/decisions/node-disk-boot.md).
"""
