"""Labels and their artifacts, as the image repository publishes them under `<repository>/boot/`.

Read at every use: labels.json is replaced by rename, and its modification time says whether a cached answer still
holds, so that a new label boots at once. Writes nothing.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from koguma.boot.errors import NotBootable
from koguma.errors import KogumaError
from koguma.images.signing import trusted_keys, verify
from koguma.model.manifest import Manifest

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{64}")

TOOLS, DISKS, LOADER = "tools", "disks", "local.efi"
MORE_OF_STAGE1 = {
    "boot": (),
    "register": (TOOLS,),
    "rescue": (TOOLS,),
    "deploy": (TOOLS, DISKS),
    "clean": (TOOLS, DISKS),
}
"""What each mode loads after the first initramfs."""


@dataclass(frozen=True)
class Label:
    name: str
    commit: str
    kind: str


@dataclass(frozen=True)
class Stage1:
    """The stage 1 that is served now."""

    id: str
    path: str
    """Below `/artifacts/`."""
    more: frozenset[str]
    """What it was built with beside the first initramfs; in older builds that one has the tools."""

    @property
    def has_disks(self) -> bool:
        """Whether it was built with the tools for disks."""
        return DISKS in self.more

    @property
    def local_loader(self) -> str | None:
        """Boots the disk of a UEFI machine; below `/artifacts/`."""
        return f"{self.path}/{LOADER}" if LOADER in self.more else None

    def initrds(self, mode: str) -> list[str]:
        """Below `/artifacts/`, in the order in which they are loaded."""
        more = [name for name in MORE_OF_STAGE1[mode] if name in self.more]
        return [f"{self.path}/{name}" for name in ("initrd", *more)]


class Labels:
    """What can be booted from one image repository."""

    def __init__(self, repository: Path) -> None:
        self._boot = repository / "boot"
        self._keys = repository / "keys"
        self._seen: tuple[int, int, int] | None = None
        self._labels: Mapping[str, Label] = {}

    def all(self) -> Mapping[str, Label]:
        """Every label by name; empty where no repository has been made yet. A file that is damaged changes nothing:
        `koguma image labels` writes it again.
        """
        path = self._boot / "labels.json"
        try:
            stat = path.stat()
        except FileNotFoundError:
            return {}
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._seen = seen
            try:
                document = json.loads(path.read_bytes())
                self._labels = {
                    name: Label(name, item["commit"], item["kind"]) for name, item in document["labels"].items()
                }
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                log.error("labels.json must be readable, what it said before holds: %s (%s)", error, path)
        return self._labels

    def resolve(self, name: str) -> Label:
        """Raises NotBootable when there is no such label, or its artifact is not there."""
        label = self.all().get(name)
        if label is None:
            raise NotBootable(f"a label must exist to be booted, got {name!r} ({self._boot / 'labels.json'})")
        if not _COMMIT.fullmatch(label.commit) or not (self._boot / "artifacts" / label.commit).is_dir():
            raise NotBootable(f"label {name!r} must have a boot artifact, got commit {label.commit!r} without one")
        return label

    def manifest(self, commit: str) -> Manifest:
        """The commit's manifest, its signature verified. Raises NotBootable."""
        directory = self._boot / "artifacts" / commit
        try:
            data = (directory / "manifest.json").read_bytes()
            verify(data, (directory / "manifest.sig").read_bytes(), trusted_keys(self._keys))
            manifest = Manifest.from_bytes(data)
        except (OSError, KogumaError) as error:
            raise NotBootable(f"commit {commit[:12]} must have a signed manifest: {error}") from error
        if manifest.commit != commit:
            raise NotBootable(f"the manifest must be of commit {commit[:12]}, got {manifest.commit!r}")
        return manifest

    def stage1(self) -> Stage1:
        """Raises NotBootable when no stage 1 has been built."""
        try:
            name = (self._boot / "stage1" / "current").readlink().name
        except OSError:
            raise NotBootable("a stage 1 must be built first: `koguma image build-stage1`") from None
        build = self._boot / "stage1" / name
        return Stage1(
            name, f"stage1/{name}", frozenset(part for part in (TOOLS, DISKS, LOADER) if (build / part).is_file())
        )
