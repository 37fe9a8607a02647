"""A tree being changed: directories load when they are first looked into, and only those that changed are stored again.

Used where a tree is not read from a disk as a whole: an edit's changes, a tar file, later a merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koguma.images.errors import TreeError
from koguma.images.objects import TREE, ObjectWriter
from koguma.images.trees import DIRECTORY, Entry, Read, check_name, decode, encode, encode_root, link_id, room_for_depth


class Folder:
    """A directory of a draft. `entry` holds its attributes; the digest in it is the tree it was loaded from, if any."""

    __slots__ = ("_children", "_read", "entry")

    def __init__(self, entry: Entry, read: Read | None) -> None:
        self.entry = entry
        self._read = read
        self._children: dict[bytes, Entry | Folder] | None = None if read else {}

    @property
    def children(self) -> dict[bytes, Entry | Folder]:
        """What is in it, by name; subdirectories that were not opened are entries."""
        if self._children is None:
            assert self._read is not None  # noqa: S101 - a folder without a reader starts with children
            self._children = {entry.name: entry for entry in decode(self._read(self.entry.digest))}
        return self._children

    def names(self) -> Iterable[bytes]:
        return self.children.keys()

    def get(self, name: bytes) -> Entry | None:
        """The entry of a name, whether it is a directory or not."""
        found = self.children.get(name)
        return found.entry if isinstance(found, Folder) else found

    def folder(self, name: bytes) -> Folder | None:
        """A subdirectory, opened; None when there is none of that name."""
        found = self.children.get(name)
        if isinstance(found, Folder):
            return found
        if found is None or found.kind != DIRECTORY:
            return None
        opened = Folder(found, self._read if found.digest else None)
        self.children[name] = opened
        return opened

    def put(self, entry: Entry) -> None:
        """Add or replace a name that is no directory."""
        check_name(entry.name, self.entry.name)
        self.children[entry.name] = entry

    def put_folder(self, entry: Entry) -> Folder:
        """Add a new, empty directory, or replace whatever had its name."""
        check_name(entry.name, self.entry.name)
        folder = Folder(entry._replace(digest=b"", kind=DIRECTORY), None)
        self.children[entry.name] = folder
        return folder

    def remove(self, name: bytes) -> Entry | Folder | None:
        return self.children.pop(name, None)

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, Folder, Entry]]:
        """Every name that is no directory: its path, the folder it is in, its entry. Opens all directories."""
        for name in sorted(self.names()):
            below = path + b"/" + name if path else name
            folder = self.folder(name)
            if folder is not None:
                yield from folder.walk(below)
            elif entry := self.get(name):
                yield below, self, entry

    def store(self, writer: ObjectWriter) -> Entry:
        """Store what changed; returns the directory's entry with the id of its tree."""
        if self._children is None:
            return self.entry
        entries = [child.store(writer) if isinstance(child, Folder) else child for child in self._children.values()]
        if any(entry.kind == DIRECTORY and not entry.digest for entry in entries):
            raise TreeError(f"a stored directory must have its tree, got one without ({self.entry.name!r})")
        return self.entry._replace(digest=writer.add(TREE, encode(entries)))


@room_for_depth()
def store_root(root: Folder, writer: ObjectWriter) -> bytes:
    """Store a draft; returns the id of its root object."""
    return writer.add(TREE, encode_root(root.store(writer)))


def link_ids_in(item: Entry | Folder | None) -> set[bytes]:
    """The hard-link ids of an entry, or of everything below a folder or a directory's entry that was opened."""
    if item is None:
        return set()
    if isinstance(item, Folder):
        return {entry.link for _, _, entry in item.walk() if entry.link}
    return {item.link} if item.link else set()


def settle_links(root: Folder, affected: set[bytes]) -> None:
    """Give hard-link groups that gained, lost or moved names the id their paths ask for now; lone names become plain.

    Looks at the whole tree, so it is for the rare change that touches a hard link at all.
    """
    if not affected:
        return
    groups: dict[bytes, list[tuple[bytes, Folder, Entry]]] = {}
    for path, folder, entry in root.walk():
        if entry.link in affected:
            groups.setdefault(entry.link, []).append((path, folder, entry))
    for members in groups.values():
        link = link_id(path for path, _, _ in members) if len(members) > 1 else b""
        for _, folder, entry in members:
            folder.put(entry._replace(link=link))
