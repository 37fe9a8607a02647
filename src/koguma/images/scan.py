"""From a directory on a disk to a tree in the repository: walk, compare with the stat cache, store what is new.

Steps of `scan`:
1. walk the directory; a directory whose signature is the cached one is taken as it was stored, and processes look
   ahead for such ones (`lookahead`);
2. of the others, read attributes of what changed and hand changed files to the hasher, which works meanwhile;
3. when the walk is over the names of every hard-linked file are known: give each group its id;
4. encode directories from the leaves up and store those that are new.
"""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path

from koguma.images.errors import TreeError
from koguma.images.files import storage_errors
from koguma.images.hashing import FileHasher
from koguma.images.inodes import compiled_stems, entry_of, kept_mtime_ns
from koguma.images.lookahead import Lookahead
from koguma.images.mounts import mounts_below, read_mounts
from koguma.images.objects import TREE, ObjectStore, ObjectWriter
from koguma.images.statcache import (
    RECENT_NS,
    SIGNATURE,
    UNTRUSTED,
    WHOLE_NS,
    CachedDirectory,
    StatCache,
    has_ctimes,
)
from koguma.images.trees import (
    DEPTH_MAX,
    DIRECTORY,
    EMPTY_DIGEST,
    FILE,
    Entry,
    decode,
    encode,
    encode_root,
    link_id,
    room_for_depth,
)

_NO_NAMES = b"\0\0"
"""The signature of an empty directory."""


class _Folder:
    """A directory of the walk, on its way to becoming a tree object. No dataclass: those take milliseconds to load."""

    __slots__ = ("cached", "entries", "folders", "path", "signature")

    def __init__(
        self, path: bytes, signature: bytes, cached: CachedDirectory | None, folders: dict[bytes, _Folder]
    ) -> None:
        self.path = path
        self.signature = signature
        self.cached = cached
        self.folders = folders
        self.entries: dict[bytes, Entry] | None = None
        """None while nothing but its subdirectories may differ from what is cached."""


class _Links:
    """Names that share an inode, met during the walk."""

    __slots__ = ("hashing", "names")

    def __init__(self) -> None:
        self.names: list[tuple[_Folder, bytes]] = []
        self.hashing = False


