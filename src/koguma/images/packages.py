"""Installed packages of a tree, whatever manages them: dpkg, rpm and apk databases are read, their programs never run.

Owns the comparison of two trees by package. How each database is read, and how its versions are ordered, is in a module
of its own; adding a manager means adding a line to `_MANAGERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cmp_to_key
from typing import NamedTuple

from koguma.images.diff import ChangelogEntry, PackageChange
from koguma.images.errors import ImageError
from koguma.images.trees import Entry, Read, lookup


class Installed(NamedTuple):
    """A package as a database has it; several versions of one name may be installed (kernels, with rpm)."""

    name: str
    architecture: str
    version: str


_Changelog = tuple[PackageChange, tuple[ChangelogEntry, ...]]


class Manager(NamedTuple):
    """A family of packages. The functions import their modules when they are called: most trees have one family."""

    name: str
    databases: tuple[bytes, ...]
    """Where the database may be; when all of them are equal in both trees, nothing is read."""
    read: Callable[[Read, Entry, Entry], tuple[list[Installed], list[Installed]]]
    """What only the first and what only the second tree has installed."""
    compare: Callable[[str, str], int]
    changelogs: Callable[[Read, Entry, list[PackageChange]], Iterable[_Changelog]]
    """Of upgraded packages, as they are found: what the second tree holds of their changelogs."""


_CHANGELOGS_CHARS_MAX = 64 * 1024 * 1024
"""Of all packages together: a new release of a distribution has a quarter of it."""
_ENTRY_CHARS = 100
"""What an entry counts for beside its text."""
_KEPT_OBJECTS, _KEPT_BYTES = 256, 1024 * 1024


def package_changes(read: Read, old: Entry, new: Entry) -> tuple[tuple[PackageChange, ...], tuple[str, ...]]:
    """The changes by package in order of names, and notes on databases that could not be read."""
    read = _remembering(read)
    changes: list[PackageChange] = []
    notes: list[str] = []
    for manager in _MANAGERS:
        if all(_same(lookup(read, old, place), lookup(read, new, place)) for place in manager.databases):
            continue
        try:
            before, after = manager.read(read, old, new)
            found = [*_changes(manager, before, after)]
        except (ImageError, ValueError) as error:
            notes.append(f"packages of {manager.name} could not be compared: {error}")
            continue
        told, whole = _changelogs(manager, read, new, found)
        changes += [change._replace(changelog=told.get(change, ())) for change in found]
        if not whole:
            notes.append(f"changelogs of {manager.name} were left out: more than {_CHANGELOGS_CHARS_MAX} characters")
    return tuple(sorted(changes, key=lambda item: (item.name, item.architecture, item.new_version or ""))), tuple(notes)


def _same(left: Entry | None, right: Entry | None) -> bool:
    return (left and (left.kind, left.digest, left.target)) == (right and (right.kind, right.digest, right.target))


def _changes(manager: Manager, before: Iterable[Installed], after: Iterable[Installed]) -> Iterator[PackageChange]:
    """Pair what went with what came: one version for one is an upgrade or a downgrade, others came and went alone."""
    old, new = _by_name(before), _by_name(after)
    for name, architecture in sorted(old.keys() | new.keys()):
        key = cmp_to_key(manager.compare)
        gone = sorted(old.get((name, architecture), ()), key=key)
        came = sorted(new.get((name, architecture), ()), key=key)
        if len(gone) == len(came) == 1:
            order = manager.compare(gone[0], came[0])
            change = "upgraded" if order < 0 else "downgraded" if order > 0 else "changed"
            yield PackageChange(name, architecture, change, gone[0], came[0], manager.name)
            continue
        for version in gone:
            yield PackageChange(name, architecture, "removed", version, None, manager.name)
        for version in came:
            yield PackageChange(name, architecture, "installed", None, version, manager.name)


def _by_name(packages: Iterable[Installed]) -> Mapping[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for item in packages:
        found.setdefault((item.name, item.architecture), []).append(item.version)
    return found


def _changelogs(
    manager: Manager, read: Read, new: Entry, changes: Iterable[PackageChange]
) -> tuple[dict[PackageChange, tuple[ChangelogEntry, ...]], bool]:
    """What there is of them, and whether that is all: a few kilobytes, compressed, may be gigabytes of changelogs."""
    told: dict[PackageChange, tuple[ChangelogEntry, ...]] = {}
    left = _CHANGELOGS_CHARS_MAX
    try:
        for change, entries in manager.changelogs(read, new, [item for item in changes if item.change == "upgraded"]):
            left -= sum(_ENTRY_CHARS + len(entry.text) for entry in entries)
            if left < 0:
                return told, False
            told[change] = entries
    except (ImageError, ValueError):
        pass  # a changelog is a help; a damaged one is for fsck to tell
    return told, True


def _remembering(read: Read) -> Read:
    """Keeps small contents: every package's files are looked for along the same directories."""
    kept: dict[bytes, bytes] = {}

    def reading(object_id: bytes) -> bytes:
        content = kept.get(object_id)
        if content is None:
            content = read(object_id)
            if len(content) <= _KEPT_BYTES and len(kept) < _KEPT_OBJECTS:
                kept[object_id] = content
        return content

    return reading


