"""Views: a commit's tree mounted read-only at once, whatever its size; what edits lie over and `mount` shows.

Where the tree's root image is there already it is mounted, and the kernel does the rest. Where it is not (a commit that
cannot be booted, was just pulled, or whose label is not made yet), for a tree with ACLs, which a squashfs cannot show,
and in a user namespace, where no image may be mounted, a process of its own serves the tree from the packs (`viewfs`);
it ends when it is unmounted. Making an image first would cost seconds and the image's size.

`mount_view` keeps a note per mount below `mounts/` of the repository (drawn in FORMAT.md), so that whatever a crash
left can be listed and taken away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from koguma.images import usernamespace
from koguma.images.commits import Commit
from koguma.images.errors import ViewError
from koguma.images.files import locked, remove_tree, storage_errors, write_atomically
from koguma.images.fuse import mount_options
from koguma.images.mounts import read_mounts
from koguma.images.repository import Repository
from koguma.images.rootimages import has_whole_image
from koguma.images.tools import run_tool

_FUSE = "/dev/fuse"


@dataclass(frozen=True, slots=True)
class Source:
    """What `mount` is told to show a tree: `mount WORDS PLACE`, with these descriptors passed on."""

    words: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Mounted:
    """A view that was mounted with `mount_view`."""

    place: str
    """The directory it is at."""
    commit: str
    writable: bool
    """What is written goes to a directory that is thrown away with the mount."""
    alive: bool = True
    """False: it was unmounted by other means, or what served it is gone; `unmount_view` takes away what is left."""


@contextmanager
def source(repository: Repository, tree: str) -> Iterator[Source]:
    """What to mount for a tree, for one mount. The one who mounts does so within the block.

    A served view lives as long as its mount, or until the block ends when it was not mounted.
    """
    image = None if usernamespace.is_inside() else repository.root_image(tree)
    if image is not None and has_whole_image(repository.path, tree):
        yield Source(("-t", "squashfs", "-o", "loop,ro", str(image)))
        return
    with storage_errors("a view"):
        descriptor = os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC)
    watched, ours = os.pipe2(os.O_CLOEXEC)
    try:
        _start_server(repository, tree, descriptor, watched)
        # -i: the kernel mounts it, without a helper program that may not be there.
        yield Source(("-i", "-t", "fuse", "-o", mount_options(descriptor), "koguma"), (descriptor,))
    finally:
        for one in (descriptor, watched, ours):
            os.close(one)


def mount_view(repository: Repository, revision: str, place: Path, *, writable: bool = False) -> Mounted:
    """Show a commit's tree at an empty directory until `unmount_view`. Raises ViewError."""
    commit = repository.resolve(revision)
    place = place.resolve()
    _check_place(place)
    folder = _folder(repository.path, place)
    view = Mounted(str(place), commit.id, writable)
    with _alone(repository.path), storage_errors("a mount"):
        _clear(folder, place)
        folder.mkdir(parents=True, mode=0o700)
        write_atomically(folder / "mount.json", json.dumps(asdict(view)).encode())
        try:
            lower = folder / "lower" if writable else place
            lower.mkdir(exist_ok=True)
            _mount_tree(repository, commit, lower)
            if writable:
                _mount_over(folder, place)
        except BaseException:
            _clear(folder, place)
            raise
    return view


def unmount_view(repository: Repository, place: Path) -> Mounted:
    """Take a view away, also one that is in use or whose server died; what was written to it goes, too."""
    place = place.absolute()
    with _alone(repository.path), storage_errors("an unmount"):
        for view in mounted_views(repository):
            if Path(view.place) in (place, Path(os.path.realpath(place))):
                _clear(_folder(repository.path, Path(view.place)), Path(view.place))
                return view
    raise ViewError(f"there is no view of this repository at {str(place)!r}; koguma image mount --list shows them")


def mounted_views(repository: Repository) -> list[Mounted]:
    """The views of this repository, dead ones too."""
    found = []
    places = _mount_points()
    for note in sorted((repository.path / "mounts").glob("*/mount.json")):
        try:
            view = Mounted(**json.loads(note.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue  # being taken away, or never finished
        alive = view.place in places and _can_be_read(view.place)
        found.append(Mounted(view.place, view.commit, view.writable, alive))
    return found


def _start_server(repository: Repository, tree: str, descriptor: int, watched: int) -> None:
    """Start what serves a tree; it outlives us, unless the pipe's other end is closed before the view is mounted."""
    words = [str(repository.path), tree, str(descriptor), str(watched)]
    null = subprocess.DEVNULL
    subprocess.run(
        [sys.executable, "-m", "koguma.images.viewfs", *words],
        stdin=null, stdout=null, stderr=null, pass_fds=(descriptor, watched), start_new_session=True, cwd="/",
        check=True,
    )  # fmt: skip


def _mount_tree(repository: Repository, commit: Commit, place: Path) -> None:
    with source(repository, commit.tree) as shown:
        _mount(shown.words, place, shown.descriptors)
        os.listdir(place)  # noqa: PTH208 - the first answer: the server is there, or the mount fails here


def _mount_over(folder: Path, place: Path) -> None:
    for name in ("upper", "work"):
        (folder / name).mkdir()
    status = (folder / "lower").stat()
    os.chown(folder / "upper", status.st_uid, status.st_gid)
    (folder / "upper").chmod(status.st_mode & 0o7777)
    layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    if any(mark in str(folder) for mark in ",:\\"):
        raise ViewError(f"a writable view needs a repository path without ',', ':' and '\\', got {str(folder)!r}")
    _mount(("-t", "overlay", "-o", f"{layers},index=off,metacopy=off,redirect_dir=off", "koguma"), place)


def _mount(words: Sequence[str], place: Path, descriptors: Sequence[int] = ()) -> None:
    run_tool(["mount", *words, str(place)], timeout_s=60, pass_fds=descriptors)


def _clear(folder: Path, place: Path) -> None:
    """Unmount what is noted in this folder and remove it. Nothing of it needs to be there."""
    if not folder.exists():
        return
    points = _mount_points()
    for point in (str(place), str(folder / "lower")):
        for _ in range(points.count(point)):
            run_tool(["umount", "--lazy", point], timeout_s=60)
    remove_tree(folder)


def _check_place(place: Path) -> None:
    if os.geteuid() != 0:
        raise ViewError(
            f"a mount needs root, got user id {os.geteuid()} ({place}); koguma image show REV:PATH does not"
        )
    if not place.is_dir():
        raise ViewError(f"a view is mounted at a directory, there is none at {str(place)!r}")
    if str(place) in _mount_points():
        raise ViewError(f"a view needs a directory where nothing is mounted, got {str(place)!r}")
    if any(place.iterdir()):
        raise ViewError(f"a view needs an empty directory, got {str(place)!r}")


def _folder(repository: Path, place: Path) -> Path:
    return repository / "mounts" / sha256(os.fsencode(place)).hexdigest()[:32]


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    with locked(repository / "locks" / "mounts", timeout_s=60, what="the mounts"):
        yield


def _mount_points() -> list[str]:
    """Where something is mounted, as often as something is."""
    return [os.fsdecode(mount.point) for mount in read_mounts().values()]


def _can_be_read(place: str) -> bool:
    try:
        os.statvfs(place)  # asks the server, while attributes would be answered from the kernel's memory
    except OSError:
        return False
    return True
