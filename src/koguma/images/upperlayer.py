"""Lays a stored tree out as the upper layer of an overlay over another one: what differs, as the kernel would write it.

The reverse of `overlay`. A name that is gone is a character device 0:0; directories that both trees have are only
opened where something in them differs, so that the cost is that of the difference.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from koguma.images.checkout import apply_attributes, create
from koguma.images.errors import EditError
from koguma.images.objects import ObjectStore
from koguma.images.trees import DIRECTORY, Entry, decode, lookup, walk


def lay_out(store: ObjectStore, lower: Entry, wanted: Entry, upper: Path) -> None:
    """Fill an empty upper layer so that over `lower` it shows `wanted`. Needs root."""
    layer = _Layer(store, os.fsencode(upper))
    layer.directory(b"", lower, wanted)
    layer.complete_links(wanted)
    layer.finish(wanted)
    apply_attributes(os.fsencode(upper), wanted)


def replace_path(store: ObjectStore, lower: Entry, tree: Entry, path: bytes, upper: Path) -> None:
    """Let the layer show of one path what another tree has there, or nothing when that has nothing there."""
    target = os.fsencode(upper) + b"/" + path
    _check_way(os.fsencode(upper), path)
    _remove(target)
    layer = _Layer(store, os.fsencode(upper))
    folder, _, name = path.rpartition(b"/")
    layer.name(folder, name, lookup(store.read, lower, path), lookup(store.read, tree, path))
    layer.finish(lower, tree)


class _Layer:
    def __init__(self, store: ObjectStore, top: bytes) -> None:
        self._store = store
        self._top = top
        self._made: dict[bytes, Entry | None] = {}
        """Directories of the layer made here; None: only on the way to something, with the attributes the tree has."""
        self._linked: dict[bytes, bytes] = {}
        """The first name laid out of each hard-linked file."""

    def directory(self, path: bytes, lower: Entry | None, wanted: Entry) -> None:
        before, after = self._children(lower), self._children(wanted)
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                self.name(path, name, before.get(name), after.get(name))

    def name(self, folder: bytes, name: bytes, lower: Entry | None, wanted: Entry | None) -> None:
        """Lay out one name of a directory."""
        path = folder + b"/" + name if folder else name
        if wanted is None:
            if lower is not None:
                self._open(folder)
                os.mknod(self._place(path), stat.S_IFCHR, os.makedev(0, 0))
        elif wanted.kind == DIRECTORY:
            self._open(path)
            self._made[path] = wanted
            self.directory(path, lower if lower and lower.kind == DIRECTORY else None, wanted)
        elif lower != wanted:
            self._open(folder)
            self._file(path, wanted)

    def complete_links(self, wanted: Entry) -> None:
        """A file of which one name is in the layer has all its names there: a link cannot reach into the lower one."""
        if not self._linked:
            return
        for path, entry in walk(self._store.read, wanted):
            if entry.link in self._linked and not os.path.lexists(self._place(path)):
                self._open(path.rpartition(b"/")[0])
                self._file(path, entry)

    def finish(self, *trees: Entry) -> None:
        """Set the attributes of directories, children first: writing into them has changed their times.

        Those on the way get what the first of these trees that has them says.
        """
        for path in sorted(self._made, reverse=True):
            found = (lookup(self._store.read, tree, path) for tree in trees)
            entry = self._made[path] or next((item for item in found if item and item.kind == DIRECTORY), None)
            if entry is not None:
                apply_attributes(self._place(path), entry)

    def _children(self, entry: Entry | None) -> dict[bytes, Entry]:
        return {child.name: child for child in decode(self._store.read(entry.digest))} if entry else {}

    def _open(self, path: bytes) -> None:
        """Make a directory of the layer and those above it."""
        if path and not os.path.lexists(self._place(path)):
            self._open(path.rpartition(b"/")[0])
            os.mkdir(self._place(path), 0o700)  # noqa: PTH102 - names are bytes
            self._made[path] = None

    def _file(self, path: bytes, entry: Entry) -> None:
        if entry.link in self._linked:
            os.link(self._place(self._linked[entry.link]), self._place(path), follow_symlinks=False)
            return
        create(self._store, self._place(path), entry)
        apply_attributes(self._place(path), entry)
        if entry.link:
            self._linked[entry.link] = path

    def _place(self, path: bytes) -> bytes:
        return self._top + b"/" + path if path else self._top


def _ways(top: bytes, path: bytes) -> Iterator[bytes]:
    """The directories of the layer on the way to a path."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield top + b"/" + b"/".join(parts[:count])


def _check_way(top: bytes, path: bytes) -> None:
    for way in _ways(top, path):
        if os.path.lexists(way) and not stat.S_ISDIR(os.lstat(way).st_mode):
            raise EditError(f"the directory of {os.fsdecode(path)!r} must be there; settle that first")


def _remove(path: bytes) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)  # noqa: PTH108 - names are bytes
        return
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        _remove(path + b"/" + name)
    os.rmdir(path)  # noqa: PTH106 - names are bytes
