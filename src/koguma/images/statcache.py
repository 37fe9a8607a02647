"""The stat cache: what a tree looked like when it was last committed, so that unchanged files are not read again.

It is only ever a shortcut: deleting it costs time, never correctness. One file per committed directory and way of
keeping times, drawn in FORMAT.md. A directory's signature holds, for each name in it, inode number,
ctime, size and mode. The ctime changes whenever content or any attribute does and cannot be set by a program, where
the file system keeps one (`has_ctimes`).
"""

from __future__ import annotations

import os
import stat
import struct
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import zstandard

from koguma.images.files import make_private_directory, write_all
from koguma.images.mounts import Mounts, mount_of

MAGIC = b"KOGUSTAT"
VERSION = 2
RECENT_NS = 100_000_000
"""Files changed this shortly before the walk are not trusted: a later change could bear the same ctime."""
WHOLE_NS = 10**9
"""Nor are files whose ctime has whole seconds: where no parts of them are kept all changes of a second bear the same,
and who makes an image gives every file the same."""
_WITH_CTIMES = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs")
"""Local file systems of Linux that say when a file changed. Those that are left out make a ctime up (squashfs, erofs,
iso9660: the same for every image, with the same inode numbers; vfat), or say what a server says (nfs, 9p, FUSE)."""

SIGNATURE = struct.Struct("<QqQI")
"""Inode number, ctime in nanoseconds, size, mode."""
UNTRUSTED = SIGNATURE.pack(0, 0, 0, 0)

_HEADER = struct.Struct("<8sI32s")
_RECORD = struct.Struct("<II32s")


def has_ctimes(path: bytes, mounts: Mounts) -> bool:
    """Whether the file system of a directory tells by the ctime that a file changed.

    An overlay does when its layers do. Those that cannot be seen from here, as in a container, count as such: of what
    is likely to be one and keeps none, squashfs and tars that are served, the times are whole seconds.
    """
    mount = mounts.get(mount_of(path))
    if mount is None:
        return False
    if mount.kind == "overlay":
        seen = [layer for layer in mount.layers() if layer.startswith(b"/") and os.path.isdir(layer)]  # noqa: PTH112
        return all(has_ctimes(layer, mounts) for layer in seen)
    return mount.kind in _WITH_CTIMES


class CachedDirectory(NamedTuple):
    """A directory as it was: its tree's id, and its signature (names joined by NUL, two NULs, one SIGNATURE each)."""

    tree: bytes
    signature: bytes

    def by_name(self) -> dict[bytes, bytes]:
        names, _, packed = self.signature.partition(b"\0\0")
        step = SIGNATURE.size
        parts = names.split(b"\0") if names else []
        return {name: packed[step * at : step * at + step] for at, name in enumerate(parts)}

    def folders(self) -> list[bytes]:
        """The names that are directories."""
        names, _, packed = self.signature.partition(b"\0\0")
        parts = zip(names.split(b"\0"), SIGNATURE.iter_unpack(packed), strict=False)
        return [name for name, (_, _, _, mode) in parts if stat.S_ISDIR(mode)]


class StatCache:
    """The cached directories of one tree, by path relative to its root."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key
        self.directories: dict[bytes, CachedDirectory] = {}

    @classmethod
    def load(cls, folder: Path, root: Path, device: int, *, keep_times: bool) -> StatCache:
        """The cache of this tree; an empty one when there is none or it is damaged."""
        key = sha256(b"\0".join((os.fsencode(root), str(device).encode(), str(keep_times).encode()))).digest()
        cache = cls(folder / key.hex()[:32], key)
        try:
            cache.directories = _decode(cache._path.read_bytes(), key)
        except (OSError, ValueError, struct.error, zstandard.ZstdError):
            cache.directories = {}
        return cache

    def save(self, directories: dict[bytes, CachedDirectory]) -> None:
        """Replace the cache. Not synced: after a power failure a damaged cache is ignored."""
        body: list[bytes] = []
        for path, item in directories.items():
            body += (_RECORD.pack(len(path), len(item.signature), item.tree), path, item.signature)
        packed = zstandard.ZstdCompressor(level=1).compress(b"".join(body))
        data = _HEADER.pack(MAGIC, VERSION, self._key) + packed
        make_private_directory(self._path.parent)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data + sha256(data).digest())
        finally:
            os.close(descriptor)
        temporary.rename(self._path)


def cached_trees(path: Path) -> set[bytes]:
    """The trees that a stat cache's file names; none when it is damaged."""
    try:
        data = path.read_bytes()
        return {item.tree for item in _decode(data, data[_HEADER.size - 32 : _HEADER.size]).values()}
    except (OSError, ValueError, struct.error, zstandard.ZstdError):
        return set()


def _decode(data: bytes, key: bytes) -> dict[bytes, CachedDirectory]:
    if sha256(memoryview(data)[:-32]).digest() != data[-32:]:
        raise ValueError("the cache does not match its digest")
    magic, version, found = _HEADER.unpack_from(data)
    if (magic, version, found) != (MAGIC, VERSION, key):
        raise ValueError("the cache is another one")
    data = zstandard.ZstdDecompressor().decompress(memoryview(data)[_HEADER.size : -32])
    directories: dict[bytes, CachedDirectory] = {}
    at, end = 0, len(data)
    while at < end:
        path_bytes, signature_bytes, tree = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        path = data[at : at + path_bytes]
        at += path_bytes
        directories[path] = CachedDirectory(tree, data[at : at + signature_bytes])
        at += signature_bytes
    return directories
