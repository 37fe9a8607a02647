"""Makes the written root this node's: what it needs to know itself at every boot, and its rendered configuration.

    /var/lib/koguma/boot.env, detail.json   (0700) what stage 1 hands to stage 2 at other boots; the initramfs of a
                                            disk takes them to /run/koguma
    /etc/fstab                              the root and the ESP, by UUID

The renderer is the image's own, run inside the written root: all of it was verified before it was copied.
"""

from __future__ import annotations

import os
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage1.disk import tools
from koguma_stage1.disk.layout import Root

KEPT = "var/lib/koguma"
METHODS = "etc/koguma/root-methods"
FSTAB = """# Written by Koguma when this disk was deployed.
UUID={root_uuid} / ext4 defaults,errors=remount-ro 0 1
UUID={esp_uuid} /boot/efi vfat umask=0077,nofail 0 2
"""


def require_method(root: Path, method: str) -> None:
    """Raises NodeError when the image's initramfs was not made for this root method."""
    try:
        methods = (root / METHODS).read_text(encoding="utf-8").split()
    except OSError:
        methods = []
    if method not in methods:
        raise NodeError(
            f"an image for root method {method} must say so in /{METHODS}, before its initramfs is made;"
            f" got {' '.join(methods) or 'nothing'}"
        )


def settle(root: Path, boot_env: str, detail: str, made: Root) -> None:
    fstab = FSTAB.format(root_uuid=made.uuid, esp_uuid=made.esp_uuid)
    (root / "etc/fstab").write_text(fstab, encoding="ascii")
    (root / "boot/efi").mkdir(parents=True, exist_ok=True)
    kept = root / KEPT
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept.chmod(0o700)
    for name, text in (("boot.env", boot_env), ("detail.json", detail)):
        file = os.open(kept / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(text)
    tools.run(
        ["chroot", str(root), "/usr/bin/python3", "-I", "-S", "/usr/lib/koguma/run", "koguma_stage2.settle"], 120.0
    )
