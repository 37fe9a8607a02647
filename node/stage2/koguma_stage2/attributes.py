"""Extended attributes of a root that was copied over NFS, which carries none but a user's own.

The boot service lists them in a file at the top of the export; this sets them and removes the list: attributes ROOT.
Symbolic links are not followed: an attribute lands on the name that had it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

LIST = ".koguma-attributes"
"""One JSON array a line: path relative to the root, attribute, value; bytes as hexadecimal digits."""


def restore(root: Path) -> int:
    """Set what the list of this root says; returns how many. Raises ValueError for a path that leads elsewhere."""
    listed = root / LIST
    if not listed.exists():
        return 0
    count = 0
    for line in listed.read_text(encoding="ascii").splitlines():
        path, name, value = (bytes.fromhex(word) for word in json.loads(line))
        if path.startswith(b"/") or b".." in path.split(b"/"):
            raise ValueError(f"a path must lie in the root, got {path!r} ({LIST})")
        os.setxattr(root / os.fsdecode(path), name, value, follow_symlinks=False)
        count += 1
    listed.unlink()
    return count


if __name__ == "__main__":
    restore(Path(sys.argv[1]))