def scan(
    root: Path,
    store: ObjectStore,
    writer: ObjectWriter,
    cache_folder: Path,
    *,
    remember: bool = True,
    keep_times: bool = False,
    one_file_system: bool = False,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Store the tree below `root` and return the id of its root object.

    `remember` keeps the stat cache for the next time; a tree that will not be there again needs none. `progress` is
    told the bytes read. Raises TreeError for sockets, files that vanish and mounts inside the tree; with
    `one_file_system` a mount is an empty directory, or an empty file where no directory is mounted.
    """
    top = os.fsencode(root)
    try:
        status = os.stat(top)  # noqa: PTH116 - names are bytes
    except OSError as error:
        raise TreeError(f"a tree to commit must be a directory: {error.strerror} ({root})") from None
    if not stat.S_ISDIR(status.st_mode):
        raise TreeError(f"a tree to commit must be a directory, got something else ({root})")
    with storage_errors("a tree to commit"):
        mounts = read_mounts()
        mounted = _mounted_inside(root, mounts_below(root, mounts), one_file_system=one_file_system)
        telling = has_ctimes(top, mounts)
    cache = StatCache.load(cache_folder, root.resolve(), status.st_dev, keep_times=keep_times) if telling else None
    known = cache.directories if cache else {}
    with FileHasher(writer, progress) as hasher, _walking():
        walk = _Walk(
            top,
            status.st_dev,
            store,
            hasher,
            known,
            mounted,
            keep_times=keep_times,
            one_file_system=one_file_system,
        )
        tree, attributes = walk.tree(), entry_of(top, b"", status, status.st_mtime_ns if keep_times else None)
        hasher.finish()
        walk.settle()
        found: dict[bytes, CachedDirectory] = {}
        tree_id = writer.add(TREE, encode_root(attributes._replace(digest=_store(tree, store, writer, found))))
    if cache and remember and found != known:
        cache.save(found)
    return tree_id


def _mounted_inside(root: Path, points: list[bytes], *, one_file_system: bool) -> dict[bytes, set[bytes]]:
    """The names in directories of the tree where something is mounted, by the directories' paths."""
    top = os.fsencode(root.resolve()).rstrip(b"/")
    found: dict[bytes, set[bytes]] = {}
    for point in points:
        path = point[len(top) + 1 :]
        if not path:
            continue  # the tree itself is one
        if not one_file_system:
            raise _mount_inside(point)
        folder, _, name = path.rpartition(b"/")
        found.setdefault(folder, set()).add(name)
    return found


def _mount_inside(place: bytes) -> TreeError:
    return TreeError(
        f"a tree to commit may not have mounts inside, got {os.fsdecode(place)!r}; unmount it first, or take"
        " it as an empty directory with: koguma image import --one-file-system"
    )


class _walking:  # noqa: N801 - used like a function
    """Room for the deepest path; and the collector of cycles rests: a walk makes many objects and no cycles."""

    def __enter__(self) -> None:
        self._room = room_for_depth()
        self._room.__enter__()
        self._collected = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        self._room.__exit__(None, None, None)
        if self._collected:
            gc.enable()


class _Walk:
    def __init__(
        self,
        top: bytes,
        device: int,
        store: ObjectStore,
        hasher: FileHasher,
        cached: dict[bytes, CachedDirectory],
        mounted: dict[bytes, set[bytes]],
        *,
        keep_times: bool,
        one_file_system: bool,
    ) -> None:
        self._top = top
        self._device = device
        self._store = store
        self._hasher = hasher
        self._cached = cached
        self._mounted = mounted
        self._keep_times = keep_times
        self._one_file_system = one_file_system
        self._recent_ns = time.time_ns() - RECENT_NS
        self._links: dict[tuple[int, int], _Links] = {}
        self._hashed: list[tuple[_Folder, bytes, bytes, int]] = []

    def tree(self) -> _Folder:
        """Walk all of it."""
        with Lookahead([*self._cached], self._is_as_cached) as self._ahead:
            return self._folder(b"", 0)

    def _folder(self, path: bytes, depth: int) -> _Folder:
        if depth > DEPTH_MAX:
            raise TreeError(f"directories may be nested {DEPTH_MAX} deep, got more ({os.fsdecode(path)[:80]!r}…)")
        cached = self._cached.get(path)
        if cached and self._ahead.unchanged(path) and self._store.contains(cached.tree):
            folders = {name: self._folder(_joined(path, name), depth + 1) for name in cached.folders()}
            return _Folder(path, cached.signature, cached, folders)
        absolute = _joined(self._top, path)
        found, linked = self._list(absolute)
        mounted = self._mounted.get(path, set())
        signature, trusted = self._signature(found, mounted)
        folder = _Folder(path, signature, cached, {})
        for name, status in found:
            if stat.S_ISDIR(status.st_mode):
                if name in mounted or (status.st_dev != self._device and self._one_file_system):
                    folder.folders[name] = _Folder(_joined(path, name), _NO_NAMES, None, {})
                    continue
                if status.st_dev != self._device:
                    raise _mount_inside(absolute + b"/" + name)
                folder.folders[name] = self._folder(_joined(path, name), depth + 1)
        same = cached is not None and trusted and cached.signature == signature
        if linked or not same or cached is None or not self._store.contains(cached.tree):
            folder.entries = self._entries(folder, found, absolute)
        return folder

    def _is_as_cached(self, path: bytes) -> bool:
        """Whether a directory is as it was, with nothing in it that the whole tree must be known for."""
        if path in self._mounted:
            return False
        try:
            found, linked = self._list(_joined(self._top, path))
        except TreeError:
            return False
        signature, trusted = self._signature(found)
        here = all(status.st_dev == self._device for _, status in found)
        return here and trusted and not linked and self._cached[path].signature == signature

    def _list(self, absolute: bytes) -> tuple[list[tuple[bytes, os.stat_result]], bool]:
        """Names and statuses in order of names, and whether a file among them has more than one name."""
        try:
            with os.scandir(absolute) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            place = os.fsdecode(absolute)
            raise TreeError(f"a directory must stay readable during the commit: {error.strerror} ({place!r})") from None
        found.sort(key=_name)
        linked = any(status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) for _, status in found)
        return found, linked

    def _signature(
        self, found: list[tuple[bytes, os.stat_result]], mounted: Collection[bytes] = ()
    ) -> tuple[bytes, bool]:
        """The directory's signature, and whether the time of every file in it tells that it is as it was."""
        recent, pack = self._recent_ns, SIGNATURE.pack
        packed = [
            pack(status.st_ino, ctime, status.st_size, status.st_mode)
            if (ctime := status.st_ctime_ns) < recent and ctime % WHOLE_NS and name not in mounted
            else UNTRUSTED
            for name, status in found
        ]
        return b"\0".join([name for name, _ in found]) + b"\0\0" + b"".join(packed), UNTRUSTED not in packed

    def _entries(
        self, folder: _Folder, found: list[tuple[bytes, os.stat_result]], absolute: bytes
    ) -> dict[bytes, Entry]:
        entries: dict[bytes, Entry] = {}
        before = self._known(folder)
        signatures = CachedDirectory(b"", folder.signature).by_name()
        pycache = folder.folders.get(b"__pycache__")
        compiled = compiled_stems(_names(pycache.signature)) if pycache else ()
        mounted = self._mounted.get(folder.path, ())
        for name, status in found:
            mtime_ns = kept_mtime_ns(name, status, compiled, keep_times=self._keep_times)
            old = before.get(name)
            signature = signatures[name]
            if name in mounted and not stat.S_ISDIR(status.st_mode):
                entries[name] = _covered(name, status, mtime_ns)
                continue
            if old and signature != UNTRUSTED and old[1] == signature and old[0].mtime_ns == mtime_ns:
                entries[name] = old[0]
            else:
                entries[name] = self._new_entry(folder, name, status, absolute + b"/" + name, mtime_ns)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                self._links.setdefault((status.st_dev, status.st_ino), _Links()).names.append((folder, name))
        folder.entries = entries
        return entries

    def _known(self, folder: _Folder) -> dict[bytes, tuple[Entry, bytes]]:
        """Entries stored the last time with the signatures they had then."""
        if folder.cached is None or not self._store.contains(folder.cached.tree):
            return {}
        signatures = folder.cached.by_name()
        return {
            entry.name: (entry, signatures.get(entry.name, UNTRUSTED))
            for entry in decode(self._store.read(folder.cached.tree))
        }

    def _new_entry(
        self, folder: _Folder, name: bytes, status: os.stat_result, path: bytes, mtime_ns: int | None
    ) -> Entry:
        entry = entry_of(path, name, status, mtime_ns)
        if entry.kind != FILE:
            return entry
        if entry.size == 0:
            return entry._replace(digest=EMPTY_DIGEST)
        if status.st_nlink > 1:
            links = self._links.setdefault((status.st_dev, status.st_ino), _Links())
            if links.hashing:
                return entry  # its group gets the first name's digest when the walk is over
            links.hashing = True

        self._hasher.add(path, entry.size, lambda digest, size: self._hashed.append((folder, name, digest, size)))
        return entry

    def settle(self) -> None:
        """Fill in what was not known during the walk: digests of the files read, ids of the hard links."""
        for folder, name, digest, size in self._hashed:
            assert folder.entries is not None  # noqa: S101 - only folders with entries hash any
            folder.entries[name] = folder.entries[name]._replace(digest=digest, size=size)
        self._settle_links()

    def _settle_links(self) -> None:
        """Give the names of each hard-linked file their common id and digest; a lone name inside the tree is plain."""
        for links in self._links.values():
            members = [(folder, name, folder.entries or {}) for folder, name in links.names]
            paths = [folder.path + b"/" + name if folder.path else name for folder, name, _ in members]
            link = link_id(paths) if len(paths) > 1 else b""
            first = next(
                entries[name] for _, name, entries in members if entries[name].kind != FILE or entries[name].digest
            )
            for _, name, entries in members:
                entries[name] = entries[name]._replace(link=link, digest=first.digest, size=first.size)


