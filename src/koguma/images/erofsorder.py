"""Extended attributes of an erofs image in one order, whatever file system it was made from.

mkfs.erofs writes the attributes of a file in the order in which the file system lists them, and each lists them in an
order of its own. `sort_attributes` walks a finished image and sorts them in place: a file's references to shared
attributes by their number (mkfs.erofs sorts the shared area itself), those that stand in its inode by their name.
Nothing moves between files, so sizes and places stay as they are. Called by `export`, knows nothing of trees.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from koguma.images.errors import ToolError

_SUPER_AT = 1024
_MAGIC = 0xE0F5E1E2
_CHECKSUM_FEATURE = 1
_NODE_BYTES = 32
_HEADER_BYTES = 12
"""Of a file's attributes, before the numbers of the shared ones."""
_DIRENT = struct.Struct("<QHBB")
_FLAT_PLAIN, _FLAT_INLINE = 0, 2
_DIRECTORY, _KIND_MASK = 0o040000, 0o170000
_CASTAGNOLI = 0x82F63B78


def sort_attributes(path: Path) -> None:
    """Sort the attributes of every file of an image in place. Raises ToolError for what is no erofs image."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        try:
            image = _Image(data)
            image.sort()
            image.write_checksum()
        except (struct.error, IndexError, ValueError) as error:
            raise ToolError(f"mkfs.erofs must have written an erofs image: {error} ({path})") from None


class _Image:
    def __init__(self, data: mmap.mmap) -> None:
        magic, _, self._features = struct.unpack_from("<III", data, _SUPER_AT)
        if magic != _MAGIC:
            raise ValueError(f"it starts with {magic:#x}")
        self._data = data
        self._block_bytes = 1 << data[_SUPER_AT + 12]
        self._root = struct.unpack_from("<H", data, _SUPER_AT + 14)[0]
        self._nodes_at = struct.unpack_from("<I", data, _SUPER_AT + 40)[0] * self._block_bytes

    def sort(self) -> None:
        """Every inode once: a hard-linked file has many names."""
        waiting, seen = [self._root], {self._root}
        while waiting:
            for number in self._visit(waiting.pop()):
                if number not in seen:
                    seen.add(number)
                    waiting.append(number)

    def _visit(self, number: int) -> list[int]:
        """Sort one inode's attributes; returns the numbers of the inodes a directory names."""
        data = self._data
        at = self._nodes_at + number * _NODE_BYTES
        form, count, mode = struct.unpack_from("<HHH", data, at)
        extended = form & 1
        size = struct.unpack_from("<Q" if extended else "<I", data, at + 8)[0]
        attributes_at = at + (64 if extended else 32)
        end = attributes_at
        if count:
            end += _HEADER_BYTES + 4 * (count - 1)
            self._sort_between(attributes_at, end)
        if mode & _KIND_MASK != _DIRECTORY:
            return []
        first_block = struct.unpack_from("<I", data, at + 16)[0]
        return self._named(form >> 1 & 7, size, first_block * self._block_bytes, end)

    def _sort_between(self, start: int, end: int) -> None:
        data = self._data
        shared = data[start + 4]
        at = start + _HEADER_BYTES
        numbers = struct.unpack_from(f"<{shared}I", data, at)
        struct.pack_into(f"<{shared}I", data, at, *sorted(numbers))
        at += 4 * shared
        first, found = at, []
        while at + 4 <= end:
            name_bytes, prefix, value_bytes = struct.unpack_from("<BBH", data, at)
            if not name_bytes and not prefix:
                break
            following = at + 4 + name_bytes + value_bytes
            following += -following % 4
            found.append((prefix, data[at + 4 : at + 4 + name_bytes], data[at:following]))
            at = following
        if at > end:
            raise ValueError(f"attributes end at byte {at}, after their room at {end}")
        data[first:at] = b"".join(entry for _, _, entry in sorted(found))

    def _named(self, layout: int, size: int, start: int, tail_at: int) -> list[int]:
        """The inodes a directory names. Its last block may stand behind its inode."""
        if layout not in (_FLAT_PLAIN, _FLAT_INLINE):
            raise ValueError(f"a directory has layout {layout}")
        whole = size // self._block_bytes
        places = [(start + block * self._block_bytes, self._block_bytes) for block in range(whole)]
        if rest := size % self._block_bytes:
            places.append((tail_at if layout == _FLAT_INLINE else start + whole * self._block_bytes, rest))
        found = []
        for at, length in places:
            entries = _DIRENT.unpack_from(self._data, at)[1] // _DIRENT.size
            if not 0 < entries * _DIRENT.size <= length:
                raise ValueError(f"a directory's block at byte {at} has {entries} entries")
            found += [_DIRENT.unpack_from(self._data, at + index * _DIRENT.size)[0] for index in range(entries)]
        return found

    def write_checksum(self) -> None:
        """The checksum covers the rest of the first block, inodes there too; it counts as zero itself."""
        if not self._features & _CHECKSUM_FEATURE:
            return
        struct.pack_into("<I", self._data, _SUPER_AT + 4, 0)
        end = max(self._block_bytes, _SUPER_AT)
        struct.pack_into("<I", self._data, _SUPER_AT + 4, _crc32c(self._data[_SUPER_AT:end]))


def _crc32c(content: bytes) -> int:
    """CRC-32C as erofs has it: starts with all ones, and is not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc
