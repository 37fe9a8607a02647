"""Root file systems made elsewhere, committed: a directory, a tar, the layers of an OCI image, a disk image.

`sources` chooses; `streams` decompresses, `tarreader` reads, `grafting` builds the tree; `options` says what may come.
"""

from __future__ import annotations

from koguma.images.importing.options import Devices, ImportOptions, Limits, Repeated
from koguma.images.importing.sources import import_source, import_tar

__all__ = ["Devices", "ImportOptions", "Limits", "Repeated", "import_source", "import_tar"]
