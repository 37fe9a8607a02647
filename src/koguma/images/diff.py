"""What changed between two trees: by file, and by Debian package. Equal directories are not even opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from koguma.images.debian import compare_versions, installed_packages
from koguma.images.trees import DIRECTORY, FILE, KIND_NAMES, Entry, Read, decode, walk


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path. `aspects` of a changed one: type, content, mode, owner, xattrs, target, device, links, time."""

    path: bytes
    change: str
    """added, removed or changed."""
    kind: str
    aspects: tuple[str, ...] = ()
    old_size: int = 0
    new_size: int = 0


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One package: installed (no old version), removed (no new one), upgraded or downgraded."""

    name: str
    architecture: str
    change: str
    old_version: str | None
    new_version: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    files: tuple[FileChange, ...]
    packages: tuple[PackageChange, ...]


def diff_trees(read: Read, old: Entry, new: Entry) -> Diff:
    """All changes from one root directory to another, in order of paths and of package names."""
    changes = list(_compare_roots(old, new))
    if old.digest != new.digest:
        changes += _compare_directories(read, old, new, b"")
    return Diff(tuple(changes), tuple(_package_changes(read, old, new)) if changes else ())


def _compare_roots(old: Entry, new: Entry) -> Iterator[FileChange]:
    if aspects := changed_aspects(old, new):
        yield FileChange(b".", "changed", "directory", aspects)


def _compare_directories(read: Read, old: Entry, new: Entry, path: bytes) -> Iterator[FileChange]:
    before = {entry.name: entry for entry in decode(read(old.digest))}
    after = {entry.name: entry for entry in decode(read(new.digest))}
    for name in sorted(before.keys() | after.keys()):
        left, right = before.get(name), after.get(name)
        if left == right:
            continue
        below = path + b"/" + name if path else name
        if left is None and right is not None:
            yield from _whole(read, right, below, "added")
        elif right is None and left is not None:
            yield from _whole(read, left, below, "removed")
        elif left is not None and right is not None:
            yield from _compare(read, left, right, below)


def _compare(read: Read, old: Entry, new: Entry, path: bytes) -> Iterator[FileChange]:
    if (old.kind == DIRECTORY) != (new.kind == DIRECTORY):
        yield from _whole(read, old, path, "removed")
        yield from _whole(read, new, path, "added")
        return
    if aspects := changed_aspects(old, new):
        yield FileChange(path, "changed", KIND_NAMES[new.kind], aspects, old.size, new.size)
    if old.kind == DIRECTORY and old.digest != new.digest:
        yield from _compare_directories(read, old, new, path)


def _whole(read: Read, entry: Entry, path: bytes, change: str) -> Iterator[FileChange]:
    """Everything at and below a path that only one side has."""
    items = [(path, entry)] + (list(walk(read, entry, path)) if entry.kind == DIRECTORY else [])
    for below, item in items:
        old_size, new_size = (item.size, 0) if change == "removed" else (0, item.size)
        yield FileChange(below, change, KIND_NAMES[item.kind], (), old_size, new_size)


def changed_aspects(old: Entry, new: Entry) -> tuple[str, ...]:
    """In what two entries of one path differ; a directory's content is told by what is in it."""
    if old.kind != new.kind:
        return ("type",)
    pairs = {
        "content": (old.digest, new.digest) if old.kind == FILE else (0, 0),
        "mode": (old.mode, new.mode),
        "owner": ((old.uid, old.gid), (new.uid, new.gid)),
        "xattrs": (old.xattrs, new.xattrs),
        "target": (old.target, new.target),
        "device": (old.device, new.device),
        "links": (old.link, new.link),
        "time": (old.mtime_ns, new.mtime_ns),
    }
    return tuple(aspect for aspect, (left, right) in pairs.items() if left != right)


def _package_changes(read: Read, old: Entry, new: Entry) -> Iterator[PackageChange]:
    before, after = installed_packages(read, old), installed_packages(read, new)
    for key in sorted(before.keys() | after.keys()):
        left, right = before.get(key), after.get(key)
        package = right or left
        if package is None or left == right:
            continue
        old_version, new_version = (left.version if left else None), (right.version if right else None)
        yield PackageChange(
            package.name, package.architecture, _package_change(old_version, new_version), old_version, new_version
        )


def _package_change(old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return "installed" if old is None else "removed"
    return "upgraded" if compare_versions(old, new) < 0 else "downgraded"
