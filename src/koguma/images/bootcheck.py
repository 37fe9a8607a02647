"""Verifies what machines boot: keys, boot artifacts against their signed manifests, labels against artifacts."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from koguma.errors import KogumaError
from koguma.images.commits import ABBREVIATED_DIGITS
from koguma.images.errors import ManifestError
from koguma.images.files import storage_errors
from koguma.images.labelfile import FORMAT, labels_checksum, labels_path
from koguma.images.signing import key_id, load_signing_key, trusted_keys, verify
from koguma.model.manifest import Manifest, ManifestFile

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _File:
    """A file of an artifact, as its manifest describes it."""

    path: Path
    described: ManifestFile
    artifact: str


def check_keys(keys: Path) -> Iterator[str]:
    """What is wrong with the keys: each file must be exactly what was written."""
    try:
        trusted = trusted_keys(keys)
        for identity, key in trusted.items():
            path = keys / "trusted" / f"{identity}.pem"
            if path.read_bytes() != key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo):
                yield f"a trusted key must be the PEM of its key and nothing else ({path})"
        private = load_signing_key(keys)
        path = keys / "signing.pem"
        if path.read_bytes() != private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()):
            yield f"the signing key must be the PEM of its key and nothing else ({path})"
        if key_id(private.public_key()) not in trusted:
            yield f"the signing key must be trusted by its own repository ({path})"
    except (ManifestError, UnsupportedAlgorithm, ValueError, OSError) as error:
        yield f"keys must be readable: {error} ({keys})"


@dataclass(frozen=True, slots=True)
class Damaged:
    """A boot artifact that machines would refuse."""

    folder: Path
    problem: str


def check_artifacts(repository: Path) -> tuple[list[Damaged], list[str]]:
    """Damaged boot artifacts, with the labels that concerns, and what is wrong with labels. Reads every file once."""
    labels, label_problems = _labels(repository)
    problems: list[Damaged] = []
    files: list[_File] = []
    try:
        trusted = trusted_keys(repository / "keys")
    except (ManifestError, UnsupportedAlgorithm, ValueError):
        trusted = {}  # `check_keys` says so
    for folder in _artifacts(repository):
        affected = f"; label {', '.join(labels[folder.name])} is affected" if folder.name in labels else ""
        place = f"({folder}{affected})"
        try:
            with storage_errors("a boot artifact"):
                data, signatures = (folder / "manifest.json").read_bytes(), (folder / "manifest.sig").read_bytes()
            manifest = Manifest.from_bytes(data)
            if manifest.to_bytes() != data or (manifest.commit or sha256(data).hexdigest()) != folder.name:
                raise ManifestError("a manifest must be in its canonical form and that of its directory's name")
            verify(data, signatures, trusted)
            if not _is_canonical(signatures):
                raise ManifestError("a signature must be lines of a key's id and base64")
            files += [_File(folder / file.name, file, place) for file in manifest.files.values()]
        except KogumaError as error:
            problems.append(Damaged(folder, f"a boot artifact is damaged: {error} {place}"))
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="fsck") as pool:
        problems += [problem for found in pool.map(_check_files, _by_inode(files)) for problem in found]
    return problems, label_problems


def _check_files(same: list[_File]) -> list[Damaged]:
    """Check files that are one by hard links; each may be described by another manifest."""
    try:
        with storage_errors("a boot artifact"):
            size, digest = _digest(same[0].path)
    except KogumaError as error:
        return [Damaged(file.path.parent, f"a boot artifact is damaged: {error} {file.artifact}") for file in same]
    return [
        Damaged(
            file.path.parent,
            f"a boot artifact's {file.path.name} must be the {file.described.size_bytes} bytes its manifest describes,"
            f" it is not {file.artifact}",
        )
        for file in same
        if (size, digest) != (file.described.size_bytes, file.described.sha256)
    ]


def _by_inode(files: list[_File]) -> list[list[_File]]:
    groups: dict[object, list[_File]] = {}
    for file in files:
        try:
            status = file.path.stat()
            groups.setdefault((status.st_dev, status.st_ino), []).append(file)
        except OSError:
            groups[file.path] = [file]
    return list(groups.values())


def _digest(path: Path) -> tuple[int, str]:
    digest, size = sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _artifacts(repository: Path) -> list[Path]:
    """The directories of artifacts: those of commits and those of stage 1."""
    folders = [repository / "boot" / name for name in ("artifacts", "stage1")]
    return [
        item
        for folder in folders
        if folder.is_dir()
        for item in sorted(folder.iterdir())
        if item.is_dir() and not item.is_symlink() and not item.name.startswith(".")
    ]


def _labels(repository: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The labels by commit, and what is wrong with labels.json."""
    path = labels_path(repository)
    by_commit: dict[str, list[str]] = {}
    problems = []
    try:
        data = path.read_bytes()
        document = json.loads(data)
        whole = json.dumps(document, indent=1).encode() + b"\n" == data and document["format"] == FORMAT
        whole = whole and set(document) <= {"format", "labels", "crc32"}
        if not whole or document.get("crc32", labels_checksum(document)) != labels_checksum(document):
            problems.append(f"labels.json must be as it was written; koguma image labels writes it again ({path})")
        for name, label in document["labels"].items():
            by_commit.setdefault(label["commit"], []).append(name)
            if why := _label_problem(repository, name, label):
                problems.append(f"{why}; koguma image labels makes labels.json again ({path})")
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problems.append(f"labels.json must be readable: {error}; koguma image labels writes it again ({path})")
    return by_commit, problems


def _label_problem(repository: Path, name: str, label: dict[str, str]) -> str | None:
    commit, kind = label["commit"], label["kind"]
    if not (repository / "boot" / "artifacts" / commit).is_dir():
        return f"a label must lead to a boot artifact, {name!r} does not"
    if kind == "commit":
        expected = commit[:ABBREVIATED_DIGITS]
        return None if name == expected else f"a commit's label must be {expected}, got {name!r}"
    return None if kind in ("branch", "tag") else f"a label's kind must be branch, tag or commit, got {kind!r} ({name})"


def _is_canonical(signatures: bytes) -> bool:
    """Whether each line is a key's id and the base64 of 64 bytes in its only form."""
    lines = signatures.split(b"\n")
    for line in lines[:-1]:
        identity, _, encoded = line.partition(b" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError:
            return False
        if len(identity) != 16 or len(raw) != 64 or base64.b64encode(raw) != encoded:
            return False
    return lines[-1] == b"" and len(lines) > 1
