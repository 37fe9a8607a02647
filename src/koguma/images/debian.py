"""What dpkg's own files in a tree say: installed packages, versions, the architecture. dpkg itself is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from koguma.images.errors import PackageDatabaseError
from koguma.images.trees import FILE, Entry, Read, resolve
from koguma.images.versions import number, split_epoch

STATUS = b"var/lib/dpkg/status"
TEXT_BYTES_MAX = 32 * 1024 * 1024
"""What a list of packages or files may have: dpkg's status of twenty-five thousand packages."""
_INSTALLED = ("installed", "triggers-awaited", "triggers-pending")
_PART = re.compile(r"([^0-9]*)([0-9]*)")


class Package(NamedTuple):
    """An installed package; the same name may be installed for several architectures."""

    name: str
    architecture: str
    version: str

    @property
    def key(self) -> str:
        return f"{self.name}:{self.architecture}"


def installed_packages(read: Read, root: Entry) -> dict[str, Package]:
    """Installed packages by `name:architecture`; empty for a tree without dpkg."""
    text = read_text(read, root, STATUS)
    found = (_package(stanza) for stanza in stanzas(text))
    return {package.key: package for package in found if package}


def changed_packages(
    read: Read, old: Entry, new: Entry
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Name, architecture and version of what only one of two trees has installed.

    Stanzas that are the same on both sides are dropped unread: reading hundreds of them would take most of a diff.
    """
    before, after = (read_text(read, root, STATUS).split("\n\n") for root in (old, new))
    same = set(before) & set(after)
    found = []
    for texts in (before, after):
        packages = (_package(stanza) for text in texts if text not in same for stanza in stanzas(text))
        found.append({(item.name, item.architecture, item.version) for item in packages if item})
    return sorted(found[0] - found[1]), sorted(found[1] - found[0])


def native_architecture(read: Read, root: Entry) -> str | None:
    """What `dpkg --print-architecture` would say: the architecture of the package dpkg itself."""
    for stanza in stanzas(read_text(read, root, STATUS)):
        if stanza.get("Package") == "dpkg":
            return stanza.get("Architecture")
    return None


def read_text(read: Read, root: Entry, path: bytes) -> str:
    """A list of a tree, empty where there is none. Raises PackageDatabaseError for one that is too large."""
    found = resolve(read, root, path)
    if not found or found[1].kind != FILE:
        return ""
    return read_list(read, found[1], path).decode("utf-8", errors="replace")


def read_list(read: Read, entry: Entry, path: bytes, bytes_max: int | None = None) -> bytes:
    """As `read_text`, of an entry that is known."""
    bytes_max = TEXT_BYTES_MAX if bytes_max is None else bytes_max
    if entry.size > bytes_max:
        place = path.decode("utf-8", errors="backslashreplace")
        raise PackageDatabaseError(f"a list must have at most {bytes_max} bytes, got {entry.size} (/{place})")
    return read(entry.digest) if entry.size else b""


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a Debian control file, without their continuation lines."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if not line:
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t":
            name, colon, value = line.partition(":")
            if colon:
                fields[name] = value.strip()
    if fields:
        yield fields


def _package(stanza: dict[str, str]) -> Package | None:
    words = stanza.get("Status", "").split()
    if len(words) != 3 or words[2] not in _INSTALLED or "Package" not in stanza or "Version" not in stanza:
        return None
    return Package(stanza["Package"], stanza.get("Architecture", ""), stanza["Version"])


def compare_versions(left: str, right: str) -> int:
    """Debian's order of versions: epoch, upstream version, revision; `~` sorts before everything, even the end."""
    before, after = version_key(left), version_key(right)
    return (before > after) - (before < after)


@lru_cache(maxsize=4096)
def version_key(version: str) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """What orders versions as `compare_versions` does; kept, because changelogs are compared with few versions."""
    epoch, rest = split_epoch(version)
    upstream, dash, revision = rest.rpartition("-")
    return epoch, _part_key(upstream if dash else rest), _part_key(revision if dash else "")


def _part_key(part: str) -> tuple[int, ...]:
    """Alternates between the weights of a run of non-digits, ended by 0, and the number after it; ends with a 0.

    0 is the weight of an end, between `~` and everything else, so a part that ends compares as if it went on with it.
    """
    numbers: list[int] = []
    for text, digits in _PART.findall(part)[:-1] or [("", "")]:
        numbers += [*map(_weight, text), 0, number(digits)]
    return (*numbers, 0)


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
