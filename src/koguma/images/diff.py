"""What changed between two trees: by file, and by package. Equal directories are not even opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from koguma.images.pathspec import PathSpec
from koguma.images.trees import DIRECTORY, FILE, KIND_NAMES, Entry, Read, differing, encode, walk

_FORMALITY = re.compile(r"((binary-only )?non-maintainer|team|qa|lts) upload\b[^.]*\.?$|acknowledge", re.IGNORECASE)
"""Points of changelogs that say who uploaded, and not what changed."""
_EMPTY_TREE = sha256(encode([])).digest()


class FileChange(NamedTuple):
    """One path. `aspects` of a changed one: type, content, mode, owner, xattrs, target, device, links, time.

    A named tuple, as Entry is one: a diff of two releases makes tens of thousands of them.
    """

    path: bytes
    change: str
    """added, removed or changed."""
    kind: str
    aspects: tuple[str, ...] = ()
    old_size: int = 0
    new_size: int = 0
    old: Entry | None = None
    new: Entry | None = None


class ChangelogEntry(NamedTuple):
    """What a package's maintainers say of one version."""

    version: str
    text: str
    """Lines as they wrote them, without the heading."""

    @property
    def head(self) -> str:
        """The first point that says something, on one line."""
        points: list[str] = []
        for line in self.text.splitlines():
            words = line.strip()
            if words.startswith("["):
                continue
            if words[:2] in ("* ", "- ") or not points:
                points.append(words.removeprefix("* ").removeprefix("- "))
            else:
                points[-1] += f" {words}"
        telling = (point for point in points if point.strip() and not _FORMALITY.match(point))
        return next(telling, points[0] if points else "").strip()


class PackageChange(NamedTuple):
    """One package: installed (no old version), removed (no new one), upgraded, downgraded, or changed (neither)."""

    name: str
    architecture: str
    change: str
    old_version: str | None
    new_version: str | None
    manager: str = "dpkg"
    """dpkg, rpm or apk."""
    changelog: tuple[ChangelogEntry, ...] = ()
    """The entries after the old version up to the new one, newest first, where the tree holds them."""


class Move(NamedTuple):
    """A file or directory that has the same content under another name now; its sides are in `Diff.files` too."""

    old_path: bytes
    new_path: bytes
    kind: str


