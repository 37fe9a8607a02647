"""The list of packs that gc is about to remove: `packs/condemned`, drawn in FORMAT.md.

While it waits, its packs can still be read, but no writer counts on what only they hold. Once it is being removed, they
count as gone; whoever runs gc next finishes what a crash interrupted. One small file, replaced by rename, says both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from koguma.images.errors import CorruptError
from koguma.images.files import sync_directory, write_atomically

FILE_NAME = "condemned"
_MAGIC = "koguma-condemned/1"


class Stage(Enum):
    """How far the removal is."""

    WAITING = "waiting"
    """For writers that may count on these packs; a last look at the refs follows."""
    REMOVING = "removing"
    """The last look is done: these packs are gone, whether their files are or not."""


class Condemned(NamedTuple):
    stage: Stage
    packs: frozenset[str]


def read_condemned(directory: Path) -> Condemned | None:
    """The list, or None when there is none. Raises CorruptError when it is damaged."""
    try:
        data = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    return parse_condemned(data, str(directory / FILE_NAME))


def parse_condemned(data: bytes, place: str) -> Condemned:
    """What the content of a list says. Raises CorruptError when it is damaged."""
    lines = data.decode("ascii", errors="replace").split("\n")
    stages = {f"{_MAGIC} {stage.value}": stage for stage in Stage}
    body = data[: -len(lines[-2]) - 1] if len(lines) > 2 else b""
    if lines[0] not in stages or lines[-1] or lines[-2] != f"{zlib.crc32(body):08x}":
        raise CorruptError(
            f"the list of packs to be removed must match its checksum; remove it and run gc again ({place})"
        )
    return Condemned(stages[lines[0]], frozenset(lines[1:-2]))


def condemned_names(directory: Path) -> frozenset[str]:
    """The packs that are about to be removed, whose names no new pack may get; none when the list is damaged, as `fsck`
    says."""
    try:
        found = read_condemned(directory)
    except CorruptError:
        return frozenset()
    return found.packs if found else frozenset()


def write_condemned(directory: Path, stage: Stage, packs: Iterable[str]) -> None:
    """Replace the list; without packs there is none any more."""
    names = sorted(packs)
    if not names:
        (directory / FILE_NAME).unlink(missing_ok=True)
        sync_directory(directory)
        return
    body = "\n".join([f"{_MAGIC} {stage.value}", *names, ""]).encode()
    write_atomically(directory / FILE_NAME, body + f"{zlib.crc32(body):08x}\n".encode())


def remove_condemned_leftovers(directory: Path) -> None:
    """Remove what a killed gc left of a list it was writing; the caller holds the lock `gc`."""
    for path in directory.glob(f".{FILE_NAME}.*.tmp"):
        path.unlink(missing_ok=True)
