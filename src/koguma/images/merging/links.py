"""Hard links after a merge: which names are one file is merged like everything else, and a file has one content.

Steps of `merge_links`:
1. read from the three trees which names are one file;
2. names are one file in the result when a side says so, unless the other side took apart what the base had together;
3. the names of a file get one content: the one that a side gave to any of them;
4. every name gets the link id that FORMAT.md derives from the paths.

Looks at whole trees, so it is for merges that touch a hard link at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from koguma.images.draft import Folder
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.trees import DIRECTORY, Entry, Read, decode, link_id, lookup, walk

Links = dict[bytes, bytes]
"""Link ids by path."""


def merge_links(read: Read, base: Entry | None, ours: Entry, theirs: Entry, draft: Folder) -> list[Conflict]:
    """Set the link of every name of the draft; returns where names of one file have different contents."""
    before, left, right = ({} if side is None else _links_of(read, side) for side in (base, ours, theirs))
    names = {
        path: (folder, entry) for path, folder, entry in draft.walk() if entry.link or path in left or path in right
    }
    places = (
        _Side(before, {}),
        _Side(left, _present(read, ours, before)),
        _Side(right, _present(read, theirs, before)),
    )
    conflicts: list[Conflict] = []
    for folder, entry in names.values():
        folder.put(entry._replace(link=b""))
    for group in _groups(places, names):
        conflicts += _settle(group, names, base, read)
    return conflicts


def touches_links(read: Read, old: Entry | None, new: Entry | None) -> bool:
    """Whether a hard link is among what differs between two entries."""
    if old is not None and new is not None and old.kind == new.kind == DIRECTORY:
        if old.digest == new.digest:
            return False
        before = {entry.name: entry for entry in decode(read(old.digest))}
        after = {entry.name: entry for entry in decode(read(new.digest))}
        return any(
            touches_links(read, before.get(name), after.get(name))
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name)
        )
    return any(
        entry is not None
        and (bool(entry.link) or (entry.kind == DIRECTORY and any(below.link for _, below in walk(read, entry))))
        for entry in (old, new)
    )


class _Side:
    """One tree: the link ids in it, and which of the base's linked names it has without a link."""

    def __init__(self, links: Links, alone: Mapping[bytes, bytes]) -> None:
        self.links = links
        self.file_of = {**alone, **links}
        """What a name shares with the other names of its file; only for names that are linked somewhere."""

    def groups(self) -> Iterable[list[bytes]]:
        found: dict[bytes, list[bytes]] = defaultdict(list)
        for path, link in self.links.items():
            found[link].append(path)
        return found.values()


def _links_of(read: Read, root: Entry) -> Links:
    return {path: entry.link for path, entry in walk(read, root) if entry.link}


def _present(read: Read, root: Entry, wanted: Links) -> Links:
    """Names of the base's linked files that this tree has, each as a file of its own unless it is linked."""
    return {path: b"alone " + path for path, entry in walk(read, root) if path in wanted and entry.kind != DIRECTORY}


def _groups(sides: tuple[_Side, _Side, _Side], names: Mapping[bytes, object]) -> Iterable[list[bytes]]:
    """Names that are one file in the result."""
    before, left, right = sides
    joined: dict[bytes, bytes] = {}

    def top(path: bytes) -> bytes:
        while path in joined:
            path = joined[path]
        return path

    for side, other in ((left, right), (right, left)):
        for group in side.groups():
            for part in _parts([path for path in group if path in names], before, other):
                for path in part[1:]:
                    first, second = sorted((top(part[0]), top(path)))
                    if first != second:
                        joined[second] = first
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for path in names:
        found[top(path)].append(path)
    return [sorted(paths) for paths in found.values() if len(paths) > 1]


def _parts(group: list[bytes], before: _Side, other: _Side) -> list[list[bytes]]:
    """A side's names of one file, apart where the other side took apart what the base had together."""
    clusters: dict[bytes, dict[bytes, list[bytes]]] = defaultdict(lambda: defaultdict(list))
    together: list[bytes] = []
    for path in sorted(group):
        if path in before.links and path in other.file_of:
            clusters[before.links[path]][other.file_of[path]].append(path)
        else:
            together.append(path)
    rest: list[list[bytes]] = []
    for apart in clusters.values():
        first, *others = apart.values()
        together += first
        rest += others
    return [part for part in (together, *rest) if len(part) > 1]


def _settle(
    group: list[bytes], names: Mapping[bytes, tuple[Folder, Entry]], base: Entry | None, read: Read
) -> list[Conflict]:
    """Give the names of one file one content and their link id; where that cannot be, each is a file of its own."""
    values = {path: _value(names[path][1]) for path in group}
    if len(set(values.values())) > 1:
        known = {_value(entry) for path in group if base is not None and (entry := lookup(read, base, path))}
        changed = sorted({value for value in values.values() if value not in known})
        if len(changed) != 1:
            return [_conflict(group)]
        values = dict.fromkeys(group, changed[0])
    link = link_id(group)
    for path in group:
        folder, entry = names[path]
        folder.put(values[path]._replace(name=entry.name, link=link))
    return []


def _conflict(group: list[bytes]) -> Conflict:
    listed = ", ".join("/" + path.decode("utf-8", "backslashreplace") for path in group[1:4])
    told = f"changed it, or linked it to {listed}" + (" …" if len(group) > 4 else "")
    return Conflict(group[0], Problem.LINKS, told, told)


def _value(entry: Entry) -> Entry:
    return entry._replace(name=b"", link=b"")
