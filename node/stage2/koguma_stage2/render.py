"""Makes a root file system this node's: identity, network, templates. Called in the initramfs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koguma_stage2 import files, identity, network, places, templates


def render_all(root: Path, detail: dict[str, Any]) -> None:
    """Write every file that a checked `detail` asks for, below root. Raises NodeError for what could not be."""
    ssh = files.inside(root, places.ROOT_SSH)
    ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
    ssh.chmod(0o700)
    for path, (content, mode) in identity.identity_files(detail).items():
        files.write(root, path, content, mode)
    for path, content in network.networkd_files(detail).items():
        files.write(root, path, content)
    templates.render_templates(root, detail)
