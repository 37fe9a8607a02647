"""Root images in Glance, of which Cinder makes volumes: uploaded once for each file, whoever asks first.

Glance knows no unique names, but it takes an image's id from whoever makes it, once and for ever. So ids are derived
from the file's name and a count: who makes an id uploads, others wait, and an upload that was cut short is removed and
made again under the next count. Nothing here removes an image that is whole.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from koguma.contracts.errors import VolumeError, VolumeRefused, VolumeUnreachable
from koguma.drivers.volume.cinder.cloud import Cloud, part, pauses

PROPERTY = "koguma_image"
"""Of an image: the name of the file it was made of, without its ending."""
ABANDONED_S = 900.0
"""No upload takes that long: a worker that is silent for a quarter of an hour counts as lost."""
CHUNK_BYTES = 1 << 20
_IDS = UUID("7b0d5d6e-5a67-4c02-9d5c-2b1f6c3e0a11")
_UNDER_WAY = frozenset({"queued", "saving", "uploading", "importing"})


def ensure_image(cloud: Cloud, source: Path, deadline: float) -> str:
    """The id of an image with the content of this file.

    1. Make the id of count 0, 1, ... Made: upload the file under it.
    2. It exists: wait until it is whole. One that was abandoned or has another size than the file is removed.
    3. It neither can be made nor exists: it was removed once. Go on with the next count.
    """
    size_bytes, project = source.stat().st_size, cloud.project(deadline)
    for count in itertools.count():
        image_id = str(uuid5(_IDS, f"{project}/{source.stem}/{count}"))
        if _made(cloud, image_id, source.stem, deadline):
            _upload(cloud, image_id, source, size_bytes, deadline)
            return image_id
        if _whole(cloud, image_id, size_bytes, deadline):
            return image_id
        _remove(cloud, image_id, deadline)
    raise AssertionError  # itertools.count never ends; the deadline does


def _made(cloud: Cloud, image_id: str, stem: str, deadline: float) -> bool:
    """Whether this call made it. It is looked for first: most of the time it is there."""
    if cloud.ask("image", "GET", f"/images/{image_id}", deadline, expected=(200, 404)).status == 200:
        return False
    body = {
        "id": image_id,
        "name": f"koguma-{stem}",
        "disk_format": "raw",
        "container_format": "bare",
        "visibility": "private",
        PROPERTY: stem,
    }
    return cloud.ask("image", "POST", "/images", deadline, body=body, expected=(201, 409)).status == 201


def _upload(cloud: Cloud, image_id: str, source: Path, size_bytes: int, deadline: float) -> None:
    path = f"/images/{image_id}/file"
    try:
        content = _Content(source, size_bytes, deadline, cloud.place)
        cloud.ask("image", "PUT", path, deadline, content=content, expected=(204,), busy=(404, 409, 410))
        if not _whole(cloud, image_id, size_bytes, deadline):
            raise VolumeUnreachable(f"image {image_id} must have the {size_bytes} bytes of {source} ({cloud.place})")
    except VolumeError:
        with contextlib.suppress(VolumeError):
            _remove(cloud, image_id, time.monotonic() + 10)
        raise


def _whole(cloud: Cloud, image_id: str, size_bytes: int, deadline: float) -> bool:
    """Waits while it is uploaded. False when it must be made again."""
    status = ""
    for _ in pauses(deadline):
        answer = cloud.ask("image", "GET", f"/images/{image_id}", deadline, expected=(200, 404))
        if answer.status == 404:
            return False
        status = part(answer.body, "status", str, cloud.place)
        if status == "active":
            return bool(answer.body.get("size") == size_bytes)
        if status == "deactivated":
            raise VolumeRefused(f"image {image_id} must be active, an administrator deactivated it ({cloud.place})")
        if status not in _UNDER_WAY or _age_s(answer.body, cloud.place) > ABANDONED_S:
            return False
    raise VolumeUnreachable(f"image {image_id} must become active in time, it is {status[:40]!r} ({cloud.place})")


def _remove(cloud: Cloud, image_id: str, deadline: float) -> None:
    cloud.ask("image", "DELETE", f"/images/{image_id}", deadline, expected=(204, 404))


def _age_s(image: Any, place: str) -> float:
    made = part(image, "created_at", str, place)
    try:
        then = datetime.fromisoformat(made)
    except ValueError:
        raise VolumeRefused(f"an image's created_at must be a time, got {made[:40]!r} ({place})") from None
    return time.time() - (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()


class _Content:
    """What is sent: read from the beginning whenever the request begins, until the deadline."""

    def __init__(self, source: Path, size_bytes: int, deadline: float, place: str) -> None:
        self._source = source
        self._size_bytes = size_bytes
        self._deadline = deadline
        self._place = place

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        with self._source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                if time.monotonic() > self._deadline:
                    raise VolumeUnreachable(f"{self._source} must be uploaded in time ({self._place})")
                yield chunk