def _covered(name: bytes, status: os.stat_result, mtime_ns: int | None) -> Entry:
    """What stands for a file, or whatever is no directory, that another one is mounted over."""
    mode = status.st_mode & 0o7777
    return Entry(name, FILE, mode, status.st_uid, status.st_gid, digest=EMPTY_DIGEST, mtime_ns=mtime_ns)


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder and name else folder or name


def _name(item: tuple[bytes, os.stat_result]) -> bytes:
    return item[0]


def _names(signature: bytes) -> list[bytes]:
    return signature.partition(b"\0\0")[0].split(b"\0")


def _store(folder: _Folder, store: ObjectStore, writer: ObjectWriter, found: dict[bytes, CachedDirectory]) -> bytes:
    """Store a directory and all below it; returns its tree's id and notes it for the stat cache."""
    digests = {name: _store(below, store, writer, found) for name, below in folder.folders.items()}
    entries = folder.entries
    if entries is None and folder.cached is not None:
        if all(_as_cached(folder.folders[name], digest) for name, digest in digests.items()):
            found[folder.path] = folder.cached
            return folder.cached.tree
        entries = {entry.name: entry for entry in decode(store.read(folder.cached.tree))}
    entries = entries or {}
    for name, digest in digests.items():
        entries[name] = entries[name]._replace(digest=digest)
    if any(entry.kind in (FILE, DIRECTORY) and not entry.digest for entry in entries.values()):
        raise TreeError(f"every file must have been read, got one without a digest ({folder.path!r})")
    tree = writer.add(TREE, encode(entries.values()))
    found[folder.path] = CachedDirectory(tree, folder.signature)
    return tree


def _as_cached(folder: _Folder, tree: bytes) -> bool:
    """Whether a directory's tree is still the one its parent's cached tree names; a cache is always saved whole."""
    return folder.cached is not None and folder.cached.tree == tree
