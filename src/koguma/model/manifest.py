"""The manifest of a boot artifact: what it consists of, by size and SHA-256. Its signed bytes are its form.

`koguma.images` writes it, the boot service serves it, stage 1 verifies it. Two formats share one class: that of a
commit (`koguma-manifest/1`: kernel, initrd, root) and that of stage 1 itself (`koguma-stage1/1`: no root, no commit).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koguma.model.errors import InvalidValue
from koguma.model.names import shown

COMMIT_FORMAT = "koguma-manifest/1"
STAGE1_FORMAT = "koguma-stage1/1"
SIZE_MAX_BYTES = 1024 * 1024
"""A manifest is under a kilobyte; more than this is not one."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}")
_ROOT_NAMES = {"squashfs": "root.squashfs", "erofs": "root.erofs"}
_COMMON_KEYS = {"format", "architecture", "kernel_version", "files"}
_COMMIT_KEYS = {"commit", "tree", "root_format", "unpacked_size_bytes"}


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file beside the manifest."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest; constructing one checks every rule, so holding one proves them."""

    format: str
    architecture: str
    kernel_version: str
    files: Mapping[str, ManifestFile]
    """By role: kernel, initrd and, for a commit, root."""
    commit: str | None = None
    tree: str | None = None
    root_format: str | None = None
    unpacked_size_bytes: int | None = None
    """What the tree takes in a tmpfs: every file rounded up to pages of 4 KiB."""

    def __post_init__(self) -> None:
        _check_manifest(self)

    def to_bytes(self) -> bytes:
        """The canonical bytes, the ones that are signed: the same manifest always gives the same bytes."""
        document: dict[str, Any] = {"format": self.format}
        if self.format == COMMIT_FORMAT:
            document |= {"commit": self.commit, "tree": self.tree}
        document |= {"architecture": self.architecture, "kernel_version": self.kernel_version}
        if self.format == COMMIT_FORMAT:
            document |= {"root_format": self.root_format, "unpacked_size_bytes": self.unpacked_size_bytes}
        document["files"] = {
            role: {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
            for role, file in sorted(self.files.items())
        }
        return json.dumps(document, separators=(", ", ": ")).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest strictly: unknown, missing and repeated keys are refused. Raises InvalidValue."""
        if len(data) > SIZE_MAX_BYTES:
            raise InvalidValue(f"a manifest has at most {SIZE_MAX_BYTES} bytes, got {len(data)}")
        try:
            document = json.loads(data.decode("utf-8"), object_pairs_hook=_without_repeats)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InvalidValue(f"a manifest must be JSON in UTF-8: {error}") from None
        return cls(**_arguments(document))


def check_word(value: object, place: str) -> None:
    """The rule for `architecture` and `kernel_version`, for who wants to know before there is a manifest. Raises
    InvalidValue.
    """
    _check_text(_WORD, value, place)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise InvalidValue(f"a manifest names every key once, got {shown([key for key, _ in pairs])}")
    return document


def _arguments(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidValue(f"a manifest must be an object, got {shown(document)}")
    expected = _COMMON_KEYS | (_COMMIT_KEYS if document.get("format") == COMMIT_FORMAT else set())
    _check_keys(document, expected, "manifest")
    files = document["files"]
    if not isinstance(files, dict):
        raise InvalidValue(f"a manifest's files must be an object, got {shown(files)}")
    return document | {"files": {role: _file(role, value) for role, value in files.items()}}


def _file(role: str, value: Any) -> ManifestFile:
    if not isinstance(value, dict):
        raise InvalidValue(f"a manifest's file must be an object, got {shown(value)} (file {role})")
    _check_keys(value, {"name", "size_bytes", "sha256"}, f"file {role}")
    return ManifestFile(value["name"], value["size_bytes"], value["sha256"])


def _check_keys(document: dict[str, Any], expected: set[str], place: str) -> None:
    if set(document) != expected:
        raise InvalidValue(
            f"a manifest must have exactly the keys {sorted(expected)}, got {sorted(document)} ({place})"
        )


def _check_manifest(manifest: Manifest) -> None:
    if manifest.format not in (COMMIT_FORMAT, STAGE1_FORMAT):
        raise InvalidValue(f"a manifest's format is {COMMIT_FORMAT} or {STAGE1_FORMAT}, got {shown(manifest.format)}")
    check_word(manifest.architecture, "architecture")
    check_word(manifest.kernel_version, "kernel_version")
    if manifest.format == COMMIT_FORMAT:
        _check_commit_part(manifest)
    elif (manifest.commit, manifest.tree, manifest.root_format, manifest.unpacked_size_bytes) != (None,) * 4:
        raise InvalidValue("a stage-1 manifest has no commit, tree, root_format or unpacked_size_bytes")
    roles = {"kernel", "initrd", *(("root",) if manifest.format == COMMIT_FORMAT else ("tools", "disks", "loader"))}
    if set(manifest.files) != roles:
        raise InvalidValue(f"a manifest's files are exactly {sorted(roles)}, got {sorted(manifest.files)}")
    for role, file in manifest.files.items():
        _check_file(manifest, role, file)


def _check_commit_part(manifest: Manifest) -> None:
    _check_text(_DIGEST, manifest.commit, "commit")
    _check_text(_DIGEST, manifest.tree, "tree")
    if not isinstance(manifest.root_format, str) or manifest.root_format not in _ROOT_NAMES:
        raise InvalidValue(f"a manifest's root_format is squashfs or erofs, got {shown(manifest.root_format)}")
    _check_size(manifest.unpacked_size_bytes, "unpacked_size_bytes")


def _check_file(manifest: Manifest, role: str, file: ManifestFile) -> None:
    name = role if role != "root" else _ROOT_NAMES[str(manifest.root_format)]
    _check_text(_FILE_NAME, file.name, f"{role} name")
    if file.name != name:
        raise InvalidValue(f"the {role} of a manifest is named {name!r}, got {shown(file.name)}")
    _check_size(file.size_bytes, f"{role} size_bytes")
    _check_text(_DIGEST, file.sha256, f"{role} sha256")


def _check_text(pattern: re.Pattern[str], value: object, place: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidValue(f"a manifest's {place} must match {pattern.pattern}, got {shown(value)}")


def _check_size(value: object, place: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidValue(f"a manifest's {place} must be a number of bytes, got {shown(value)}")
