from __future__ import annotations

import json
from typing import Any

import pytest

from koguma.model.errors import InvalidValue
from koguma.model.manifest import COMMIT_FORMAT, STAGE1_FORMAT, Manifest, ManifestFile

DIGEST = "ab" * 32


def _files(*roles: str) -> dict[str, ManifestFile]:
    names = {"root": "root.squashfs"}
    return {role: ManifestFile(names.get(role, role), 10, DIGEST) for role in roles}


def _manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format": COMMIT_FORMAT,
        "architecture": "x86_64",
        "kernel_version": "6.1.0-30-amd64",
        "files": _files("kernel", "initrd", "root"),
        "commit": DIGEST,
        "tree": DIGEST,
        "root_format": "squashfs",
        "unpacked_size_bytes": 471859200,
    }
    return Manifest(**(values | changes))


def _document(**changes: Any) -> bytes:
    return json.dumps(json.loads(_manifest().to_bytes()) | changes).encode()


def test_a_manifest_has_the_keys_the_architecture_page_draws() -> None:
    assert json.loads(_manifest().to_bytes()) == {
        "format": "koguma-manifest/1",
        "commit": DIGEST,
        "tree": DIGEST,
        "architecture": "x86_64",
        "kernel_version": "6.1.0-30-amd64",
        "root_format": "squashfs",
        "unpacked_size_bytes": 471859200,
        "files": {
            "kernel": {"name": "kernel", "size_bytes": 10, "sha256": DIGEST},
            "initrd": {"name": "initrd", "size_bytes": 10, "sha256": DIGEST},
            "root": {"name": "root.squashfs", "size_bytes": 10, "sha256": DIGEST},
        },
    }


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    for manifest in (
        _manifest(),
        Manifest(STAGE1_FORMAT, "x86_64", "6.1.0", _files("kernel", "initrd", "tools", "disks", "loader")),
    ):
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"[" * 200_000, b" " * 2_000_000,
        b'{"format": "koguma-manifest/1", "format": "koguma-manifest/1"}',
        _document(format="koguma-manifest/2"), _document(extra=1), _document(commit="AB" * 32),
        _document(commit="../../x"),
        _document(unpacked_size_bytes=-1), _document(unpacked_size_bytes=True),
        _document(root_format="ext4"), _document(root_format=[]),
        _document(files=[]), _document(files={}), _document(files={"kernel": None}), _document(kernel_version="a b"),
        _document(files={"kernel": {"name": "../kernel", "size_bytes": 1, "sha256": DIGEST}}),
        _document(format=STAGE1_FORMAT),
    ],
)  # fmt: skip
def test_anything_but_a_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": _files("kernel", "initrd")},
        {"files": _files("kernel", "initrd", "root", "extra")},
        {"files": _files("kernel", "initrd") | {"root": ManifestFile("root.erofs", 1, DIGEST)}},
        {"files": _files("initrd", "root") | {"kernel": ManifestFile("initrd", 1, DIGEST)}},
        {"files": _files("initrd", "root") | {"kernel": ManifestFile("kernel", 2**63, DIGEST)}},
        {"format": STAGE1_FORMAT, "files": _files("kernel", "initrd", "tools", "disks", "loader")},
    ],
)
def test_an_inconsistent_manifest_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        _manifest(**changes)
