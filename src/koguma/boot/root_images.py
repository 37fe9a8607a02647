"""A commit's root image as this host may use it: its digest verified, unpacked by the tool of its format."""

from __future__ import annotations

import hashlib
from pathlib import Path

from koguma.boot.errors import NotBootable
from koguma.boot.labels import Labels


def verified(labels: Labels, artifacts: Path, commit: str) -> Path:
    """Its file below `artifacts`. Raises NotBootable for a digest that the signed manifest does not have."""
    root = labels.manifest(commit).files["root"]
    path = artifacts / commit / root.name
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != root.sha256:
        raise NotBootable(f"{root.name}: SHA-256 must be {root.sha256}, got {found} (commit {commit[:12]})")
    return path


def unpack_command(image: Path, target: Path) -> list[str]:
    """`target` must not exist."""
    if image.suffix == ".squashfs":
        return ["unsquashfs", "-no-progress", "-quiet", "-dest", str(target), str(image)]
    return ["fsck.erofs", f"--extract={target}", str(image)]
