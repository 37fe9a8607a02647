"""Root images that are kept by tree: what boot artifacts share, and what the next image takes its blocks from.

Owns `cache/images/` of a repository: hard links of the images of artifacts, and two notes beside each. All of it may be
deleted; an image is then made anew, the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from koguma.errors import KogumaError
from koguma.images.commits import Commit
from koguma.images.files import make_private_directory, write_atomically, written_whole
from koguma.images.trees import Entry

if TYPE_CHECKING:
    from koguma.images.repository import Repository
    from koguma.model.manifest import ManifestFile

_ANCESTORS_MAX = 16
"""How far back an image with blocks to take over is looked for."""
_PIECE_BYTES = 1024 * 1024

Progress = Callable[[int], None]


class _DamagedError(Exception):
    """A kept image is not what it was when it was made."""


def kept_image(repository: Path, tree: str) -> Path:
    """Where the root image of a tree is kept, if it is."""
    return repository / "cache" / "images" / f"{tree}.squashfs"


def has_whole_image(repository: Path, tree: str) -> bool:
    """Whether the root image of a tree is known to have all that the tree has; POSIX ACLs have no place in it."""
    return _whole_path(kept_image(repository, tree)).exists()


def copy_kept_image(repository: Repository, tree: str, output: Path) -> bool:
    """Write the root image of a tree that is kept already to a new file; False: there is none that is whole.

    It is what an export would make, byte for byte, and what the manifest of the commit signs.
    """
    kept = repository.root_image(tree)
    if kept is None or (made := _as_made(repository.path, kept, tree)) is None:
        return False
    with suppress(_DamagedError), written_whole(output) as file, kept.open("rb", buffering=0) as image:
        digest, size = sha256(), 0
        while piece := image.read(_PIECE_BYTES):
            digest.update(piece)
            size += file.write(piece)
        if made != f"{digest.hexdigest()} {size}":
            raise _DamagedError
        return True
    return False


def provide_image(
    repository: Repository, commit: Commit, root: Entry, path: Path, progress: Progress | None
) -> ManifestFile:
    """Have the commit's root image at `path`, which must not exist: one that is kept, or else a new one, then kept."""
    from koguma.images.export import file_digest  # noqa: PLC0415 - `log` must start fast
    from koguma.images.squashfs.donors import encode_note, note_path  # noqa: PLC0415
    from koguma.images.squashfs.image import write_image  # noqa: PLC0415
    from koguma.model.manifest import ManifestFile  # noqa: PLC0415

    kept = kept_image(repository.path, commit.tree)
    same = repository.root_image(commit.tree)
    if same is not None and (made := _as_made(repository.path, same, commit.tree)):
        digest, size = file_digest(same)
        if made == f"{digest} {size}":
            os.link(same, path)
            return ManifestFile(path.name, size, digest)
    forget_image(kept)  # damaged on the disk and no donor; or notes without their image
    written = write_image(repository.objects, root, path, donor_of(repository, commit), progress)
    digest, size = file_digest(path)
    make_private_directory(kept.parent)
    # Before the image: one that a power cut left without its last blocks is found out by its digest.
    write_atomically(_digest_path(kept), f"{digest} {size}".encode())
    write_atomically(note_path(kept), encode_note(written.packed))
    if written.whole:
        write_atomically(_whole_path(kept), b"")
    os.link(path, kept)
    return ManifestFile(path.name, size, digest)


def donor_of(repository: Repository, commit: Commit) -> Path | None:
    """The kept image that is likely to have most blocks of a commit's: a near ancestor's, else the newest."""
    from koguma.images.squashfs.donors import note_path  # noqa: PLC0415 - `log` must start fast

    for tree in _trees_before(repository, commit):
        image = kept_image(repository.path, tree)
        if image.exists() and note_path(image).exists():
            return image
    notes = (repository.path / "cache" / "images").glob("*.blocks")
    by_age = sorted((path for path in notes if path.with_suffix(".squashfs").exists()), key=_mtime)
    return by_age[-1].with_suffix(".squashfs") if by_age else None


def forget_images(repository: Path, wanted: Collection[str]) -> None:
    """Remove kept images that no artifact has and whose trees are not wanted."""
    for image in (repository / "cache" / "images").glob("*.squashfs"):
        if image.stem not in wanted:
            forget_unused_image(image)


def forget_unused_image(image: Path) -> None:
    """Remove a kept image unless an artifact has it."""
    try:
        if image.stat().st_nlink == 1:
            forget_image(image)
    except FileNotFoundError:
        return


def forget_image(image: Path) -> None:
    from koguma.images.squashfs.donors import note_path  # noqa: PLC0415 - `log` must start fast

    for path in (image, _digest_path(image), _whole_path(image), note_path(image)):
        path.unlink(missing_ok=True)


def _trees_before(repository: Repository, commit: Commit) -> Iterator[str]:
    """The trees of a commit, if it had an image before, and of its ancestors, the nearest first."""
    here = commit
    for _ in range(_ANCESTORS_MAX):
        yield here.tree
        if not here.parents or not repository.objects.readable(bytes.fromhex(here.parents[0])):
            return  # the first commit, or the end of a shallow history
        here = repository.commit(here.parents[0])


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest_path(image: Path) -> Path:
    return image.with_suffix(".sha256")


def _whole_path(image: Path) -> Path:
    return image.with_suffix(".whole")


def _as_made(repository: Path, image: Path, tree: str) -> str | None:
    """Digest and size of a tree's image when it was made: as noted where it is kept, else by the signed manifest of the
    artifact it is of. None: nobody says, so nobody can tell whether it is whole.
    """
    kept = kept_image(repository, tree)
    with suppress(FileNotFoundError):
        return _digest_path(kept).read_text(encoding="ascii", errors="replace")
    return None if image == kept else _as_signed(repository, image.parent, tree)


def _as_signed(repository: Path, artifact: Path, tree: str) -> str | None:
    from koguma.images.signing import trusted_keys, verify  # noqa: PLC0415 - `log` must start fast
    from koguma.model.manifest import Manifest  # noqa: PLC0415

    try:
        data = (artifact / "manifest.json").read_bytes()
        verify(data, (artifact / "manifest.sig").read_bytes(), trusted_keys(repository / "keys"))
        manifest = Manifest.from_bytes(data)
    except (KogumaError, OSError):
        return None
    root = manifest.files["root"] if (manifest.commit, manifest.tree) == (artifact.name, tree) else None
    return f"{root.sha256} {root.size_bytes}" if root else None
