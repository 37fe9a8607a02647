"""What dpkg's own files in a tree say: installed packages, versions, the architecture. dpkg itself is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from koguma.images.trees import FILE, Entry, Read, resolve

STATUS = b"var/lib/dpkg/status"
_INSTALLED = ("installed", "triggers-awaited", "triggers-pending")
_PART = re.compile(r"(\D*)(\d*)")


@dataclass(frozen=True, slots=True)
class Package:
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
    found = resolve(read, root, path)
    if not found or found[1].kind != FILE or not found[1].size:
        return ""
    return read(found[1].digest).decode("utf-8", errors="replace")


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
    (left_epoch, left_rest), (right_epoch, right_rest) = _epoch(left), _epoch(right)
    if left_epoch != right_epoch:
        return -1 if left_epoch < right_epoch else 1
    left_upstream, _, left_revision = left_rest.rpartition("-") if "-" in left_rest else (left_rest, "", "")
    right_upstream, _, right_revision = right_rest.rpartition("-") if "-" in right_rest else (right_rest, "", "")
    return _compare(left_upstream, right_upstream) or _compare(left_revision, right_revision)


compare_versions_key: Any = cmp_to_key(compare_versions)


def _epoch(version: str) -> tuple[int, str]:
    head, colon, rest = version.partition(":")
    return (int(head), rest) if colon and head.isdigit() else (0, version)


def _compare(left: str, right: str) -> int:
    """Alternate between runs of non-digits, ordered by `_weight`, and runs of digits, ordered as numbers."""
    while left or right:
        left_match, right_match = _PART.match(left), _PART.match(right)
        assert left_match is not None  # noqa: S101 - the pattern matches the empty text
        assert right_match is not None  # noqa: S101
        left_text, right_text = [_weight(char) for char in left_match[1]], [_weight(char) for char in right_match[1]]
        if difference := _compare_weights(left_text, right_text):
            return difference
        left_number, right_number = int(left_match[2] or 0), int(right_match[2] or 0)
        if left_number != right_number:
            return -1 if left_number < right_number else 1
        left, right = left[left_match.end() :], right[right_match.end() :]
    return 0


def _compare_weights(left: list[int], right: list[int]) -> int:
    length = max(len(left), len(right))
    for left_weight, right_weight in zip(
        left + [0] * (length - len(left)), right + [0] * (length - len(right)), strict=True
    ):
        if left_weight != right_weight:
            return -1 if left_weight < right_weight else 1
    return 0


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
