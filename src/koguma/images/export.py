"""Root images: a commit's tree as squashfs or erofs, the same bytes from the same tree every time.

squashfs is written straight from the packs (`squashfs`); mkfs.erofs reads directories only, so it gets a checkout.
squashfs has no place for POSIX ACLs and what else is in none of its namespaces: `attributes_lost` says which paths
lose some.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from hashlib import sha256
from itertools import chain
from pathlib import Path
from uuid import UUID

from koguma.images.checkout import checkout
from koguma.images.erofsorder import sort_attributes
from koguma.images.errors import ImageError
from koguma.images.files import made_whole, remove_tree
from koguma.images.objects import ObjectStore
from koguma.images.squashfs.image import write_image
from koguma.images.squashfs.layout import ATTRIBUTE_PREFIXES
from koguma.images.tools import run_tool
from koguma.images.trees import FILE, NORMAL_MTIME_NS, Entry, walk

FORMATS = ("squashfs", "erofs")
TIME_S = NORMAL_MTIME_NS // 10**9
_PAGE_BYTES = 4096

Progress = Callable[[int], None]


def export(
    store: ObjectStore,
    tree_id: str,
    root: Entry,
    image_format: str,
    output: Path,
    scratch: Path,
    progress: Progress | None = None,
    donor: Path | None = None,
) -> None:
    """Write the tree as a root image to `output`, which must not exist. `progress` is told the bytes taken in.

    `donor` is a squashfs made before that may share blocks with it (`squashfs.donors`).
    """
    check_output(output)
    if image_format not in FORMATS:
        raise ImageError(f"an export's format is one of {', '.join(FORMATS)}, got {image_format!r}")
    with made_whole(output) as making:
        if image_format == "squashfs":
            write_image(store, root, making, donor, progress)
        else:
            _erofs(store, tree_id, root, making, scratch)


def check_output(output: Path) -> None:
    """Refuse a place where nothing can be written; the tools that write would not name it."""
    if output.exists():
        raise ImageError(f"an export may not overwrite a file, got {str(output)!r}")
    if not output.absolute().parent.is_dir():
        raise ImageError(f"an export needs a directory to write to, there is none for {str(output)!r}")


def attributes_lost(store: ObjectStore, root: Entry) -> list[bytes]:
    """Paths with attributes that a squashfs cannot hold, ACLs for the most part."""
    found = chain(((b"", root),), walk(store.read, root))
    return [path for path, entry in found if not all(name.startswith(ATTRIBUTE_PREFIXES) for name, _ in entry.xattrs)]


def unpacked_size_bytes(store: ObjectStore, root: Entry) -> int:
    """What the tree takes in a tmpfs: every file once, rounded up to pages."""
    total, seen = 0, set()
    for _, entry in walk(store.read, root):
        if entry.kind == FILE and (not entry.link or entry.link not in seen):
            seen.add(entry.link)
            total += -(-entry.size // _PAGE_BYTES) * _PAGE_BYTES
    return total


def file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    digest, size = sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1024 * 1024):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _erofs(store: ObjectStore, tree_id: str, root: Entry, output: Path, scratch: Path) -> None:
    view = Path(tempfile.mkdtemp(prefix="erofs-", dir=scratch))
    try:
        tree = view / "root"
        checkout(store, root, tree)
        identity = str(UUID(hex=tree_id[:32]))
        run_tool(
            [
                "mkfs.erofs",
                "-zlz4",
                f"-T{TIME_S}",
                "--preserve-mtime",
                f"-U{identity}",
                "--quiet",
                str(output),
                str(tree),
            ]
        )
        sort_attributes(output)
    finally:
        remove_tree(view)
