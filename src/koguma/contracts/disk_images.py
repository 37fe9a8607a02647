"""DiskImages: makes of an image by URL one that a machine can write to its disk as it comes."""

from __future__ import annotations

from typing import Protocol

from koguma.model.disk_image import DiskImage


class DiskImages(Protocol):
    def ready(self, image: DiskImage) -> DiskImage:
        """The same content, raw, of known size and digest, served by the boot service. Made once and kept; takes
        minutes. Raises KogumaError; one with `retry` when the same may succeed later.
        """
