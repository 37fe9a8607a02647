"""Labels and boot artifacts: what makes every branch, tag and commit bootable by itself. Owns `boot/` of a repository.

`update_labels` is the ref-update hook. It works from what it finds, not from what happened: whatever was interrupted,
the next run completes. An artifact directory appears whole, by rename; labels.json names only artifacts that are there.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koguma.images.commits import ABBREVIATED_DIGITS, Commit, history
from koguma.images.errors import ImageError, NotBootableError
from koguma.images.files import (
    locked,
    remove_tree,
    storage_errors,
    sync_directory,
    sync_file,
    write_all,
    write_atomically,
)
from koguma.images.refs import Ref
from koguma.images.trees import Entry, read_root
from koguma.model.manifest import COMMIT_FORMAT, Manifest, ManifestFile

if TYPE_CHECKING:
    from koguma.images.repository import Repository

FORMAT = "koguma-labels/1"
_TEMPORARY = ".new-"


@dataclass(frozen=True, slots=True)
class Label:
    """A name machines can boot by."""

    name: str
    kind: str
    """branch, tag or commit."""
    commit: str


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A commit that machines cannot boot, and why."""

    commit: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelState:
    labels: tuple[Label, ...]
    unlabelled: tuple[Unlabelled, ...]


def read_labels(repository: Path) -> list[Label]:
    """The labels as published. A reader may do this at any time, without a lock."""
    try:
        document = json.loads((repository / "boot" / "labels.json").read_bytes())
    except FileNotFoundError:
        return []
    return [Label(name, item["kind"], item["commit"]) for name, item in document["labels"].items()]


def update_labels(repository: Repository, progress: Callable[[str, int], None] | None = None) -> LabelState:
    """Make the artifacts that are missing and publish the labels; says which commits have none and why.

    `progress` is told what is being made and the bytes taken in.
    """
    lock = repository.path / "locks" / "labels"
    with storage_errors("a label"), locked(lock, timeout_s=3600, what="the labels"):
        _clear_leftovers(repository.path / "boot" / "artifacts")
        refs, refused = repository.labelled_refs()
        reasons: dict[str, str] = {}
        ready: list[str] = []
        for commit in _reachable(repository, refs):
            reason = _ensure_artifact(repository, commit, progress)
            if reason is None:
                ready.append(commit.id)
            else:
                reasons[commit.id] = reason
        labels = _labels(refs, set(ready), ready)
        _publish(repository.path, labels)
    return LabelState(
        tuple(labels), tuple(Unlabelled(commit, reason) for commit, reason in [*reasons.items(), *refused])
    )


def artifact_path(repository: Path, commit: str) -> Path:
    return repository / "boot" / "artifacts" / commit


def labels_checksum(document: dict[str, Any]) -> str:
    """What `fsck` knows a changed labels.json by; whoever boots machines need not look at it."""
    return f"{zlib.crc32(json.dumps(document['labels'], indent=1).encode()):08x}"


def _reachable(repository: Repository, refs: list[Ref]) -> list[Commit]:
    """The commits of all refs and their ancestors: heads first, so that what is waited for is made first."""
    found: dict[str, Commit] = {}
    heads = [repository.commit(ref.commit) for ref in refs]
    for head in sorted(heads, key=lambda commit: -commit.time):
        found[head.id] = head
    for head in heads:
        for commit in history(repository.commit, head.id):
            found.setdefault(commit.id, commit)
    return list(found.values())


def _ensure_artifact(repository: Repository, commit: Commit, progress: Callable[[str, int], None] | None) -> str | None:
    """None when the commit's artifact is there (now), else why there cannot be one."""
    final = artifact_path(repository.path, commit.id)
    if final.is_dir():
        return None
    noted = repository.path / "cache" / "unbootable" / commit.tree
    if noted.exists():
        return noted.read_text(encoding="utf-8")
    try:
        _make_artifact(repository, commit, final, progress)
    except NotBootableError as error:
        noted.parent.mkdir(exist_ok=True)
        write_atomically(noted, str(error).encode())
        return str(error)
    except ImageError as error:
        return f"its artifact could not be made: {error}"
    return None


