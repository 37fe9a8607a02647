"""The config drive: a file system labelled config-2 that cloud-init and others look for.

Given as an object, it becomes files on the FAT partition of that label; given as an image (ISO 9660, gzipped, base64,
as Ironic's clients send it), the image takes the partition's place.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from pathlib import Path
from typing import Any

from koguma_node.errors import NodeError

from koguma_stage1.disk import layout, tools

FILES = {"meta_data": "meta_data.json", "network_data": "network_data.json", "vendor_data": "vendor_data.json"}
BYTES_MAX = 64 * 1024 * 1024
GZIP = zlib.MAX_WBITS + 16
"""What tells zlib to expect gzip's header."""


def write(disk: layout.Disk, content: Any, folder: Path) -> None:
    """`content`: an object with meta_data, network_data, vendor_data (objects) and user_data (text); text; or None."""
    if isinstance(content, dict):
        _write_files(disk, content, folder)
    elif isinstance(content, str) and content:
        Path(disk.partition(layout.CONFIG)).write_bytes(image(content))


def image(text: str) -> bytes:
    """Raises NodeError for what is no gzipped image that fits the partition."""
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True), GZIP)
    except (binascii.Error, zlib.error) as error:
        raise NodeError(f"a config drive must be an object or a gzipped image in base64: {error} (detail)") from error
    if len(data) > BYTES_MAX:
        raise NodeError(f"a config drive may have {BYTES_MAX} bytes, got {len(data)} (detail)")
    return data


def _write_files(disk: layout.Disk, content: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    tools.mount("vfat", disk.partition(layout.CONFIG), str(folder), "rw")
    latest = folder / "openstack/latest"
    latest.mkdir(parents=True)
    for key, name in FILES.items():
        if key in content:
            (latest / name).write_text(json.dumps(content[key]), encoding="utf-8")
    user_data = content.get("user_data")
    if user_data is not None:
        text = user_data if isinstance(user_data, str) else json.dumps(user_data)
        (latest / "user_data").write_text(text, encoding="utf-8")
    tools.unmount(str(folder))
