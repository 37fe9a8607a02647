"""Root file systems for root method nfs: one directory for each commit that an nfs flavor boots, below the exported
directory.

Unpacked from the commit's verified boot artifact and renamed into place when whole. The NFS server itself is the
site's (the lab runs nfs-ganesha); this only keeps what it exports.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from pathlib import Path

from koguma.boot import root_images
from koguma.boot.errors import BootError, NotBootable
from koguma.boot.labels import Labels
from koguma.model.snapshot import Snapshot

log = logging.getLogger(__name__)

ATTRIBUTES = ".koguma-attributes"
"""The list that node/stage2/koguma_stage2/attributes.py reads."""


class NfsTrees:
    """The exported directory."""

    def __init__(self, directory: Path, repository: Path, labels: Labels) -> None:
        self._directory = directory
        self._artifacts = repository / "boot" / "artifacts"
        self._labels = labels

    def path(self, commit: str) -> Path:
        return self._directory / commit

    def wanted(self, snapshot: Snapshot) -> set[str]:
        """The commits that nodes with root method nfs boot now."""
        names = {
            name
            for node in snapshot.nodes
            if node.boot.root_method == "nfs"
            for name in (node.boot.label, node.boot.once.label if node.boot.once else None)
            if name
        }
        known = self._labels.all()
        return {known[name].commit for name in names if name in known}

    async def ensure(self, commits: set[str]) -> None:
        """Unpack what is missing. A commit that cannot be unpacked is logged and tried again at the next call."""
        for commit in sorted(commits):
            if not self.path(commit).is_dir():
                try:
                    # What is exported cannot be verified by the machine, so it is verified here.
                    image = await asyncio.to_thread(root_images.verified, self._labels, self._artifacts, commit)
                    await self._unpack(commit, image)
                except (BootError, OSError) as error:
                    log.error("the NFS tree could not be made", extra={"commit": commit[:12], "reason": str(error)})

    async def _unpack(self, commit: str, image: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f".{commit}.partial"
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        command = root_images.unpack_command(image, partial)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        if process.returncode != 0:
            raise NotBootable(
                f"{command[0]} could not unpack commit {commit[:12]}: {errors.decode(errors='replace')[-500:]}"
            )
        await asyncio.to_thread(_list_attributes, partial)
        partial.rename(self.path(commit))
        log.info("NFS tree ready", extra={"commit": commit[:12]})


def _list_attributes(tree: Path) -> None:
    """Write down the extended attributes of the tree, in the tree: NFS carries none, and stage 2 sets them again."""
    lines = []
    for path in (tree, *tree.rglob("*")):
        for attribute in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, attribute, follow_symlinks=False)
            words = (os.fsencode(path.relative_to(tree)), os.fsencode(attribute), value)
            lines.append(json.dumps([word.hex() for word in words]) + "\n")
    (tree / ATTRIBUTES).write_text("".join(lines), encoding="ascii")
