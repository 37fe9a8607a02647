"""What apk's own database in a tree says, and the order of Alpine's versions. apk itself is never run."""

from __future__ import annotations

import re

from koguma.images.debian import read_text
from koguma.images.packages import Installed
from koguma.images.trees import Entry, Read
from koguma.images.versions import number

DATABASES = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")

_SUFFIXES = ("alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p")
"""The first four come before the release itself, the others after it."""
_PRERELEASES = 4
_SUFFIX = re.compile(rf"_({'|'.join(_SUFFIXES)})(?![a-z])([0-9]*)")
_VERSION = re.compile(
    rf"(?P<first>[0-9]+)(?P<numbers>(?:\.[0-9]+)*)(?P<letter>[a-z]?)(?P<suffixes>(?:{_SUFFIX.pattern})*)"
    r"(?:~(?P<hash>[0-9a-f]+))?(?:-r(?P<release>[0-9]+))?"
)
_PRERELEASE, _NO_VERSION, _END, _RELEASE, _HASH, _SUFFIX_NUMBER, _AFTER, _LETTER, _NUMBER = range(9)
"""Kinds of parts. Of two versions that are equal up to parts of different kinds, the one with the lesser is before."""
_Part = tuple[int, int, str]
"""Its kind, and a number or a text."""


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
    """Alpine's order: numbers, a letter, suffixes such as `_rc1` and `_p2`, a commit as `~3f2a`, the release `-r3`.

    A number after the first that begins with 0 is a fraction: 1.05 is before 1.1. Versions are compared up to where
    they depart from this form.
    """
    before, after = _parts(left), _parts(right)
    return (before > after) - (before < after)


def _parts(version: str) -> list[_Part]:
    found = _VERSION.match(version)
    if found is None:
        return [(_NO_VERSION, 0, "")]
    parts: list[_Part] = [(_NUMBER, number(found["first"]), "")]
    parts += [
        (_NUMBER, 0, digits) if digits.startswith("0") else (_NUMBER, number(digits), "")
        for digits in found["numbers"].split(".")[1:]
    ]
    if found["letter"]:
        parts.append((_LETTER, 0, found["letter"]))
    for name, digits in _SUFFIX.findall(found["suffixes"]):
        rank = _SUFFIXES.index(name)
        parts.append((_PRERELEASE if rank < _PRERELEASES else _AFTER, rank, ""))
        if digits:
            parts.append((_SUFFIX_NUMBER, number(digits), ""))
    if found["hash"]:
        parts.append((_HASH, 0, found["hash"]))
    if found["release"]:
        parts.append((_RELEASE, number(found["release"]), ""))
    return [*parts, (_END if found.end() == len(version) else _NO_VERSION, 0, "")]