def _dpkg(read: Read, old: Entry, new: Entry) -> tuple[list[Installed], list[Installed]]:
    from koguma.images.debian import changed_packages  # noqa: PLC0415 - see Manager

    before, after = changed_packages(read, old, new)
    return [Installed(*item) for item in before], [Installed(*item) for item in after]


def _dpkg_compare(left: str, right: str) -> int:
    from koguma.images.debian import compare_versions  # noqa: PLC0415

    return compare_versions(left, right)


def _dpkg_changelogs(read: Read, new: Entry, upgrades: list[PackageChange]) -> Iterator[_Changelog]:
    if not upgrades:
        return
    from koguma.images.changelogs import debian_changelog  # noqa: PLC0415

    for change in upgrades:
        with suppress(ImageError, ValueError):
            yield change, debian_changelog(read, new, change)


def _rpm(read: Read, old: Entry, new: Entry) -> tuple[list[Installed], list[Installed]]:
    from koguma.images.rpm import installed_packages  # noqa: PLC0415 - see Manager

    before, after = installed_packages(read, old), installed_packages(read, new)
    return _without(before, after), _without(after, before)


def _rpm_compare(left: str, right: str) -> int:
    from koguma.images.rpm import compare_versions  # noqa: PLC0415

    return compare_versions(left, right)


def _rpm_changelogs(read: Read, new: Entry, upgrades: list[PackageChange]) -> Iterator[_Changelog]:
    from koguma.images.rpm import changelogs  # noqa: PLC0415

    return changelogs(read, new, upgrades)


def _apk(read: Read, old: Entry, new: Entry) -> tuple[list[Installed], list[Installed]]:
    from koguma.images.apk import installed_packages  # noqa: PLC0415 - see Manager

    before, after = installed_packages(read, old), installed_packages(read, new)
    return _without(before, after), _without(after, before)


def _apk_compare(left: str, right: str) -> int:
    from koguma.images.apk import compare_versions  # noqa: PLC0415

    return compare_versions(left, right)


def _no_changelogs(_read: Read, _new: Entry, _upgrades: list[PackageChange]) -> Iterable[_Changelog]:
    return ()  # apk keeps none


def _without(packages: list[Installed], others: list[Installed]) -> list[Installed]:
    known = set(others)
    return [item for item in packages if item not in known]


_MANAGERS = (
    Manager("dpkg", (b"var/lib/dpkg/status",), _dpkg, _dpkg_compare, _dpkg_changelogs),
    Manager("rpm", (b"var/lib/rpm", b"usr/lib/sysimage/rpm"), _rpm, _rpm_compare, _rpm_changelogs),
    Manager("apk", (b"lib/apk/db/installed", b"usr/lib/apk/db/installed"), _apk, _apk_compare, _no_changelogs),
)
