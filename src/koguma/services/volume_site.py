"""The site's storage for roots on volumes, wired from the configuration: which driver, and images made of commits.

    <state>/volumes/                  the tgt driver's directory
    <state>/volume-images/<commit>-<size>.img    ext4 of that size with the commit's root; volumes are cloned from it

An image is made of the commit's boot artifact, whose digest is verified first, and renamed into place when whole.
Images of commits that no label names any more are removed when another is made.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from koguma.boot import root_images
from koguma.boot.labels import Labels
from koguma.contracts.volumes import VolumeAccess, VolumeDriver, VolumeImage
from koguma.db.dispatch import calls_outside
from koguma.drivers.volume import open_volumes
from koguma.images.files import locked, sync_directory, sync_file
from koguma.images.tools import run_tool

TOOL_TIMEOUT_S = 400
"""Of each of two tools: a worker that is silent with a node for a quarter of an hour counts as lost."""


class ConfiguredVolumes:
    """`koguma.contracts.volumes.VolumeSite`."""

    def __init__(self, access: VolumeAccess, repository: Path, images: Path, size_bytes: int) -> None:
        self._access = access
        self._repository = repository
        self._images = images
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def driver(self) -> VolumeDriver:
        return calls_outside(open_volumes(self._access))

    def image_of(self, label: str, size_bytes: int) -> VolumeImage:
        labels = Labels(self._repository)
        commit = labels.resolve(label).commit
        path = self._images / f"{commit}-{size_bytes}.img"
        self._images.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._images / "lock", what="the making of volume images"):
            if not path.exists():
                self._forget_old({item.commit for item in labels.all().values()})
                self._make(labels, commit, path, size_bytes)
        return VolumeImage(commit, path)

    def _make(self, labels: Labels, commit: str, path: Path, size_bytes: int) -> None:
        root = root_images.verified(labels, self._repository / "boot/artifacts", commit)
        tree, part = self._images / f".{commit}.tree", self._images / f".{path.name}.part"
        shutil.rmtree(tree, ignore_errors=True)
        part.unlink(missing_ok=True)
        try:
            run_tool(root_images.unpack_command(root, tree), timeout_s=TOOL_TIMEOUT_S)
            with part.open("wb") as file:
                file.truncate(size_bytes)
            make = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "koguma-root", "-d", str(tree), str(part)]
            run_tool(make, timeout_s=TOOL_TIMEOUT_S)
            part.chmod(0o600)
            sync_file(part)
            part.rename(path)
            sync_directory(self._images)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            part.unlink(missing_ok=True)

    def _forget_old(self, commits: set[str]) -> None:
        for path in self._images.glob("*.img"):
            if path.name.partition("-")[0] not in commits:
                path.unlink(missing_ok=True)


def configured() -> ConfiguredVolumes | None:
    """From the environment that `koguma.services.environment` set; None where no storage is configured."""
    driver = os.environ.get("KOGUMA_VOLUMES_DRIVER", "")
    if not driver:
        return None
    access = VolumeAccess(driver, os.environ["KOGUMA_VOLUMES_ADDRESS"], os.environ.get("KOGUMA_VOLUMES_PORTAL", ""))
    return ConfiguredVolumes(
        access,
        Path(os.environ["KOGUMA_REPOSITORY_DIR"]),
        Path(os.environ["KOGUMA_VOLUMES_IMAGES"]),
        int(os.environ["KOGUMA_VOLUMES_SIZE_BYTES"]),
    )
