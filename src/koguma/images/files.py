"""Durable files: atomic replacement, fsync of directories, locks that die with their process.

Everything in this package that writes a file another process may read goes through here.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from koguma.images.errors import ImageError, StorageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARTS_MAX = 1024
"""Linux takes no more in one call."""


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`: after a crash it holds the old bytes or the new ones, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Where to make a large file; it gets its name, durable, when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """As `made_whole`, opened to be written."""
    with made_whole(path) as temporary, temporary.open("wb") as file:
        yield file


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte; `os.write` alone may write fewer, for instance on a disk that has just filled up."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    """As `write_all`, of many parts one after the other without joining them."""
    for start in range(0, len(parts), _PARTS_MAX):
        some = parts[start : start + _PARTS_MAX]
        written = os.writev(descriptor, some)
        if written < sum(map(len, some)):
            write_all(descriptor, memoryview(b"".join(some))[written:])


def begin_sync(descriptor: int, start: int, size: int) -> None:
    """Let the disk begin with bytes that were just written: the `fsync` at the end has less to wait for.

    The advice is to let go of them. Of what has yet to be written Linux does not; it only begins to write it.
    """
    os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner may enter, and such ones above it where they are missing."""
    if not path.is_dir():
        make_private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: without it a renamed file can vanish in a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Make everything durable that was written to the file system of `path`: for trees of files, once for all."""
    import ctypes  # noqa: PLC0415 - slow to load, and rarely needed

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, shared: bool = False, timeout_s: float = 600, what: str = "") -> Iterator[int]:
    """Hold an advisory lock on `path`; the kernel drops it when the process dies, however it dies.

    The block is given the descriptor: a process that inherits it holds the lock, too, until it ends. Raises ImageError
    when somebody else holds it for longer than `timeout_s`, StorageError when it cannot be locked.
    """
    with storage_errors(f"locking {what or 'a file'}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait_for_lock(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout_s, what)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, operation: int, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                held = what or "the lock"
                raise ImageError(f"{held} is held by another process for more than {timeout_s:g} s ({path})") from None
            time.sleep(0.02)
        else:
            return


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn what the operating system refuses inside the block into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise StorageError(f"{what} needs files it can read and write: {error.strerror or error}{place}") from error


def remove_tree(path: Path, *, first: str | None = None) -> None:
    """Remove a directory and everything in it; one that is not there is not an error.

    The file `first` in it is gone, durably, before anything else is. Raises StorageError for a directory that something
    is mounted in: removing it would empty what is mounted.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        from koguma.images.mounts import mounts_below  # noqa: PLC0415 - most commands remove nothing

        if mounts := mounts_below(path):
            place = os.fsdecode(mounts[0])
            raise StorageError(f"a directory to be removed must hold no mount, got {place}; umount it first")
        if first and (path / first).exists():
            (path / first).unlink()
            sync_directory(path)
        _remove_below(path)
        path.rmdir()


def _remove_below(path: Path) -> None:
    """Remove what is in a directory. However deep it is, that takes two descriptors and no recursion.

    The way back up is `..`; a directory that was moved away meanwhile would lead elsewhere, so it is compared.
    """
    descriptor = os.open(path, _DIRECTORY)
    above: list[tuple[str, list[str], tuple[int, int]]] = []
    try:
        folders = _unlink_files(descriptor)
        while folders or above:
            if folders:
                name = folders.pop()
                above.append((name, folders, _identity(descriptor)))
                descriptor = _moved_to(descriptor, name)
                folders = _unlink_files(descriptor)
            else:
                name, folders, identity = above.pop()
                descriptor = _moved_to(descriptor, "..")
                if _identity(descriptor) != identity:
                    raise StorageError(f"a directory may not be moved while it is removed, {name!r} was")
                os.rmdir(name, dir_fd=descriptor)
    except OSError as error:
        error.filename = str(path.joinpath(*(name for name, _, _ in above), str(error.filename)))
        raise
    finally:
        os.close(descriptor)


def _unlink_files(descriptor: int) -> list[str]:
    """The subdirectories that are left."""
    with os.scandir(descriptor) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            os.unlink(name, dir_fd=descriptor)
    return [name for name, is_folder in entries if is_folder]


def _moved_to(descriptor: int, name: str) -> int:
    following = os.open(name, _DIRECTORY, dir_fd=descriptor)
    os.close(descriptor)
    return following


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
