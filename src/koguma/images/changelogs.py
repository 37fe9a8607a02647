"""Debian changelogs of a tree: what the maintainers say of the versions between two."""

from __future__ import annotations

import re
import zlib

from koguma.images.debian import compare_versions
from koguma.images.diff import ChangelogEntry, PackageChange
from koguma.images.trees import FILE, Entry, Read, resolve

_HEADING = re.compile(r"^[a-z0-9][a-z0-9.+-]* \(([^() \t]+)\)[^;\n]*;.*$", re.MULTILINE)
_TRAILER = re.compile(r"^ -- .*$", re.MULTILINE)
_NAMES = ("changelog.Debian.gz", "changelog.Debian.{architecture}.gz", "changelog.Debian", "changelog.gz", "changelog")
"""The last two are upstream's where there is one of the others."""
_MAX_BYTES = 16 * 1024 * 1024
"""The newest entries stand first; no changelog needs more, and no compressed file can take the memory."""
_FIRST_BYTES = 4 * 1024
_BYTES_PER_CHAR_MAX = 4


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
        if there is None or there[1].kind != FILE or not there[1].size:
            continue
        for entry in _entries(read(there[1].digest), change, compressed=name.endswith(".gz")):
            found.setdefault(entry.version, entry)
    return tuple(found.values())


def _entries(content: bytes, change: PackageChange, *, compressed: bool) -> list[ChangelogEntry]:
    """Of a changelog's beginning, as much as it takes to come to the old version."""
    old, new = change.old_version or "", change.new_version or ""
    size = _FIRST_BYTES
    while True:
        text = _beginning(content, size, compressed=compressed)
        entries, ended = entries_between(text, old, new)
        if not _HEADING.search(text):
            return []  # not in Debian's form: upstream's own
        if ended or len(text) < size // _BYTES_PER_CHAR_MAX or size >= _MAX_BYTES:
            return entries
        size *= 8


def entries_between(text: str, old: str, new: str) -> tuple[list[ChangelogEntry], bool]:
    """The entries of a Debian changelog after version `old` up to `new`, and whether one that is not newer came."""
    entries: list[ChangelogEntry] = []
    headings = _HEADING.finditer(text)
    here = next(headings, None)
    while here:
        following = next(headings, None)
        version = here[1]
        if compare_versions(version, old) <= 0:
            return entries, True
        if compare_versions(version, new) <= 0:
            body = text[here.end() : following.start() if following else len(text)]
            trailer = _TRAILER.search(body)
            entries.append(ChangelogEntry(version, body[: trailer.start() if trailer else None].strip("\n").rstrip()))
        here = following
    return entries, False


def _beginning(content: bytes, size: int, *, compressed: bool) -> str:
    if compressed:
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, size)
        except zlib.error as error:
            raise ValueError(f"a changelog must be a gzip file: {error}") from None
    return content[:size].decode("utf-8", errors="replace")
