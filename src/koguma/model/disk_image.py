"""A whole-disk image of others that a machine's disk is filled with instead of a commit. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koguma.errors import KogumaError

_SHA256 = re.compile(r"[0-9a-f]{64}")
FORMATS = ("raw", "qcow2")


class BadDiskImage(KogumaError):
    """What a node's instance_info says of its image cannot be followed."""


@dataclass(frozen=True)
class DiskImage:
    """Where an image is, in which form, and what it must be."""

    url: str
    """http:// or https://; of an image that the site prepared, its place below the boot service's `/artifacts/`."""
    sha256: str
    size_bytes: int | None
    """None where nobody said."""
    format: str = "raw"

    @property
    def is_ready(self) -> bool:
        """Whether a machine can write it as it comes: stage 1 speaks HTTP, and reads no format."""
        return self.format == "raw" and self.size_bytes is not None and not self.url.startswith("https://")

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "sha256": self.sha256, "size_bytes": self.size_bytes, "format": self.format}


def wanted_image(info: Mapping[str, Any]) -> DiskImage | None:
    """What Ironic's instance_info names by URL; None when it names none. Raises BadDiskImage."""
    url = str(info.get("image_source") or "")
    if not url.startswith(("http://", "https://")):
        return None
    digest = info.get("image_os_hash_value") if info.get("image_os_hash_algo") == "sha256" else None
    sha256 = str(digest or info.get("image_checksum") or "").lower()
    if not _SHA256.fullmatch(sha256):
        raise BadDiskImage(f"an image by URL needs its SHA-256, got {sha256!r} (instance_info.image_os_hash_value)")
    size = info.get("image_size_bytes")
    if size is not None and (type(size) is not int or size < 1):
        raise BadDiskImage(f"an image's size must be a number of bytes, got {size!r} (instance_info.image_size_bytes)")
    kind = str(info.get("image_disk_format") or "raw")
    if kind not in FORMATS:
        raise BadDiskImage(f"an image must be {' or '.join(FORMATS)}, got {kind!r} (instance_info.image_disk_format)")
    return DiskImage(url, sha256, size, kind)
