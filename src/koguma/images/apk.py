"""What apk's own database in a tree says, and the order of Alpine's versions. apk itself is never run."""

from __future__ import annotations

import re
from typing import Any

from koguma.images.debian import read_text
from koguma.images.packages import Installed
from koguma.images.trees import Entry, Read

DATABASES = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")

_VERSION = re.compile(
    r"(?P<numbers>\d+(?:\.\d+)*)(?P<letter>[a-z]?)(?P<suffixes>(?:_[a-z]+\d*)*)(?:~[0-9a-f]+)?(?:-r(?P<release>\d+))?"
)
_SUFFIX = re.compile(r"_([a-z]+)(\d*)")
_RANKS = {
    name: rank for rank, name in enumerate(("alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"), start=-4)
}
"""Suffixes from before a release to after it; the empty one is the release itself, 0."""


def installed_packages(read: Read, root: Entry) -> list[Installed]:
    """Installed packages of a tree; none without apk."""
    packages = []
    for database in DATABASES:
        for stanza in read_text(read, root, database).split("\n\n"):
            fields = {line[0]: line[2:] for line in stanza.splitlines() if line[1:2] == ":" and line[0] in "PVA"}
            if "P" in fields and "V" in fields:
                packages.append(Installed(fields["P"], fields.get("A", ""), fields["V"]))
    return sorted(set(packages))


def compare_versions(left: str, right: str) -> int:
    """Alpine's order: numbers, a letter, suffixes such as `_rc1` and `_p2`, the release `-r3`.

    A number after the first that begins with 0 is a fraction: 1.05 is before 1.1. What is no version of this form is
    before all that are, and ordered as text.
    """
    first, second = _VERSION.fullmatch(left), _VERSION.fullmatch(right)
    if first is None or second is None:
        return (first is not None) - (second is not None) or (left > right) - (left < right)
    return (
        _compare_numbers(first["numbers"].split("."), second["numbers"].split("."))
        or _order(first["letter"], second["letter"])
        or _compare_suffixes(first["suffixes"], second["suffixes"])
        or _order(int(first["release"] or 0), int(second["release"] or 0))
    )


def _compare_numbers(left: list[str], right: list[str]) -> int:
    for position, (one, other) in enumerate(zip(left, right, strict=False)):
        if position and (one.startswith("0") or other.startswith("0")):
            found = _order(one.rstrip("0") or "0", other.rstrip("0") or "0") if one != other else 0
        else:
            found = _order(int(one), int(other))
        if found:
            return found
    return _order(len(left), len(right))


def _compare_suffixes(left: str, right: str) -> int:
    one, other = _suffixes(left), _suffixes(right)
    length = max(len(one), len(other))
    release = [(0, 0)]
    return _order(one + release * (length - len(one)), other + release * (length - len(other)))


def _suffixes(text: str) -> list[tuple[int, int]]:
    return [(_RANKS.get(name, 0), int(number or 0)) for name, number in _SUFFIX.findall(text)]


def _order(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)
