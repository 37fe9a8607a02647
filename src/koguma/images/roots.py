"""What keeps commits: every place of a repository that names one.

gc keeps what `roots` gives, whoever wrote it down: but for refs, which must be right, it reads names as texts and
understands none of them, so that a place it has never heard of costs space and never a commit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koguma.images.commits import is_id
from koguma.images.errors import CorruptError

if TYPE_CHECKING:
    from koguma.images.repository import Repository

REFLOG_KEEP_S = 90 * 24 * 3600
"""How long a log's line keeps what it names."""
_TEXT_MAX_BYTES = 64 * 1024 * 1024
_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_STATE_FOLDERS = ("boot", "edit/*", "mounts", "mounts/*", "bisect", "merge", "state")
"""Besides files at the top: where labels, pins and operations that take a while name commits. What a label names stays
until the labels have followed the refs."""


@dataclass(frozen=True, slots=True)
class Roots:
    refs: frozenset[bytes]
    """Commits that refs name: they and all they reach must be there."""
    others: frozenset[bytes]
    """What logs, labels, pins, pending edits and other operations name; some of it may be gone, ids of other things
    than commits and trees do no harm."""
    shallow: frozenset[bytes]
    """Commits whose parents may be absent."""


def roots(repository: Repository, *, reflog_keep_s: float = REFLOG_KEEP_S) -> Roots:
    """Everything that refers to commits now. Raises CorruptError for a ref that cannot be read."""
    path = repository.path
    refs = frozenset(_refs(path / "refs"))
    others = {item for file in _files(path / "logs") for item in _logged(file, time.time() - reflog_keep_s)}
    others.update(_ids(file for file in path.iterdir() if file.is_file()))
    for pattern in _STATE_FOLDERS:
        others.update(_ids(file for folder in path.glob(pattern) if folder.is_dir() for file in folder.iterdir()))
    others.update(bytes.fromhex(pin.name) for pin in path.glob("pins/*") if is_id(pin.name))
    return Roots(refs, frozenset(others) - refs, read_shallow(path))


def read_shallow(path: Path) -> frozenset[bytes]:
    """The commits at which a shallow repository's history ends."""
    return frozenset(_ids([path / "shallow"]))


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if not file.name.startswith("."))


def _refs(folder: Path) -> Iterator[bytes]:
    for file in _files(folder):
        if file.is_dir():
            continue
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            if file.is_symlink():
                raise
            continue  # it was removed since it was listed
        text = data[:-1].decode(errors="replace")
        if not is_id(text) or data[-1:] != b"\n":
            raise CorruptError(f"a ref must hold an id of 64 hex digits and a line's end, got {data[:80]!r} ({file})")
        yield bytes.fromhex(text)


def _ids(files: Iterator[Path] | list[Path]) -> Iterator[bytes]:
    for file in files:
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _TEXT_MAX_BYTES:
            yield from (bytes.fromhex(found.decode()) for found in _ID.findall(file.read_bytes()))


def _logged(log: Path, since: float) -> Iterator[bytes]:
    """The ids in a log's lines that are young enough; a line without a time counts.

    Where the last line leads counts whatever its age: its ref may be lost, and the log is what brings it back.
    """
    if not log.is_file():
        return
    lines = [line for line in log.read_bytes().split(b"\n") if line]
    for number, line in enumerate(lines, 1):
        words = line.split(b"\t")[0].split(b" ")
        found = _ID.findall(line)
        if len(words) == 3 and words[2].isdigit() and int(words[2]) < since:
            found = found[1:2] if number == len(lines) else []
        yield from (bytes.fromhex(item.decode()) for item in found)
