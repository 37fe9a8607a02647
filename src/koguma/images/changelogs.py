"""Debian changelogs of a tree: what the maintainers say of the versions between two."""

from __future__ import annotations

import re
import zlib

from koguma.images.debian import compare_versions
from koguma.images.diff import ChangelogEntry, PackageChange
from koguma.images.trees import FILE, Entry, Read, resolve

_HEADING = re.compile(r"^\S+ \(([^() \t]+)\)[^;\n]*;.*$", re.MULTILINE)
_TRAILER = re.compile(r"^ -- .*$", re.MULTILINE)
_NAMES = ("changelog.Debian.gz", "changelog.Debian.{architecture}.gz", "changelog.gz", "changelog.Debian", "changelog")
_MAX_BYTES = 16 * 1024 * 1024
"""The newest entries stand first; no changelog needs more, and no compressed file can take the memory."""


def debian_changelog(read: Read, root: Entry, change: PackageChange) -> tuple[ChangelogEntry, ...]:
    """The entries of an upgraded package after its old version up to the new one, newest first.

    A rebuild (`+b1`) has its entry in a file of its own, by architecture; the entries of both files are joined.
    """
    found: dict[str, ChangelogEntry] = {}
    for name in _NAMES:
        path = f"usr/share/doc/{change.name}/{name.format(architecture=change.architecture)}"
        there = resolve(read, root, path.encode())
        if there is None or there[1].kind != FILE or not there[1].size:
            continue
        text = _text(read(there[1].digest), name.endswith(".gz"))
        for entry in entries_between(text, change.old_version or "", change.new_version or ""):
            found.setdefault(entry.version, entry)
    return tuple(found.values())


def entries_between(text: str, old: str, new: str) -> list[ChangelogEntry]:
    """The entries of a Debian changelog after version `old` up to `new`; reading ends at the first older one."""
    entries = []
    headings = _HEADING.finditer(text)
    here = next(headings, None)
    while here:
        following = next(headings, None)
        version = here[1]
        if compare_versions(version, old) <= 0:
            break
        if compare_versions(version, new) <= 0:
            body = text[here.end() : following.start() if following else len(text)]
            entries.append(ChangelogEntry(version, _TRAILER.split(body)[0].strip("\n").rstrip()))
        here = following
    return entries


def _text(content: bytes, compressed: bool) -> str:
    if compressed:
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, _MAX_BYTES)
        except zlib.error as error:
            raise ValueError(f"a changelog must be a gzip file: {error}") from None
    return content[:_MAX_BYTES].decode("utf-8", errors="replace")
