"""What a layer must hold so that one tree becomes another: new and changed entries, and whiteouts for the rest.

Pure: from two stored trees to a list of paths and entries. Directories with equal trees and attributes are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from koguma.images.errors import TreeError
from koguma.images.importing.grafting import WHITEOUT
from koguma.images.trees import DIRECTORY, EMPTY_DIGEST, FILE, Entry, Read, decode, walk

_WHITEOUT_ENTRY = Entry(b"", FILE, 0, 0, 0, digest=EMPTY_DIGEST)
Paths = dict[bytes, Entry]


def difference(read: Read, base: Entry, new: Entry) -> Iterator[tuple[bytes, Entry]]:
    """The entries of a layer that makes `new` of `base`, in order of their paths, parents first.

    A hard-linked file of which one name changed comes with all its names: programs that unpack each layer by itself
    find the file a link names only in the layer it is in. Raises TreeError for names that a layer cannot tell.
    """
    found: Paths = {}
    waiting = [(b"", base, new)]
    while waiting:
        waiting += _compare(read, *waiting.pop(), found)
    if base != new:
        found[b""] = new
    links = {entry.link for entry in found.values() if entry.link}
    if links:
        _add_links(read, new, links, found)
    yield from sorted(found.items(), key=lambda item: item[0].split(b"/"))


def checked(entries: Iterator[tuple[bytes, Entry]]) -> Iterator[tuple[bytes, Entry]]:
    """The same entries; raises TreeError for a name that would mean that something is removed."""
    for path, entry in entries:
        if entry.name.startswith(WHITEOUT):
            raise TreeError(f"a name in an OCI layer may not begin with .wh., which removes a name, got {path!r}")
        yield path, entry


def _compare(read: Read, path: bytes, base: Entry, new: Entry, found: Paths) -> list[tuple[bytes, Entry, Entry]]:
    """Note what differs in two directories; returns the directories that both have and that differ, too."""
    if base.digest == new.digest:
        return []
    both = []
    before = {entry.name: entry for entry in decode(read(base.digest))}
    for entry in decode(read(new.digest)):
        below = path + b"/" + entry.name if path else entry.name
        old = before.pop(entry.name, None)
        if old == entry:
            continue
        _check(below, entry)
        found[below] = entry
        if entry.kind == DIRECTORY:
            if old is not None and old.kind == DIRECTORY:
                both.append((below, old, entry))
            else:
                for deeper, item in walk(read, entry, below):
                    _check(deeper, item)
                    found[deeper] = item
    for name in before:
        removed = (path + b"/" if path else b"") + WHITEOUT + name
        found[removed] = _WHITEOUT_ENTRY._replace(name=WHITEOUT + name)
    return both


def _add_links(read: Read, new: Entry, links: set[bytes], found: Paths) -> None:
    """All names of the files with these link ids, and the directories they are in."""
    folders: Paths = {}
    for path, entry in walk(read, new):
        if entry.kind == DIRECTORY:
            folders[path] = entry
        elif entry.link in links and path not in found:
            found[path] = entry
            while path := path.rpartition(b"/")[0]:
                found.setdefault(path, folders[path])


def _check(path: bytes, entry: Entry) -> None:
    if entry.name.startswith(WHITEOUT):
        raise TreeError(f"a name in an OCI layer may not begin with .wh., which removes a name, got {path!r}")
