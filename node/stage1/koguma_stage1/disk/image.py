"""Writes a raw whole-disk image to a disk while it comes in, and lets nothing boot it that has another digest.

The first MiB (partition table, boot code) is kept in memory until the whole image is verified; until then, and after
a failure, the disk has none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from koguma_node.download import Download
from koguma_node.errors import NodeError, UnverifiedError

from koguma_stage1.disk import tools
from koguma_stage1.disk.layout import Disk

HEAD_BYTES = 1024 * 1024
RESUMES_MAX = 5


class _Held:
    """A file to which everything but its first HEAD_BYTES is written at once."""

    def __init__(self, descriptor: int) -> None:
        self.head = bytearray()
        self._descriptor = descriptor
        self._position = 0

    def write(self, part: memoryview) -> int:
        count = len(part)
        if self._position < HEAD_BYTES:
            count = min(count, HEAD_BYTES - self._position)
            self.head += part[:count]
        else:
            count = os.pwrite(self._descriptor, part, self._position)
        self._position += count
        return count


def write(disk: Disk, image: dict[str, Any], deadline: float) -> None:
    """`image` has url, sha256, size_bytes and format. Raises NodeError, or UnverifiedError for other content."""
    if image["format"] != "raw":
        raise NodeError(f"a disk image must be raw, got {image['format']!r} (profile)")
    sectors = int(Path(f"/sys/class/block/{disk.name}/size").read_text(encoding="ascii"))
    if image["size_bytes"] > sectors * 512:
        raise NodeError(f"the image has {image['size_bytes']} bytes, {disk.name} has room for {sectors * 512}")
    name = "image"
    descriptor = os.open(disk.device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        held = _Held(descriptor)
        digest = Download(image["url"], name, image["size_bytes"], deadline).run(held, RESUMES_MAX)  # type: ignore[arg-type]
        if digest != image["sha256"]:
            raise UnverifiedError(f"{name}: SHA-256 must be {image['sha256']}, got {digest} ({image['url']})")
        os.fsync(descriptor)
        os.pwrite(descriptor, held.head, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    tools.run(["sfdisk", "--quiet", "--verify", disk.device], 60.0)
