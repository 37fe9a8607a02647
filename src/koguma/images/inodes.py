"""From inodes on a disk to entries of a tree: the one place that turns what `lstat` and `listxattr` say into an Entry.

Used by the scan of a plain tree and by the reading of an edit's upper layer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection

from koguma.images.errors import TreeError
from koguma.images.trees import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    OVERLAY_XATTRS,
    SYMLINK,
    TARGET_MAX_BYTES,
    Entry,
    Xattrs,
)

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}
_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA, errno.EPERM)


def entry_of(path: bytes, name: bytes, status: os.stat_result, mtime_ns: int | None) -> Entry:
    """The entry of an inode, with the digest of a file or directory still to be filled in.

    Raises TreeError for a socket, which means nothing without the process that made it.
    """
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise TreeError(f"a tree may not hold sockets; remove it and commit again, got {os.fsdecode(path)!r}")
    target, device = b"", (0, 0)
    if kind == SYMLINK:
        target = os.readlink(path)  # noqa: PTH115 - names are bytes
        if len(target) > TARGET_MAX_BYTES:
            raise TreeError(
                f"a symbolic link's target has at most {TARGET_MAX_BYTES} bytes, got {len(target)} ({path!r})"
            )
    elif kind in (CHARACTER, BLOCK):
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return Entry(
        name=name,
        kind=kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == FILE else 0,
        target=target,
        device=device,
        mtime_ns=mtime_ns,
        xattrs=read_xattrs(path),
    )


def read_xattrs(path: bytes) -> Xattrs:
    """All extended attributes (capabilities, ACLs, labels), sorted by name; those of overlayfs itself left out."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise
    if not names:
        return ()
    raw = sorted(os.fsencode(name) for name in names)
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False)) for name in raw if not name.startswith(OVERLAY_XATTRS)
    )


def kept_mtime_ns(name: bytes, status: os.stat_result, compiled: Collection[bytes], *, keep_times: bool) -> int | None:
    """The modification time to record, or None for the normal one.

    A Python source with a compiled file beside it keeps its time even where times are normalised: the compiled file
    names that time, and with another one every machine would compile it again at every boot, into its memory.
    """
    if keep_times:
        return status.st_mtime_ns
    if compiled and name.endswith(b".py") and name[:-3] in compiled:
        return status.st_mtime_ns // 10**9 * 10**9
    return None


def compiled_stems(names: Collection[bytes]) -> set[bytes]:
    """Which modules have a compiled file, from the names in a `__pycache__`: `os.cpython-311.pyc` means `os`."""
    return {name.split(b".", 1)[0] for name in names if name.endswith(b".pyc")}
