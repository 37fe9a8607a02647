"""The site's storage for roots on volumes, wired from the configuration: which driver, and images made of commits.

    <state>/volumes/                  the tgt driver's directory
    <state>/volume-images/<commit>-<size>.img    ext4 of that size with the commit's root; volumes are cloned from it

An image is made of the commit's boot artifact, whose digest is verified first, and renamed into place when whole.
Images of commits that no label names any more are removed when another is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from koguma.boot.labels import Labels
from koguma.contracts.errors import VolumeRefused, VolumeUnreachable
from koguma.contracts.volumes import VolumeAccess, VolumeDriver, VolumeImage
from koguma.drivers.volume import open_volumes

TOOL_TIMEOUT_S = 900


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
        return open_volumes(self._access)

    def image_of(self, label: str, size_bytes: int) -> VolumeImage:
        labels = Labels(self._repository)
        commit = labels.resolve(label).commit
        path = self._images / f"{commit}-{size_bytes}.img"
        self._images.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(self._images / "lock"):
            if not path.exists():
                self._forget_old({item.commit for item in labels.all().values()})
                self._make(labels, commit, path, size_bytes)
        return VolumeImage(commit, path)

    def _make(self, labels: Labels, commit: str, path: Path, size_bytes: int) -> None:
        manifest = labels.manifest(commit)
        root = manifest.files["root"]
        artifact = self._repository / "boot/artifacts" / commit / root.name
        with artifact.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != root.sha256:
            raise VolumeRefused(f"{root.name}: SHA-256 must be {root.sha256}, got {found} (commit {commit[:12]})")
        tree, part = self._images / f".{commit}.tree", self._images / f".{path.name}.part"
        shutil.rmtree(tree, ignore_errors=True)
        part.unlink(missing_ok=True)
        try:
            if manifest.root_format == "squashfs":
                _run(["unsquashfs", "-no-progress", "-quiet", "-dest", str(tree), str(artifact)])
            else:
                _run(["fsck.erofs", f"--extract={tree}", str(artifact)])
            with part.open("wb") as file:
                file.truncate(size_bytes)
            _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "koguma-root", "-d", str(tree), str(part)])
            part.chmod(0o600)
            part.rename(path)
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


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Workers of one host make an image once."""
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise VolumeUnreachable(f"{argv[0]} must end within {TOOL_TIMEOUT_S} s") from None
    except OSError as error:
        raise VolumeRefused(f"{argv[0]} must be installed on the worker: {error.strerror}") from None
    if done.returncode != 0:
        raise VolumeUnreachable(f"{argv[0]} must make the volume's image: {done.stderr.strip()[-300:]}")
