"""Tars and OCI layouts for tests, made byte by byte where no honest tool would make them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SYMLINK, HARD_LINK = {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}
DIRECTORY = {"type": tarfile.DIRTYPE, "mode": 0o755}

Member = tuple[str, dict[str, Any], bytes]


def tar_of(*members: Member) -> bytes:
    """A pax tar of these members: name, attributes of a TarInfo, content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, values, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in values.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def header(
    name: bytes = b"a", *, kind: bytes = b"0", size: bytes | int = 0, magic: bytes = b"ustar\x0000", **fields: bytes
) -> bytes:
    """A header block as it is asked for, right or wrong; its checksum is right."""
    parts = {
        "name": name.ljust(100, b"\0"), "mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0",
        "size": b"%011o\0" % size if isinstance(size, int) else size, "mtime": b"00000000000\0", "sum": b" " * 8,
        "type": kind, "target": bytes(100), "magic": magic, "rest": bytes(247),
    } | fields  # fmt: skip
    block = b"".join(parts.values())
    assert len(block) == 512, len(block)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[str, bytes], kind: bytes = b"x") -> bytes:
    """A pax header with these records."""
    body = b""
    for key, value in records:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        body += b"%d %s=%s\n" % (length, key.encode(), value)
    return header(b"pax", kind=kind, size=len(body)) + padded(body)


END = bytes(1024)


class Layout:
    """An OCI layout in a directory. Blobs are added first; what names them is added last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)} | more

    def document(self, document: object, media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(document).encode(), media_type, **more)

    def image(
        self,
        *layers: bytes,
        compression: str = "",
        architecture: str = "amd64",
        annotations: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """An image of these tars, lowest first; returns the descriptor of its manifest."""
        squeeze = {"": bytes, "+gzip": gzip.compress, "+zstd": zstandard.compress}[compression]
        descriptors = [self.blob(squeeze(layer), LAYER + compression) for layer in layers]
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        document = {
            "architecture": architecture, "os": "linux", "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }  # fmt: skip
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.document(document, CONFIG),
            "layers": descriptors, "annotations": annotations or {},
        }  # fmt: skip
        return self.document(manifest, MANIFEST, platform={"os": "linux", "architecture": architecture})

    def index(self, *manifests: dict[str, Any]) -> str:
        """Write index.json; returns how an import names the layout."""
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(manifests)}))
        return f"oci:{self.path}"

    def archive(self, path: Path) -> str:
        """The layout as a tar; returns how an import names it."""
        with tarfile.open(path, "w") as archive:
            archive.add(self.path, arcname=".")
        return f"oci-archive:{path}"
