"""qcow2 images of strangers: made raw by qemu-img, which must not be led to files other than the image.

The header, big-endian: magic 4 bytes, version 4, offset of the backing file's name 8, its length 4, cluster bits 4,
virtual size 8, encryption method 4; from version 3 on, incompatible features 8 at byte 72.
"""

from __future__ import annotations

from pathlib import Path

from koguma.images.errors import LimitError, TreeError
from koguma.images.tools import run_tool

MAGIC = b"QFI\xfb"
HEADER_BYTES = 80
_EXTERNAL_DATA = 1 << 2
_MEMORY_BYTES = 2 << 30
"""What qemu-img may take: a header may ask for tables of any size."""


def require_whole(path: Path, size_max: int, remedy: str) -> None:
    """Raises TreeError for an image that would make qemu-img read other files, or that is encrypted, and LimitError,
    which names the remedy, for a disk of more than `size_max` bytes.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < 72 or not header.startswith(MAGIC):
        raise TreeError(f"a qcow2 image must have its header, got {header[:4]!r} and {len(header)} bytes ({path})")
    version, backing_at, size, encryption = (
        int.from_bytes(header[at : at + length], "big") for at, length in ((4, 4), (8, 8), (24, 8), (32, 4))
    )
    features = int.from_bytes(header[72:80], "big") if version >= 3 else 0
    if version not in (2, 3) or backing_at or features & _EXTERNAL_DATA:
        raise TreeError(
            "a qcow2 image must be whole in one file, got one with a backing or data file;"
            f" qemu-img convert makes it whole ({path})"
        )
    if encryption:
        raise TreeError(f"a qcow2 image must not be encrypted, got method {encryption} ({path})")
    if size > size_max:
        raise LimitError(f"an image may have a disk of {size_max} bytes, got {size}; {remedy} ({path})")


def make_raw(path: Path, target: Path, *, timeout_s: float = 3600) -> None:
    """Convert an image that `require_whole` let pass; holes stay holes. Raises ToolError."""
    limited = ["prlimit", f"--as={_MEMORY_BYTES}", "--"]
    run_tool([*limited, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(target)], timeout_s=timeout_s)
