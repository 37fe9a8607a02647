"""Debian changelogs of a tree: what the maintainers say of the versions between two."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from io import BytesIO

from koguma.images.debian import compare_versions
from koguma.images.diff import ChangelogEntry, PackageChange
from koguma.images.trees import FILE, Entry, Read, resolve

_HEADING = re.compile(r"[a-z0-9][a-z0-9.+-]* \(([^() \t]{1,1000})\)[^;\n]*;.*")
_NAMES = ("changelog.Debian.gz", "changelog.Debian.{architecture}.gz", "changelog.Debian", "changelog.gz", "changelog")
"""The last two are upstream's where there is one of the others."""
_MAX_BYTES = 16 * 1024 * 1024
"""The newest entries stand first; no changelog needs more, and no compressed file can take the memory."""
_FIRST_BYTES = 4 * 1024
_PIECE_BYTES = 16 * 1024


def debian_changelog(read: Read, root: Entry, change: PackageChange) -> tuple[ChangelogEntry, ...]:
    """The entries of an upgraded package after its old version up to the new one, newest first.

    A rebuild (`+b1`) has its entry in a file of its own, by architecture; the entries of both files are joined.
    """
    found: dict[str, ChangelogEntry] = {}
    for name in _NAMES:
        if found and ".Debian" not in name:
            break
        path = f"usr/share/doc/{change.name}/{name.format(architecture=change.architecture)}"
        there = resolve(read, root, path.encode())
        if there is None or there[1].kind != FILE or not 0 < there[1].size <= _MAX_BYTES:
            continue
        for entry in _entries(read(there[1].digest), change, compressed=name.endswith(".gz")):
            found.setdefault(entry.version, entry)
    return tuple(found.values())


def _entries(content: bytes, change: PackageChange, *, compressed: bool) -> list[ChangelogEntry]:
    """Of a changelog's beginning, as much as it takes to come to the old version."""
    old, new = change.old_version or "", change.new_version or ""
    entries: list[ChangelogEntry] = []
    for text in _beginnings(_Gunzip(content) if compressed else BytesIO(content)):
        entries, ended = entries_between(text, old, new)
        if ended or next(_headings(text), None) is None:
            break  # without a heading it is not in Debian's form, but upstream's own
    return entries


def entries_between(text: str, old: str, new: str) -> tuple[list[ChangelogEntry], bool]:
    """The entries of a Debian changelog after version `old` up to `new`, and whether one that is not newer came."""
    entries: list[ChangelogEntry] = []
    headings = _headings(text)
    here = next(headings, None)
    while here:
        following = next(headings, None)
        version = here[1]
        if compare_versions(version, old) <= 0:
            return entries, True
        if compare_versions(version, new) <= 0:
            body = text[here.end() : following.start() if following else len(text)]
            entries.append(ChangelogEntry(version, body.partition("\n -- ")[0].strip("\n").rstrip()))
        here = following
    return entries, False


def _headings(text: str) -> Iterator[re.Match[str]]:
    """In order. Every heading has a semicolon, and few lines that have one begin at the margin: a regular expression
    that looks at each line takes ten times as long, and kernels have changelogs of megabytes.
    """
    at = text.find(";")
    while at >= 0:
        start = text.rfind("\n", 0, at) + 1
        if not text[start].isspace() and (heading := _HEADING.match(text, start)):
            yield heading
        end = text.find("\n", at)
        at = text.find(";", end) if end >= 0 else -1


def _beginnings(file: BytesIO | _Gunzip) -> Iterator[str]:
    """Each time twice as much of a file as before, up to all that there is."""
    content, size = b"", _FIRST_BYTES
    while True:
        content += file.read(size - len(content))
        yield content.decode("utf-8", errors="replace")
        if len(content) < size or size >= _MAX_BYTES:
            return
        size *= 2


class _Gunzip:
    """As a file; `gzip` itself takes longer to load than most changelogs to read.

    The content goes in by pieces: zlib copies what it has not used yet after every read.
    """

    def __init__(self, content: bytes) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self._pieces = (content[at : at + _PIECE_BYTES] for at in range(0, len(content), _PIECE_BYTES))

    def read(self, size: int) -> bytes:
        found = b""
        try:
            while len(found) < size and (piece := self._stream.unconsumed_tail or next(self._pieces, b"")):
                found += self._stream.decompress(piece, size - len(found))
        except zlib.error as error:
            raise ValueError(f"a changelog must be a gzip file: {error}") from None
        return found
