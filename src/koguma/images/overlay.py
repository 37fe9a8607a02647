"""Reads the upper layer of an overlayfs into a draft of the lower tree, at the cost of what an edit changed.

The kernel's marks: a character device 0:0 is a name that was removed, `trusted.overlay.opaque` a directory that
replaced the lower one, `trusted.overlay.origin` a file that was copied from below; in a user namespace they are
`user.overlay.…`. Only those of the two that the kernel writes here are read: the others are attributes like any other,
which a copy from below takes along. Redirects and metacopies are off in our mounts; one found is refused, as it would
lose content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from hashlib import sha256

from koguma.images import usernamespace
from koguma.images.draft import Folder, link_ids_in, settle_links
from koguma.images.errors import TreeError
from koguma.images.hashing import FileHasher
from koguma.images.inodes import compiled_stems, entry_of, kept_mtime_ns
from koguma.images.trees import DIRECTORY, EMPTY_DIGEST, FILE, LINK_BYTES, Entry, room_for_depth


@room_for_depth()
def apply_upper(
    upper: bytes, root: Folder, hasher: FileHasher, *, keep_times: bool = False, left_out: Collection[bytes] = ()
) -> None:
    """Change the draft `root` as the upper layer says, but for the paths `left_out` of the layer.

    The hasher is finished when this returns.
    """
    layer = _Layer(hasher, keep_times=keep_times, left_out=left_out)
    status = os.lstat(upper)
    layer.merge(upper, root)
    attributes = entry_of(upper, b"", status, status.st_mtime_ns if keep_times else None)
    root.entry = attributes._replace(digest=root.entry.digest)
    hasher.finish()
    layer.settle(root)


def is_copied_up(path: bytes) -> bool:
    """Whether a file of an upper layer was copied there from below, and not made in its place."""
    return _mark("origin") in os.listxattr(path, follow_symlinks=False)


def _mark(name: str) -> str:
    """The attribute that the kernel notes something by, of those who mount here."""
    return f"{'user' if usernamespace.is_inside() else 'trusted'}.overlay.{name}"


class _Layer:
    def __init__(self, hasher: FileHasher, *, keep_times: bool, left_out: Collection[bytes]) -> None:
        self._hasher = hasher
        self._keep_times = keep_times
        self._left_out = left_out
        self._opaque = _mark("opaque")
        self._refused = (_mark("redirect"), _mark("metacopy"))
        self._hashed: list[tuple[Folder, bytes, bytes, int]] = []
        self._inodes: dict[int, list[tuple[Folder, bytes]]] = {}
        self._affected: set[bytes] = set()

    def merge(self, path: bytes, folder: Folder) -> None:
        """Apply one directory of the layer to the folder it lies over; subdirectories first, for the sake of
        `__pycache__`, whose names decide which sources keep their times."""
        with os.scandir(path) as entries:
            found = sorted(
                (entry.name, entry.stat(follow_symlinks=False))
                for entry in entries
                if not self._left_out or entry.path not in self._left_out
            )
        for name, status in found:
            if stat.S_ISDIR(status.st_mode):
                self._merge_directory(path + b"/" + name, name, status, folder)
        pycache = folder.folder(b"__pycache__")
        compiled = compiled_stems(list(pycache.names())) if pycache else ()
        for name, status in found:
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self._forget(folder.remove(name))
            elif not stat.S_ISDIR(status.st_mode):
                mtime_ns = kept_mtime_ns(name, status, compiled, keep_times=self._keep_times)
                self._put(path + b"/" + name, name, status, folder, mtime_ns)

    def _merge_directory(self, path: bytes, name: bytes, status: os.stat_result, folder: Folder) -> None:
        marks = set(os.listxattr(path, follow_symlinks=False))
        for mark in self._refused:
            if mark in marks:
                raise TreeError(f"an edit's layer may not have {mark}, got it on {os.fsdecode(path)!r}")
        old = folder.get(name)
        entry = entry_of(path, name, status, status.st_mtime_ns if self._keep_times else None)
        below = folder.folder(name)
        if below is None or (self._opaque in marks and _says_yes(path, self._opaque)):
            self._forget(below or folder.children.get(name))
            below = folder.put_folder(entry)
        elif old is not None:
            below.entry = entry._replace(digest=old.digest)
        self.merge(path, below)

    def _put(self, path: bytes, name: bytes, status: os.stat_result, folder: Folder, mtime_ns: int | None) -> None:
        if any(mark in self._refused for mark in os.listxattr(path, follow_symlinks=False)):
            raise TreeError(f"an edit's layer may not have files without their content, got {os.fsdecode(path)!r}")
        entry = entry_of(path, name, status, mtime_ns)
        old = folder.get(name)
        if old is not None:
            self._forget(folder.folder(name) or old)
        if status.st_nlink > 1:
            self._inodes.setdefault(status.st_ino, []).append((folder, name))
        if entry.kind == FILE and entry.size == 0:
            entry = entry._replace(digest=EMPTY_DIGEST)
        folder.put(entry)
        if entry.kind == FILE and entry.size:
            self._hasher.add(path, entry.size, lambda digest, size: self._hashed.append((folder, name, digest, size)))

    def _forget(self, item: Entry | Folder | None) -> None:
        self._affected |= link_ids_in(item)

    def settle(self, root: Folder) -> None:
        """Fill in digests, then link ids: names that share an inode of the layer get a provisional common id first."""
        for folder, name, digest, size in self._hashed:
            entry = folder.get(name)
            assert entry is not None  # noqa: S101 - put there by _put
            folder.put(entry._replace(digest=digest, size=size))
        for inode, names in self._inodes.items():
            provisional = sha256(b"inode %d" % inode).digest()[:LINK_BYTES]
            self._affected.add(provisional)
            for folder, name in names:
                if (entry := folder.get(name)) and entry.kind != DIRECTORY:
                    folder.put(entry._replace(link=provisional))
        settle_links(root, self._affected)


def _says_yes(path: bytes, mark: str) -> bool:
    return os.getxattr(path, mark, follow_symlinks=False) == b"y"
