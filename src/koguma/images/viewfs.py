"""A commit's tree as a file system that can be mounted at once: directories and contents are read when asked for.

`python -m koguma.images.viewfs REPOSITORY TREE FUSE PIPE` serves it in the background, on the descriptor of an open
`/dev/fuse`, until it is unmounted; `views` starts that and mounts it. Everything a tree records is shown: owners,
attributes, ACLs, hard links, times.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from koguma.images.errors import ImageError
from koguma.images.fuse import ROOT, Attributes, serve
from koguma.images.objects import ObjectStore
from koguma.images.trees import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    NORMAL_MTIME_NS,
    SYMLINK,
    Entry,
    decode,
    read_root,
    walk,
)

_TYPES = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    CHARACTER: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}
_KEPT_BYTES = 48 * 1024 * 1024
"""Contents that stay unpacked for the next piece somebody reads of them."""
_SPOOL_MIN_BYTES = 8 * 1024 * 1024
"""Larger contents are unpacked to a file without a name: memory does not grow with the largest file."""
_SPOOLS_MAX = 16


class TreeFileSystem:
    """The FileSystem of one root. Nodes get numbers in the order they are met, and keep them."""

    def __init__(self, store: ObjectStore, root: Entry, scratch: Path) -> None:
        self._store = store
        self._root = root
        self._contents = _Contents(store, scratch)
        self._entries: list[Entry] = [root, root]  # node 0 is none
        self._folders: dict[int, dict[bytes, int]] = {}
        self._linked: dict[bytes, int] = {}
        self._links: dict[bytes, int] | None = None
        self._guard = threading.Lock()

    def attributes(self, node: int) -> Attributes:
        entry = self._entries[node]
        return Attributes(
            node=node,
            mode=_TYPES[entry.kind] | entry.mode,
            size=len(entry.target) if entry.kind == SYMLINK else entry.size,
            links=self._links_of(entry),
            uid=entry.uid,
            gid=entry.gid,
            device=os.makedev(*entry.device),
            mtime_ns=NORMAL_MTIME_NS if entry.mtime_ns is None else entry.mtime_ns,
        )

    def lookup(self, folder: int, name: bytes) -> Attributes | None:
        node = self._folder(folder).get(name)
        return None if node is None else self.attributes(node)

    def names(self, folder: int) -> Sequence[bytes]:
        return list(self._folder(folder))

    def target(self, node: int) -> bytes:
        return self._entries[node].target

    def read(self, node: int, offset: int, size: int) -> bytes:
        entry = self._entries[node]
        if offset >= entry.size:
            return b""
        try:
            return self._contents.read(entry, offset, size)
        except ImageError as error:
            raise OSError(errno.EIO, str(error)) from error

    def xattrs(self, node: int) -> Sequence[tuple[bytes, bytes]]:
        return self._entries[node].xattrs

    def _folder(self, node: int) -> dict[bytes, int]:
        """The nodes of a directory by name."""
        found = self._folders.get(node)
        if found is not None:
            return found
        entry = self._entries[node]
        if entry.kind != DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        try:
            entries = decode(self._store.read(entry.digest))
        except ImageError as error:
            raise OSError(errno.EIO, str(error)) from error
        with self._guard:
            if node not in self._folders:
                self._folders[node] = {item.name: self._number(item) for item in entries}
        return self._folders[node]

    def _number(self, entry: Entry) -> int:
        """A new node; names of one file are one node."""
        if entry.link and (known := self._linked.get(entry.link)):
            return known
        self._entries.append(entry)
        number = len(self._entries) - 1
        if entry.link:
            self._linked[entry.link] = number
        return number

    def _links_of(self, entry: Entry) -> int:
        """How many names a file has: known after a walk over the whole tree, made for the first that has several."""
        if not entry.link:
            return 1
        if self._links is None:
            links: dict[bytes, int] = {}
            for _, item in walk(self._store.read, self._root):
                if item.link:
                    links[item.link] = links.get(item.link, 0) + 1
            self._links = links
        return self._links[entry.link]


class _Contents:
    """Unpacked contents, the last ones used."""

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._spools: OrderedDict[bytes, int] = OrderedDict()
        self._guard = threading.Lock()

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        if entry.size >= _SPOOL_MIN_BYTES:
            with self._guard:  # held while a large file is unpacked: its other readers want the same
                return os.pread(self._spool(entry), size, offset)
        content = self._kept.get(entry.digest)
        if content is None:
            content = self._store.read(entry.digest)
            if offset or size < entry.size:  # the rest will be asked for; what is read whole stays with the kernel
                self._keep(entry.digest, content)
        return content[offset : offset + size]

    def _keep(self, digest: bytes, content: bytes) -> None:
        with self._guard:
            if digest not in self._kept:
                self._kept[digest] = content
                self._kept_bytes += len(content)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _spool(self, entry: Entry) -> int:
        if entry.digest in self._spools:
            self._spools.move_to_end(entry.digest)
            return self._spools[entry.digest]
        if len(self._spools) >= _SPOOLS_MAX:
            os.close(self._spools.popitem(last=False)[1])
        descriptor = os.open(self._scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            for piece in self._store.chunks(entry.digest):
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
        except BaseException:
            os.close(descriptor)
            raise
        self._spools[entry.digest] = descriptor
        return descriptor


def main(arguments: Sequence[str]) -> None:
    """Serve until unmounted. Before it is mounted the other end of the pipe must stay open: somebody wants it."""
    repository, tree, descriptor, pipe = Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    if os.fork():
        os._exit(0)
    store = ObjectStore(repository / "packs", repository / "locks" / "objects")
    root = read_root(store.read_verified, bytes.fromhex(tree))
    files = TreeFileSystem(store, root, repository / "tmp")
    files.lookup(ROOT, b"")  # a tree that cannot be read shows here, not in every program that looks at the view
    serve(descriptor, files, lambda: not select.select([pipe], [], [], 0)[0])


if __name__ == "__main__":
    main(sys.argv[1:])
