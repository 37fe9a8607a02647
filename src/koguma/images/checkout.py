"""From a stored tree to a directory on a disk: everything the tree records, exactly.

Needs root for owners, devices and privileged attributes; without root these are skipped only when `as_user` says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from koguma.images.errors import TreeError
from koguma.images.files import write_all
from koguma.images.objects import STREAM_MIN_BYTES, ObjectStore
from koguma.images.trees import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, NORMAL_MTIME_NS, SYMLINK, Entry, decode

_SPARSE_MIN_BYTES = 65536
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_IN_FLIGHT_MAX = 64
_BATCH = 32


def checkout(store: ObjectStore, root: Entry, destination: Path, progress: Callable[[int], None] | None = None) -> None:
    """Write the tree below `root` to `destination`, which must not exist or be an empty directory.

    Runs of zero pages in large files become holes. Attributes of directories are set last, children first: writing
    into them would change their times, and a read-only one could not be written into at all without root.
    """
    top = os.fsencode(destination)
    _make_room(destination)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="checkout") as pool:
        writer = _Checkout(store, pool, progress)
        writer.fill(top, root)
        writer.finish()
    for path, entry in reversed(writer.directories):
        apply_attributes(path, entry)


def _make_room(destination: Path) -> None:
    try:
        destination.mkdir(parents=True)
    except FileExistsError:
        if not destination.is_dir() or any(destination.iterdir()):
            raise TreeError(f"a checkout needs a new or empty directory, got {str(destination)!r}") from None


class _Checkout:
    def __init__(self, store: ObjectStore, pool: ThreadPoolExecutor, progress: Callable[[int], None] | None) -> None:
        self._store = store
        self._pool = pool
        self._progress = progress
        self._first_names: dict[bytes, bytes] = {}
        self._later_names: list[tuple[bytes, bytes]] = []
        self._batch: list[tuple[bytes, Entry]] = []
        self._running: list[Future[int]] = []
        self.directories: list[tuple[bytes, Entry]] = []

    def fill(self, top: bytes, root: Entry) -> None:
        waiting = [(top, root)]
        while waiting:
            path, folder = waiting.pop()
            self.directories.append((path, folder))
            for entry in decode(self._store.read(folder.digest)):
                below = path + b"/" + entry.name
                if entry.kind == DIRECTORY:
                    os.mkdir(below, 0o700)  # noqa: PTH102 - names are bytes
                    waiting.append((below, entry))
                elif entry.link and entry.link in self._first_names:
                    self._later_names.append((self._first_names[entry.link], below))
                else:
                    if entry.link:
                        self._first_names[entry.link] = below
                    self._add(below, entry)

    def _add(self, path: bytes, entry: Entry) -> None:
        self._batch.append((path, entry))
        if len(self._batch) >= _BATCH or entry.size > STREAM_MIN_BYTES:
            self._submit()

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._running.append(self._pool.submit(self._write_batch, batch))
        if len(self._running) > _IN_FLIGHT_MAX:
            self._collect(self._running.pop(0))

    def _write_batch(self, batch: list[tuple[bytes, Entry]]) -> int:
        for path, entry in batch:
            create(self._store, path, entry)
            apply_attributes(path, entry)
        return sum(entry.size for _, entry in batch)

    def _collect(self, future: Future[int]) -> None:
        size = future.result()
        if self._progress:
            self._progress(size)

    def finish(self) -> None:
        self._submit()
        for future in self._running:
            self._collect(future)
        for first, later in self._later_names:
            os.link(first, later, follow_symlinks=False)


def create(store: ObjectStore, path: bytes, entry: Entry) -> None:
    if entry.kind == FILE:
        _write_file(store, path, entry)
    elif entry.kind == SYMLINK:
        os.symlink(entry.target, path)  # noqa: PTH211 - names are bytes
    elif entry.kind == FIFO:
        os.mkfifo(path, 0o600)
    elif entry.kind in (CHARACTER, BLOCK):
        node = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
        os.mknod(path, node | 0o600, os.makedev(*entry.device))


def _write_file(store: ObjectStore, path: bytes, entry: Entry) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if entry.size == 0:
            return
        if entry.size < STREAM_MIN_BYTES:
            _write_sparsely(descriptor, store.read(entry.digest))
        else:
            for piece in store.chunks(entry.digest):
                _write_sparsely(descriptor, piece)
        os.ftruncate(descriptor, entry.size)
    finally:
        os.close(descriptor)


def _write_sparsely(descriptor: int, content: bytes) -> None:
    """Write content at the current position, leaving holes where whole pages are zero."""
    if len(content) < _SPARSE_MIN_BYTES or _ZEROS not in content:
        write_all(descriptor, content)
        return
    view = memoryview(content)
    start = 0
    for at in range(0, len(content), _PAGE):
        if content.startswith(_ZEROS, at):
            write_all(descriptor, view[start:at])
            os.lseek(descriptor, _PAGE, os.SEEK_CUR)
            start = at + _PAGE
    write_all(descriptor, view[start:])


def apply_attributes(path: bytes, entry: Entry) -> None:
    """Owner, mode, extended attributes and time, in the order in which one does not undo another.

    A change of owner clears setuid bits and capabilities; an ACL must not be overwritten by the mode it contains.
    """
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != SYMLINK:
        os.chmod(path, entry.mode)  # noqa: PTH101 - names are bytes
    for name, value in entry.xattrs:
        os.setxattr(path, name, value, follow_symlinks=False)
    mtime_ns = NORMAL_MTIME_NS if entry.mtime_ns is None else entry.mtime_ns
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