def _make_artifact(
    repository: Repository, commit: Commit, final: Path, progress: Callable[[str, int], None] | None
) -> None:
    from koguma.images.kernels import architecture, find_boot_files  # noqa: PLC0415 - `log` must start fast
    from koguma.images.signing import sign_manifest  # noqa: PLC0415

    store = repository.objects
    root = read_root(store.read_verified, bytes.fromhex(commit.tree))
    boot_files = find_boot_files(store.read, root)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=final.parent))
    try:
        files = {
            "kernel": _copy_out(repository, boot_files.kernel, folder / "kernel"),
            "initrd": _copy_out(repository, boot_files.initrd, folder / "initrd"),
            "root": _root_image(repository, commit, root, folder / "root.squashfs", progress),
        }
        manifest = _manifest(repository, commit, root, files, boot_files.version, architecture(store.read, root))
        write_atomically(folder / "manifest.json", manifest)
        write_atomically(folder / "manifest.sig", sign_manifest(manifest, repository.path / "keys"))
        for file in files.values():
            sync_file(folder / file.name)
        folder.chmod(0o755)
        sync_directory(folder)
        folder.rename(final)
    except BaseException:
        remove_tree(folder)
        raise
    sync_directory(final.parent)


def _manifest(
    repository: Repository, commit: Commit, root: Entry, files: dict[str, ManifestFile], version: str, machine: str
) -> bytes:
    from koguma.images.export import unpacked_size_bytes  # noqa: PLC0415 - `log` must start fast

    return Manifest(
        format=COMMIT_FORMAT,
        architecture=machine,
        kernel_version=version,
        files=files,
        commit=commit.id,
        tree=commit.tree,
        root_format="squashfs",
        unpacked_size_bytes=unpacked_size_bytes(repository.objects, root),
    ).to_bytes()


def _copy_out(repository: Repository, entry: Entry, path: Path) -> ManifestFile:
    """Write a stored file; its digest and size are the entry's own, checked while it is written."""
    from hashlib import sha256  # noqa: PLC0415 - `log` must start fast

    digest = sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for piece in repository.objects.chunks(entry.digest):
            digest.update(piece)
            write_all(descriptor, piece)
    finally:
        os.close(descriptor)
    if digest.digest() != entry.digest:
        raise ImageError(f"a stored file must match its id, got other content ({entry.digest.hex()})")
    return ManifestFile(path.name, entry.size, entry.digest.hex())


def _root_image(
    repository: Repository, commit: Commit, root: Entry, path: Path, progress: Callable[[str, int], None] | None
) -> ManifestFile:
    from koguma.images.export import export, file_digest  # noqa: PLC0415 - `log` must start fast

    if same := repository.root_image(commit.tree):
        os.link(same, path)
    else:
        told = (lambda size: progress(commit.short_id, size)) if progress else None
        export(repository.objects, commit.tree, root, "squashfs", path, repository.path / "tmp", told)
        path.chmod(0o644)
    digest, size = file_digest(path)
    return ManifestFile(path.name, size, digest)


def _labels(refs: list[Ref], ready: set[str], in_order: list[str]) -> list[Label]:
    labels = [Label(ref.name, ref.kind.word, ref.commit) for ref in refs if ref.commit in ready]
    return labels + [Label(commit[:ABBREVIATED_DIGITS], "commit", commit) for commit in in_order]


def _publish(repository: Path, labels: list[Label]) -> None:
    document: dict[str, Any] = {
        "format": FORMAT,
        "labels": {label.name: {"commit": label.commit, "kind": label.kind} for label in labels},
    }
    document["crc32"] = labels_checksum(document)
    path = repository / "boot" / "labels.json"
    data = json.dumps(document, indent=1).encode() + b"\n"
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def _clear_leftovers(artifacts: Path) -> None:
    """Remove what an interrupted run left; the caller holds the lock, so nobody is making an artifact."""
    for path in artifacts.iterdir():
        if path.name.startswith(_TEMPORARY):
            remove_tree(path)
