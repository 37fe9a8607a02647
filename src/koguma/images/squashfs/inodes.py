"""The tables of an image that say what is where: inodes, listings of directories, owners."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from koguma.images import trees
from koguma.images.errors import TreeError
from koguma.images.squashfs import layout
from koguma.images.squashfs.attributes import Attributes
from koguma.images.squashfs.contents import Contents, InFragment
from koguma.images.squashfs.donors import Packed
from koguma.images.squashfs.layout import Metadata
from koguma.images.trees import Entry

_KINDS = {
    trees.DIRECTORY: layout.DIRECTORY,
    trees.FILE: layout.FILE,
    trees.SYMLINK: layout.SYMLINK,
    trees.BLOCK: layout.BLOCK_DEVICE,
    trees.CHARACTER: layout.CHARACTER_DEVICE,
    trees.FIFO: layout.FIFO,
}
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_IDS_MAX = 0xFFFF
_DELTA_MAX = 0x8000
_ABOVE_ROOT = 0
"""The number of the root's parent: nobody looks at it."""
_NOWHERE = Packed(0, 0, (), ())
_NO_FRAGMENT = InFragment(layout.NO_FRAGMENT, 0)


class Folder(NamedTuple):
    """A directory with what is in it."""

    entry: Entry
    children: list[Entry]
    parent: int
    """The place of its parent among the folders; -1 of the root."""


class _Inode(NamedTuple):
    block: int
    offset: int
    number: int

    @property
    def reference(self) -> int:
        return self.block << 16 | self.offset


