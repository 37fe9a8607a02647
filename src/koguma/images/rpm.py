"""What rpm's own database in a tree says, and the order of rpm's versions. rpm itself is never run.

A header is what rpm wrote at installation: an index of tags, then their values.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from koguma.images.diff import ChangelogEntry, PackageChange
from koguma.images.errors import PackageDatabaseError
from koguma.images.packages import Installed
from koguma.images.rpmdb import header_blobs
from koguma.images.trees import Entry, Read
from koguma.images.versions import number, split_epoch

NAME, VERSION, RELEASE, EPOCH, ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
CHANGELOG_NAME, CHANGELOG_TEXT = 1081, 1082
FOLDER_NUMBERS, BASE_NAMES, FOLDERS = 1116, 1117, 1118

_INT32, _STRING, _STRING_ARRAY, _TRANSLATED = 4, 6, 8, 9
_TAG = struct.Struct(">IIII")
"""Tag, type, offset of the value, number of values."""
_TAGS_MAX = 100_000
_HEADER_BYTES_MAX = 64 * 1024 * 1024
"""The header of a package with a quarter of a million files."""
_PATH_BYTES_MAX = 4096
_PART = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


class Header:
    """One package's header; only the values that are asked for are read."""

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise PackageDatabaseError(f"a header must have an index, got {len(blob)} bytes")
        if len(blob) > _HEADER_BYTES_MAX:
            raise PackageDatabaseError(f"a header must have at most {_HEADER_BYTES_MAX} bytes, got {len(blob)}")
        count, size = struct.unpack_from(">II", blob)
        if count > _TAGS_MAX or 8 + 16 * count + size > len(blob):
            raise PackageDatabaseError(f"a header must be as long as its index says, got {len(blob)} bytes")
        self._index = {_TAG.unpack_from(blob, 8 + 16 * item)[0]: 8 + 16 * item for item in range(count)}
        self._blob = blob
        self._values_at = 8 + 16 * count

    def text(self, tag: int) -> str:
        """The first text of a tag; empty when the header has no such tag."""
        return next(self.texts(tag), "")

    def texts(self, tag: int) -> Iterator[str]:
        kind, at, count = self._place(tag)
        for _ in range(count if kind in (_STRING, _STRING_ARRAY, _TRANSLATED) else 0):
            end = self._blob.find(b"\0", at)
            if end < 0:
                raise PackageDatabaseError(f"a text must end within its header (tag {tag})")
            yield self._blob[at:end].decode("utf-8", errors="replace")
            at = end + 1

    def number(self, tag: int) -> int | None:
        """The first number of a tag."""
        return next(self.numbers(tag), None)

    def numbers(self, tag: int) -> Iterator[int]:
        kind, at, count = self._place(tag)
        if kind != _INT32:
            return
        if at + 4 * count > len(self._blob):
            raise PackageDatabaseError(f"a number must lie within its header (tag {tag})")
        for place in range(at, at + 4 * count, 4):
            yield int.from_bytes(self._blob[place : place + 4], "big")

    def files(self) -> Iterator[bytes]:
        """The paths the package owns, relative to the root; none that is longer than Linux allows."""
        folders = [*self.texts(FOLDERS)]
        for folder, name in zip(self.numbers(FOLDER_NUMBERS), self.texts(BASE_NAMES), strict=False):
            if folder < len(folders) and len(folders[folder]) + len(name) < _PATH_BYTES_MAX:
                yield (folders[folder] + name).strip("/").encode()

    @property
    def label(self) -> str:
        """The package as `rpm -q` names it."""
        return f"{self.text(NAME)}-{self.text(VERSION)}-{self.text(RELEASE)}.{self.text(ARCHITECTURE)}"

    def _place(self, tag: int) -> tuple[int, int, int]:
        if tag not in self._index:
            return 0, 0, 0
        _, kind, offset, count = _TAG.unpack_from(self._blob, self._index[tag])
        return kind, self._values_at + offset, count


def headers(read: Read, root: Entry) -> Iterator[Header]:
    """The headers of all installed packages. Raises PackageDatabaseError."""
    return map(Header, header_blobs(read, root))


def installed_packages(read: Read, root: Entry) -> list[Installed]:
    """Installed packages of a tree, keys of signers left out; none without rpm. Raises PackageDatabaseError."""
    return sorted({_installed(header) for header in headers(read, root) if header.text(NAME) != "gpg-pubkey"})


def changelogs(
    read: Read, root: Entry, upgrades: Iterable[PackageChange]
) -> Iterator[tuple[PackageChange, tuple[ChangelogEntry, ...]]]:
    """For each upgraded package the entries after its old version, newest first; the database is read once."""
    wanted = {Installed(change.name, change.architecture, change.new_version or ""): change for change in upgrades}
    for header in headers(read, root) if wanted else ():
        if change := wanted.pop(_installed(header), None):
            yield change, _changelog(header, change.old_version or "")


def _changelog(header: Header, old_version: str) -> tuple[ChangelogEntry, ...]:
    """rpm's entries are named `author - version-release` by custom; without a version one counts with that before."""
    names = [*header.texts(CHANGELOG_NAME)]
    if not any(map(_version_in, names)):
        return ()
    entries: list[ChangelogEntry] = []
    old = split_epoch(old_version)[1]
    for name, text in zip(names, header.texts(CHANGELOG_TEXT), strict=False):
        version = _version_in(name)
        # An entry lacks the distribution's suffix: `1.2-3` is not newer than `1.2-3.fc40`, and it ends the reading.
        if version and compare_versions(version, old) <= 0:
            break
        entries.append(ChangelogEntry(version or name, text.strip("\n")))
    return tuple(entries)


def _installed(header: Header) -> Installed:
    epoch = header.number(EPOCH)
    version = f"{header.text(VERSION)}-{header.text(RELEASE)}"
    return Installed(header.text(NAME), header.text(ARCHITECTURE), f"{epoch}:{version}" if epoch else version)


def _version_in(name: str) -> str:
    """The version that the heading of a changelog's entry ends with, or nothing."""
    last = name.rstrip().rpartition(" ")[2].lstrip("-")
    return split_epoch(last)[1] if re.match("[0-9]", last) else ""


def compare_versions(left: str, right: str) -> int:
    """rpm's order: epoch, version, release."""
    (left_epoch, left_rest), (right_epoch, right_rest) = split_epoch(left), split_epoch(right)
    if left_epoch != right_epoch:
        return -1 if left_epoch < right_epoch else 1
    (left_version, _, left_release), (right_version, _, right_release) = (
        rest.rpartition("-") if "-" in rest else (rest, "", "") for rest in (left_rest, right_rest)
    )
    return compare_parts(left_version, right_version) or (
        compare_parts(left_release, right_release) if left_release and right_release else 0
    )


def compare_parts(left: str, right: str) -> int:
    """Runs of digits, as numbers, and runs of letters in turn; whatever else stands between them separates only.

    `~` is before everything, even the end; `^` is after the end and before everything else; digits are after letters.
    """
    one, other = _PART.findall(left), _PART.findall(right)
    for position in range(max(len(one), len(other))):
        first, second = (parts[position] if position < len(parts) else "" for parts in (one, other))
        if first != second and (found := _rank(first) - _rank(second) or _within(first, second)):
            return -1 if found < 0 else 1
    return 0


def _rank(part: str) -> int:
    if part == "~":
        return 0
    if not part:
        return 1
    if part == "^":
        return 2
    return 4 if part.isdigit() else 3


def _within(left: str, right: str) -> int:
    if left.isdigit():
        return number(left) - number(right)
    return (left > right) - (left < right)
