"""Boot artifacts: what a machine downloads for a commit. Owns `boot/artifacts/` of a repository.

An artifact is made under another name, locked by its maker, and appears whole by rename. Its root image is a hard link
of the one that is kept for its tree (`rootimages`): an artifact that is made again costs no second image.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from koguma.images.commits import Commit
from koguma.images.errors import ImageError, NotBootableError
from koguma.images.files import (
    locked,
    make_private_directory,
    remove_tree,
    sync_directory,
    sync_file,
    write_all,
    write_atomically,
)
from koguma.images.rootimages import Progress, forget_unused_image, kept_image, provide_image
from koguma.images.trees import Entry, read_root

if TYPE_CHECKING:
    from koguma.images.repository import Repository
    from koguma.model.manifest import ManifestFile

TEMPORARY_PREFIX = ".new-"
_ROOT_IMAGE = "root.squashfs"
_WAIT_S = 3600


def artifact_path(repository: Path, commit: str) -> Path:
    return repository / "boot" / "artifacts" / commit


def reason_not_bootable(repository: Repository, commit: Commit) -> str | None:
    """Why a commit's tree cannot be booted, as far as was found out before; None: it may be bootable."""
    try:
        return (repository.path / "cache" / "unbootable" / commit.tree).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def ensure_artifact(repository: Repository, commit: Commit, progress: Progress | None = None) -> str | None:
    """None when the commit's artifact is there (now), else why there cannot be one. Raises what kept it from being made
    this time: KogumaError, OSError.

    Artifacts of different trees are made at the same time, by threads and by processes; of one tree one after another,
    so that the second finds the first one's root image.
    """
    final = artifact_path(repository.path, commit.id)
    if final.is_dir():
        return None
    if reason := reason_not_bootable(repository, commit):
        return reason
    lock = repository.path / "locks" / f"artifact-{commit.tree[0]}"
    with locked(lock, timeout_s=_WAIT_S, what=f"the boot artifact of {commit.short_id}"):
        if final.is_dir():
            return None
        try:
            _make(repository, commit, final, progress)
        except NotBootableError as error:
            noted = repository.path / "cache" / "unbootable" / commit.tree
            make_private_directory(noted.parent)
            write_atomically(noted, str(error).encode())
            return str(error)
    return None


def remove_artifact(repository: Path, commit: str) -> None:
    """Remove an artifact: out of sight at once, then from the disk; and its tree's image when no other has it."""
    folder = artifact_path(repository, commit)
    gone = folder.with_name(f"{TEMPORARY_PREFIX}gone-{commit}")
    try:
        tree = str(json.loads((folder / "manifest.json").read_bytes())["tree"])
    except (OSError, ValueError, KeyError):
        tree = ""
    folder.rename(gone)
    remove_tree(gone)
    if tree:
        forget_unused_image(kept_image(repository, tree))


def artifact_sizes(repository: Path) -> dict[str, int]:
    """Commit -> bytes of its artifact on the disk; an image that several share counts in shares."""
    sizes = {}
    for folder in (repository / "boot" / "artifacts").iterdir():
        if not folder.name.startswith("."):
            size = 0
            for path in folder.iterdir():
                status = path.stat()
                owners = max(1, status.st_nlink - 1) if path.name == _ROOT_IMAGE else 1
                size += status.st_size // owners
            sizes[folder.name] = size
    return sizes


def clear_leftovers(artifacts: Path) -> None:
    """Remove what was being made or removed when a process died. The caller holds the `labels` lock."""
    for path in artifacts.iterdir():
        if not path.name.startswith(TEMPORARY_PREFIX):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        except BlockingIOError:
            continue  # somebody is making it
        finally:
            os.close(descriptor)


def _make(repository: Repository, commit: Commit, final: Path, progress: Progress | None) -> None:
    from koguma.images.kernels import architecture, find_boot_files  # noqa: PLC0415 - `log` must start fast
    from koguma.images.signing import sign_manifest  # noqa: PLC0415

    store = repository.objects
    root = read_root(store.read_verified, bytes.fromhex(commit.tree))
    boot_files, machine = find_boot_files(store.read, root), architecture(store.read, root)
    with _new_folder(repository.path, final) as folder:
        files = {
            "kernel": _copy_out(repository, boot_files.kernel, folder / "kernel"),
            "initrd": _copy_out(repository, boot_files.initrd, folder / "initrd"),
            "root": provide_image(repository, commit, root, folder / _ROOT_IMAGE, progress),
        }
        manifest = _manifest(repository, commit, root, files, boot_files.version, machine)
        write_atomically(folder / "manifest.json", manifest)
        write_atomically(folder / "manifest.sig", sign_manifest(manifest, repository.path / "keys"))
        for file in files.values():
            sync_file(folder / file.name)
        folder.chmod(0o755)
        sync_directory(folder)
        folder.rename(final)
    sync_directory(final.parent)


@contextmanager
def _new_folder(repository: Path, final: Path) -> Iterator[Path]:
    """A folder beside the final one, locked while we live; removed when the block fails."""
    with locked(repository / "locks" / "labels", timeout_s=_WAIT_S, what="the labels"):
        from tempfile import mkdtemp  # noqa: PLC0415 - most who look at artifacts make none

        folder = Path(mkdtemp(prefix=TEMPORARY_PREFIX, dir=final.parent))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    except BaseException:
        remove_tree(folder)
        raise
    finally:
        os.close(descriptor)


def _manifest(
    repository: Repository, commit: Commit, root: Entry, files: dict[str, ManifestFile], version: str, machine: str
) -> bytes:
    from koguma.images.export import unpacked_size_bytes  # noqa: PLC0415 - `log` must start fast
    from koguma.model.manifest import COMMIT_FORMAT, Manifest  # noqa: PLC0415

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

    from koguma.model.manifest import ManifestFile  # noqa: PLC0415

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
