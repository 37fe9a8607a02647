"""The Debian packages the lab needs, in one place, and which of their programs are missing.

`python -m koguma.lab.packages` prints the names one per line. Standard library only: it runs before the project's
own dependencies are installed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Looked into beside PATH, which lacks them for ordinary users."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "iproute2": ("ip",),
    "openvswitch-switch": ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-appctl"),
    "lldpd": ("lldpd", "lldpcli"),
    "openipmi": ("ipmi_sim",),
    "ipmitool": ("ipmitool",),
    "qemu-system-x86": ("qemu-system-x86_64",),
    "qemu-utils": ("qemu-img",),
    "ipxe-qemu": ("/usr/lib/ipxe/qemu/pxe-virtio.rom",),
    "ipxe": ("/usr/lib/ipxe/ipxe.efi", "/usr/lib/ipxe/undionly.kpxe"),
    "ovmf": ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    "dnsmasq-base": ("dnsmasq",),
    "nfs-ganesha": ("ganesha.nfsd",),
    "nfs-ganesha-vfs": (),
    "rpcbind": ("rpcbind",),
    "tgt": ("tgtd", "tgtadm"),
    "e2fsprogs": ("mke2fs",),
    "openssh-client": ("ssh",),
    "mmdebstrap": ("mmdebstrap",),
    "squashfs-tools": ("unsquashfs",),
    "erofs-utils": ("mkfs.erofs",),
    "cpio": ("cpio",),
    "zstd": ("zstd",),
}
"""Package -> what it must provide: programs on PATH, files by absolute path. The last four build the images."""


def find(program: str) -> str | None:
    """Where a program or file of PACKAGES is, or None."""
    if program.startswith("/"):
        return program if Path(program).is_file() else None
    return shutil.which(program) or shutil.which(program, path=":".join(SBIN))


def missing() -> dict[str, list[str]]:
    """The packages of which something is missing, with what is missing."""
    absent = {package: [item for item in items if find(item) is None] for package, items in PACKAGES.items()}
    return {package: items for package, items in absent.items() if items}


if __name__ == "__main__":
    sys.stdout.write("".join(f"{package}\n" for package in PACKAGES))