class Diff(NamedTuple):
    files: tuple[FileChange, ...]
    packages: tuple[PackageChange, ...]
    moves: tuple[Move, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be told, for instance a package database that cannot be read."""


def diff_trees(read: Read, old: Entry, new: Entry, paths: PathSpec | None = None) -> Diff:
    """All changes from one root directory to another, in order of paths and of package names.

    With `paths`, only those files; packages are those of the whole trees then, too, unless there are limits.
    """
    changes = diff_files(read, old, new, paths)
    moves = find_moves(changes)
    if not changes or paths:
        return Diff(changes, (), moves)
    from koguma.images.packages import package_changes  # noqa: PLC0415 - a diff of some paths starts without it

    packages, notes = package_changes(read, old, new)
    return Diff(changes, packages, moves, notes)


def diff_files(read: Read, old: Entry, new: Entry, paths: PathSpec | None = None) -> tuple[FileChange, ...]:
    """The changes by file alone, in order of paths."""
    wanted = paths or None
    changes = [item for item in _compare_roots(old, new) if wanted is None or wanted.covers(b"")]
    if old.digest != new.digest:
        changes += _compare_directories(read, old, new, b"", wanted)
    return tuple(changes)


def differs(read: Read, old: Entry, new: Entry, paths: PathSpec) -> bool:
    """Whether anything that `paths` mean is different; looks no further than the first difference."""
    if paths.covers(b"") and changed_aspects(old, new):
        return True
    return old.digest != new.digest and any(True for _ in _compare_directories(read, old, new, b"", paths or None))


def find_moves(changes: tuple[FileChange, ...]) -> tuple[Move, ...]:
    """Pairs of a removed and an added path with one content, by digest alone: nothing is read.

    1. A directory that moved is told once, not for each file in it.
    2. Among several candidates one of the same name is taken, else the first.
    """
    gone: dict[tuple[int, bytes], list[FileChange]] = {}
    for item in changes:
        if item.change == "removed" and item.old and _can_be_known_again(item.old):
            gone.setdefault((item.old.kind, item.old.digest), []).append(item)
    moves: list[Move] = []
    inside: set[tuple[bytes, bytes]] = set()
    for item in changes if gone else ():
        if item.change != "added" or item.new is None:
            continue
        parent = item.path.rpartition(b"/")[0]
        candidates = gone.get((item.new.kind, item.new.digest), [])
        known = next((each for each in candidates if (each.path.rpartition(b"/")[0], parent) in inside), None)
        name = item.path.rpartition(b"/")[2]
        found = known or next((each for each in candidates if each.path.rpartition(b"/")[2] == name), None)
        found = found or next(iter(candidates), None)
        if found is None:
            continue
        candidates.remove(found)
        if item.new.kind == DIRECTORY:
            inside.add((found.path, item.path))
        if known is None:
            moves.append(Move(found.path, item.path, item.kind))
    return tuple(moves)


def _can_be_known_again(entry: Entry) -> bool:
    """Whether an equal content elsewhere says something: all empty files, and all empty directories, are alike."""
    return bool(entry.size) if entry.kind == FILE else entry.kind == DIRECTORY and entry.digest != _EMPTY_TREE


def _compare_roots(old: Entry, new: Entry) -> Iterator[FileChange]:
    if aspects := changed_aspects(old, new):
        yield FileChange(b".", "changed", "directory", aspects, 0, 0, old, new)


def _compare_directories(
    read: Read, old: Entry, new: Entry, path: bytes, wanted: PathSpec | None
) -> Iterator[FileChange]:
    """Depth first, with a stack of its own: generators within generators would hand each change up every level."""
    stack = [_pairs(read, old, new, path)]
    while stack:
        for below, left, right in stack[-1]:
            if wanted is not None and not wanted.leads_to(below):
                continue
            if left is None or right is None or (left.kind == DIRECTORY) != (right.kind == DIRECTORY):
                yield from _whole(read, left, below, "removed", wanted) if left else ()
                yield from _whole(read, right, below, "added", wanted) if right else ()
                continue
            if (wanted is None or wanted.covers(below)) and (aspects := changed_aspects(left, right)):
                yield FileChange(below, "changed", KIND_NAMES[right.kind], aspects, left.size, right.size, left, right)
            if left.kind == DIRECTORY and left.digest != right.digest:
                stack.append(_pairs(read, left, right, below))
                break
        else:
            stack.pop()


def _pairs(read: Read, old: Entry, new: Entry, path: bytes) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    """The names of two directories whose entries differ, with both, in order."""
    before, after = differing(read(old.digest), read(new.digest))
    prefix = path + b"/" if path else b""
    return iter([(prefix + name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())])


def _whole(read: Read, entry: Entry, path: bytes, change: str, wanted: PathSpec | None) -> Iterator[FileChange]:
    """Everything at and below a path that only one side has."""
    items = [(path, entry)] + (list(walk(read, entry, path)) if entry.kind == DIRECTORY else [])
    for below, item in items:
        if wanted is not None and not wanted.covers(below):
            continue
        if change == "removed":
            yield FileChange(below, change, KIND_NAMES[item.kind], (), item.size, 0, item, None)
        else:
            yield FileChange(below, change, KIND_NAMES[item.kind], (), 0, item.size, None, item)


_ATTRIBUTES = slice(Entry._fields.index("mode"), Entry._fields.index("size"))
_REST = slice(Entry._fields.index("digest") + 1, None)
"""Of an entry: all but its kind and content."""


def changed_aspects(old: Entry, new: Entry) -> tuple[str, ...]:
    """In what two entries of one path differ; a directory's content is told by what is in it."""
    if old.kind != new.kind:
        return ("type",)
    if old[_ATTRIBUTES] == new[_ATTRIBUTES] and old[_REST] == new[_REST]:
        return ("content",) if old.kind == FILE and old.digest != new.digest else ()
    return tuple(
        aspect
        for aspect, differ in (
            ("content", old.kind == FILE and old.digest != new.digest),
            ("mode", old.mode != new.mode),
            ("owner", old.uid != new.uid or old.gid != new.gid),
            ("xattrs", old.xattrs != new.xattrs),
            ("target", old.target != new.target),
            ("device", old.device != new.device),
            ("links", old.link != new.link),
            ("time", old.mtime_ns != new.mtime_ns),
        )
        if differ
    )