class Inodes:
    """The tables of these folders, parents before children, whose files are in `contents`."""

    def __init__(self, folders: list[Folder], contents: Contents) -> None:
        self.inodes, self.directories, self.attributes = Metadata(), Metadata(), Attributes()
        self.count = len(folders)
        self.root = 0
        """Reference of the root's inode."""
        self._contents = contents
        self._ids: dict[int, int] = {}
        self._links = Counter(entry.link for folder in folders for entry in folder.children if entry.link)
        self._linked: dict[bytes, _Inode] = {}
        found: dict[int, list[_Inode]] = {}
        for place in reversed(range(len(folders))):
            folder = folders[place]
            # Of the folders in this one, the last was written first.
            below = found.pop(place, [])
            inodes = [below.pop() if entry.kind == trees.DIRECTORY else self._file(entry) for entry in folder.children]
            written = self._directory(place + 1, folder, inodes)
            found.setdefault(folder.parent, []).append(written)
            self.root = written.reference

    def ids(self) -> bytes:
        """The table of owners and groups. Raises TreeError when there are more than it can hold."""
        if len(self._ids) > _IDS_MAX:
            raise TreeError(f"a squashfs has at most {_IDS_MAX} owners and groups, the tree has {len(self._ids)}")
        return struct.pack(f"<{len(self._ids)}I", *self._ids)

    @property
    def id_count(self) -> int:
        return len(self._ids)

    def _file(self, entry: Entry) -> _Inode:
        """Anything but a directory; the inode of a hard-linked file is written for its first name."""
        if entry.link and (written := self._linked.get(entry.link)):
            return written
        self.count += 1
        links = self._links[entry.link] if entry.link else 1
        attributes = self.attributes.place_of(entry)
        extended, body = self._body(entry, links, attributes)
        written = self._write(entry, self.count, body, extended=extended)
        if entry.link:
            self._linked[entry.link] = written
        return written

    def _body(self, entry: Entry, links: int, attributes: int) -> tuple[bool, bytes]:
        """What follows an inode's common part; whether it has the longer form."""
        if entry.kind == trees.FILE:
            return self._file_body(entry, links, attributes)
        if entry.kind == trees.SYMLINK:
            body = layout.SYMLINK_BODY.pack(links, len(entry.target)) + entry.target
        elif entry.kind == trees.FIFO:
            body = layout.FIFO_BODY.pack(links)
        else:
            body = layout.DEVICE_BODY.pack(links, _device_number(*entry.device))
        if attributes == layout.NO_ATTRIBUTES:
            return False, body
        return True, body + layout.NUMBER.pack(attributes)

    def _file_body(self, entry: Entry, links: int, attributes: int) -> tuple[bool, bytes]:
        packed = self._contents.files[entry.digest] if entry.size >= layout.BLOCK_BYTES else _NOWHERE
        small = self._contents.small[entry.digest] if 0 < entry.size < layout.BLOCK_BYTES else _NO_FRAGMENT
        sizes = struct.pack(f"<{len(packed.sizes)}I", *packed.sizes)
        zeros = packed.zero_blocks * layout.BLOCK_BYTES
        plain = links == 1 and attributes == layout.NO_ATTRIBUTES and not zeros
        if plain and packed.start <= _MAX_32 and entry.size <= _MAX_32:
            return False, layout.FILE_BODY.pack(packed.start, small.fragment, small.offset, entry.size) + sizes
        body = layout.FILE_EXTENDED.pack(
            packed.start, entry.size, zeros, links, small.fragment, small.offset, attributes
        )
        return True, body + sizes

    def _directory(self, number: int, folder: Folder, inodes: list[_Inode]) -> _Inode:
        block, offset = self.directories.place()
        size, index = self._listing(folder.children, inodes)
        size += layout.LISTING_EXTRA
        parent = folder.parent + 1 or _ABOVE_ROOT
        links = 2 + sum(entry.kind == trees.DIRECTORY for entry in folder.children)
        attributes = self.attributes.place_of(folder.entry)
        if attributes == layout.NO_ATTRIBUTES and not index and size <= _MAX_16:
            body = layout.DIRECTORY_BODY.pack(block, links, size, offset, parent)
            return self._write(folder.entry, number, body, extended=False)
        body = layout.DIRECTORY_EXTENDED.pack(links, size, block, parent, len(index), offset, attributes)
        return self._write(folder.entry, number, body + b"".join(index), extended=True)

    def _listing(self, children: list[Entry], inodes: list[_Inode]) -> tuple[int, list[bytes]]:
        """Write a directory's names: in runs of those whose inodes are in one block, each with a header.

        Returns its bytes, and an index with the first run that begins in each block of the listing but the first.
        """
        size = 0
        index: list[bytes] = []
        last_block = self.directories.place()[0]
        for first, end in self._runs(children, inodes):
            block = self.directories.place()[0]
            if block != last_block and len(index) < _MAX_16:
                name = children[first].name
                index.append(layout.DIRECTORY_INDEX.pack(size, block, len(name) - 1) + name)
                last_block = block
            base = inodes[first]
            parts = [layout.LISTING_HEADER.pack(end - first - 1, base.block, base.number)]
            for entry, inode in zip(children[first:end], inodes[first:end], strict=True):
                parts.append(
                    layout.LISTING_ENTRY.pack(
                        inode.offset, inode.number - base.number, _KINDS[entry.kind], len(entry.name) - 1
                    )
                )
                parts.append(entry.name)
            run = b"".join(parts)
            self.directories.append(run)
            size += len(run)
        return size, index

    def _runs(self, children: list[Entry], inodes: list[_Inode]) -> Iterator[tuple[int, int]]:
        """First and end of each run; it ends in the block of the listing in which it began, or shortly after."""
        first = 0
        while first < len(children):
            base = inodes[first]
            filled = self.directories.place()[1] + layout.LISTING_HEADER.size
            end = first
            while (
                end < len(children)
                and end - first < layout.LISTING_ENTRIES_MAX
                and filled < layout.METADATA_BYTES
                and inodes[end].block == base.block
                and -_DELTA_MAX <= inodes[end].number - base.number < _DELTA_MAX
            ):
                filled += layout.LISTING_ENTRY.size + len(children[end].name)
                end += 1
            end = max(end, first + 1)
            yield first, end
            first = end

    def _write(self, entry: Entry, number: int, body: bytes, *, extended: bool) -> _Inode:
        block, offset = self.inodes.place()
        time_ns = trees.NORMAL_MTIME_NS if entry.mtime_ns is None else entry.mtime_ns
        kind = _KINDS[entry.kind] + (layout.EXTENDED if extended else 0)
        owner, group = self._id(entry.uid), self._id(entry.gid)
        self.inodes.append(layout.INODE.pack(kind, entry.mode, owner, group, layout.time_s(time_ns), number) + body)
        return _Inode(block, offset, number)

    def _id(self, number: int) -> int:
        place = self._ids.setdefault(number, len(self._ids))
        return min(place, _MAX_16)  # more are refused in the end


def folders_below(read: Callable[[bytes], bytes], root: Entry) -> list[Folder]:
    """Every directory, parents before children, in the order of their paths."""
    folders: list[Folder] = []
    waiting = [(root, -1)]
    while waiting:
        entry, parent = waiting.pop()
        children = trees.decode(read(entry.digest))
        below = [(child, len(folders)) for child in children if child.kind == trees.DIRECTORY]
        waiting += reversed(below)
        folders.append(Folder(entry, children, parent))
    return folders


def _device_number(major: int, minor: int) -> int:
    """As the kernel writes it in 32 bits."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
