"""Extended attributes of an image's files: the pairs of each set, and a table of the sets."""

from __future__ import annotations

from koguma.images.squashfs import layout
from koguma.images.squashfs.layout import Metadata
from koguma.images.trees import Entry, Xattrs


class Attributes:
    """Every set once, however many files have it."""

    def __init__(self) -> None:
        self._pairs = Metadata()
        self._sets: dict[Xattrs, int] = {}
        self._table: list[bytes] = []
        self.lost = False
        """Whether a file had some that squashfs has no place for."""

    def place_of(self, entry: Entry) -> int:
        """Where a file's set is in the table, NO_ATTRIBUTES when it has none that squashfs has a place for."""
        kept = tuple(pair for pair in entry.xattrs if pair[0].startswith(layout.ATTRIBUTE_PREFIXES))
        self.lost = self.lost or len(kept) < len(entry.xattrs)
        if not kept:
            return layout.NO_ATTRIBUTES
        place = self._sets.get(kept)
        if place is None:
            place = self._sets[kept] = len(self._table)
            block, offset = self._pairs.place()
            names = sum(len(name) + 1 for name, _ in kept)
            self._table.append(layout.ATTRIBUTES.pack(block << 16 | offset, len(kept), names))
            for name, value in kept:
                self._pairs.append(_attribute(name, value))
        return place

    def table(self, at: int) -> tuple[bytes, int]:
        """As `layout.table`; NO_TABLE when there is none."""
        if not self._table:
            return b"", layout.NO_TABLE
        pairs = self._pairs.to_bytes()
        header = layout.ATTRIBUTES_TABLE.pack(at, len(self._table), 0)
        packed, begin = layout.table(b"".join(self._table), at + len(pairs), header)
        return pairs + packed, begin


def _attribute(name: bytes, value: bytes) -> bytes:
    number, prefix = next(
        (number, prefix) for number, prefix in enumerate(layout.ATTRIBUTE_PREFIXES) if name.startswith(prefix)
    )
    rest = name[len(prefix) :]
    return layout.ATTRIBUTE.pack(number, len(rest)) + rest + layout.NUMBER.pack(len(value)) + value
