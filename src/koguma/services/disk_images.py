"""Whole-disk images of others, fetched, verified and made raw by the worker, served by the boot service.

    <repository>/boot/disks/<SHA-256 of the source>.raw     sparse; renamed into place when whole
    <repository>/boot/disks/<SHA-256 of the source>.json    size and SHA-256 of the raw image, written last

An image comes from strangers: it is hashed before anything reads it, its header may name no other file, and what
converts it has limits of memory and time. Images that no deployment asked for in KEPT_DAYS are removed when another is
made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import httpx

from koguma.contracts.errors import DiskImageRefused, DiskImageUnreachable
from koguma.images import qcow2
from koguma.images.files import locked, sync_file, write_atomically
from koguma.model.disk_image import DiskImage

KEPT_DAYS = 30
BYTES_MAX = 64 << 30
"""Of a source and of what it becomes: a root image with data, not an archive."""
FETCH_TIMEOUT_S = 600.0
IDLE_TIMEOUT_S = 30.0
CONVERT_TIMEOUT_S = 200.0
"""Together less than the quarter of an hour after which a worker that is silent with a node counts as lost."""
WAIT_S = 840.0
"""For another worker that makes the same image."""
PIECE_BYTES = 1 << 20
URL_PREFIX = "disks/"


class DiskImageShelf:
    """`koguma.contracts.disk_images.DiskImages`, in a directory of the image repository."""

    def __init__(self, shelf: Path) -> None:
        self._shelf = shelf

    def ready(self, image: DiskImage) -> DiskImage:
        self._shelf.mkdir(parents=True, exist_ok=True)
        raw, known = self._shelf / f"{image.sha256}.raw", self._shelf / f"{image.sha256}.json"
        with locked(self._shelf / f".{image.sha256}.lock", timeout_s=WAIT_S, what="the making of a disk image"):
            if not known.exists() or not raw.exists():
                self._forget_old()
                _make(image, raw, known)
            for path in (raw, known):
                os.utime(path)
            values = json.loads(known.read_bytes())
        return DiskImage(f"{URL_PREFIX}{raw.name}", values["sha256"], values["size_bytes"])

    def _forget_old(self) -> None:
        """What was used last long ago, and what a worker that was killed left. Locks stay: others may wait for them."""
        limit = time.time() - KEPT_DAYS * 86400
        for path in self._shelf.iterdir():
            if path.suffix != ".lock" and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)


def configured() -> DiskImageShelf | None:
    """From the environment that `koguma.services.environment` set; None where no repository is configured."""
    repository = os.environ.get("KOGUMA_REPOSITORY_DIR", "")
    return DiskImageShelf(Path(repository) / "boot/disks") if repository else None


def _make(image: DiskImage, raw: Path, known: Path) -> None:
    source, part = raw.with_name(f".{raw.name}.source"), raw.with_name(f".{raw.name}.part")
    try:
        _fetch(image, source)
        if image.format == "qcow2":
            qcow2.require_whole(source, BYTES_MAX, "nothing allows it")
            qcow2.make_raw(source, part, timeout_s=CONVERT_TIMEOUT_S)
        else:
            source.rename(part)
        size, digest = part.stat().st_size, _digest_of(part)
        part.chmod(0o644)
        sync_file(part)
        part.rename(raw)
        write_atomically(known, json.dumps({"sha256": digest, "size_bytes": size}).encode())
    except OSError as error:
        raise DiskImageUnreachable(f"the image must fit the disk: {error.strerror} ({raw.parent})") from error
    finally:
        source.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def _fetch(image: DiskImage, target: Path) -> None:
    """Raises DiskImageRefused for other content than was promised."""
    hasher, received, deadline = hashlib.sha256(), 0, time.monotonic() + FETCH_TIMEOUT_S
    try:
        with (
            httpx.stream("GET", image.url, timeout=IDLE_TIMEOUT_S, follow_redirects=True) as answer,
            target.open("wb") as file,
        ):
            if answer.status_code != httpx.codes.OK:
                kind = DiskImageUnreachable if answer.status_code >= 500 else DiskImageRefused
                raise kind(f"an image must be there, got status {answer.status_code} ({image.url})")
            for piece in answer.iter_bytes(PIECE_BYTES):
                received += len(piece)
                if received > BYTES_MAX:
                    raise DiskImageRefused(f"an image may have {BYTES_MAX} bytes, this one has more ({image.url})")
                if time.monotonic() > deadline:
                    raise DiskImageUnreachable(f"an image must come within {FETCH_TIMEOUT_S:g} s ({image.url})")
                hasher.update(piece)
                file.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = str(error) or type(error).__name__
        raise DiskImageUnreachable(f"an image must be fetched: {said} ({image.url})") from error
    if hasher.hexdigest() != image.sha256:
        raise DiskImageRefused(f"an image's SHA-256 must be {image.sha256}, got {hasher.hexdigest()} ({image.url})")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
