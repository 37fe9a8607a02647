"""Lays a stored tree out as the upper layer of an overlay over another one: what differs, as the kernel would write it.

The reverse of `overlay`. A name that is gone is a character device 0:0; directories that both trees have are only
opened where something in them differs, so that the cost is that of the difference.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from koguma.images.checkout import apply_attributes, create
from koguma.images.errors import EditError
from koguma.images.inodes import entry_of
from koguma.images.objects import ObjectStore
from koguma.images.trees import CHARACTER, DIRECTORY, FILE, Entry, decode, lookup, room_for_depth, walk

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
"""With the value "y" on a directory that replaced the lower one."""


@room_for_depth()
def lay_out(store: ObjectStore, lower: Entry, wanted: Entry, upper: Path) -> None:
    """Fill an empty upper layer so that over `lower` it shows `wanted`. Needs root."""
    layer = _Layer(store, os.fsencode(upper))
    layer.directory(b"", lower, wanted)
    layer.complete_links(wanted)
    layer.finish(wanted)
    apply_attributes(os.fsencode(upper), wanted)


def replace_paths(store: ObjectStore, lower: Entry, tree: Entry | None, paths: Sequence[bytes], upper: Path) -> None:
    """Let the layer show of these paths what another tree has there, or nothing when that has nothing there.

    Names that the tree has for a file laid out so become links to it where they show the same. Raises EditError, before
    anything changes, when a path's directory is not there or what is to be shown looks like a mark of the layer.
    """
    layer = _Layer(store, os.fsencode(upper))
    chosen = [path for path in dict.fromkeys(paths) if not any(_is_below(path, other) for other in paths)]
    wanted = {path: lookup(store.read, tree, path) if tree else None for path in chosen}
    for path, entry in wanted.items():
        if not path:
            raise EditError("the root directory cannot be replaced as a whole, only its mode, owner and attributes")
        layer.check_way(path)
        if entry is not None:
            layer.refuse_marks(path, entry)
    for path, entry in wanted.items():
        _remove(os.fsencode(upper) + b"/" + path)
        folder, _, name = path.rpartition(b"/")
        layer.name(folder, name, None if layer.hides_lower(path) else lookup(store.read, lower, path), entry)
    if tree is not None:
        layer.join_links(lower, tree)
    layer.finish(*(item for item in (lower, tree) if item))


def change_attributes(
    store: ObjectStore, lower: Entry, path: bytes, change: Callable[[Entry], Entry], upper: Path
) -> None:
    """Give what the layer shows at a path other attributes; what is in it, or below it, stays.

    Raises EditError when nothing is there.
    """
    layer = _Layer(store, os.fsencode(upper))
    layer.check_way(path)
    shown = layer.shown(path, lower)
    if shown is None:
        raise EditError(f"what gets another mode, owner or attribute must be there, got {os.fsdecode(path)!r}")
    wanted = change(shown)
    layer.copy_up(path, shown, lower)
    layer.finish(lower)
    layer.set_attributes(path, shown, wanted)


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
            if entry.link in self._linked and not os.path.lexists(self._place(path)) and not self.hides_lower(path):
                self._open(path.rpartition(b"/")[0])
                self._file(path, entry)

    def join_links(self, lower: Entry, tree: Entry) -> None:
        """Make the names that `tree` has for a file laid out here links to it, where what they show is the same."""
        if not self._linked:
            return
        for path, entry in walk(self._store.read, tree):
            if entry.link not in self._linked or self._linked[entry.link] == path:
                continue
            shown = self.shown(path, lower)
            if shown is not None and _without_time(shown) == _without_time(entry):
                _remove(self._place(path))
                self._open(path.rpartition(b"/")[0])
                self._file(path, entry)

    def copy_up(self, path: bytes, shown: Entry, lower: Entry) -> None:
        """Have in the layer what only the lower tree has at a path; of a directory, nothing that is in it."""
        if os.path.lexists(self._place(path)):
            return
        if shown.kind == DIRECTORY:
            self._open(path)
            return
        self.refuse_marks(path, shown)
        self._open(path.rpartition(b"/")[0])
        self._file(path, shown)
        self.complete_links(lower)

    def set_attributes(self, path: bytes, old: Entry, new: Entry) -> None:
        for name in dict(old.xattrs).keys() - dict(new.xattrs).keys():
            os.removexattr(self._place(path), name, follow_symlinks=False)
        apply_attributes(self._place(path), new)

    def shown(self, path: bytes, lower: Entry) -> Entry | None:
        """What the layer shows at a path over `lower`; a directory of the layer without the id of its tree."""
        place = self._place(path)
        if not os.path.lexists(place):
            return None if self.hides_lower(path) else lookup(self._store.read, lower, path)
        status = os.lstat(place)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return None
        entry = entry_of(place, path.rpartition(b"/")[2], status, status.st_mtime_ns)
        return entry._replace(digest=_digest_of(place)) if entry.kind == FILE else entry

    def hides_lower(self, path: bytes) -> bool:
        """Whether something of the layer on the way to a path hides what the lower tree has there."""
        return any(os.path.lexists(way) and (not _is_directory(way) or _is_opaque(way)) for way in self._ways(path))

    def check_way(self, path: bytes) -> None:
        if any(os.path.lexists(way) and not _is_directory(way) for way in self._ways(path)):
            raise EditError(f"the directory of {os.fsdecode(path)!r} must be there; settle that first")

    def refuse_marks(self, path: bytes, entry: Entry) -> None:
        """Refuse a device that the kernel would read as the mark of a removed name."""
        below = walk(self._store.read, entry, path) if entry.kind == DIRECTORY else iter(())
        for place, item in (*below, (path, entry)):
            if item.kind == CHARACTER and item.device == (0, 0):
                raise EditError(
                    f"an edit cannot hold a character device 0:0, which says there that a name was removed, got"
                    f" {os.fsdecode(place)!r}"
                )

    def finish(self, *trees: Entry) -> None:
        """Set the attributes of directories, children first: writing into them has changed their times.

        Those on the way get what the first of these trees that has them says.
        """
        for path in sorted(self._made, reverse=True):
            found = (lookup(self._store.read, tree, path) for tree in trees)
            entry = self._made[path] or next((item for item in found if item and item.kind == DIRECTORY), None)
            if entry is not None:
                apply_attributes(self._place(path), entry)

    def _ways(self, path: bytes) -> Iterator[bytes]:
        """The directories of the layer on the way to a path."""
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            yield self._top + b"/" + b"/".join(parts[:count])

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


def _is_below(path: bytes, other: bytes) -> bool:
    return path.startswith(other + b"/")


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _is_opaque(path: bytes) -> bool:
    marks = os.listxattr(path, follow_symlinks=False)
    return any(mark in marks and os.getxattr(path, mark, follow_symlinks=False) == b"y" for mark in _OPAQUE)


def _digest_of(path: bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - names are bytes
        return hashlib.file_digest(file, "sha256").digest()


def _without_time(entry: Entry) -> Entry:
    return entry._replace(mtime_ns=None, link=b"")


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
