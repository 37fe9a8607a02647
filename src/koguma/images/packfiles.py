"""The files of packs in a directory: what they are called, how they appear and go, what dead writers leave.

A pack is visible when both of its files are there. Knows nothing of what is in them but the index's digest, which is
the name. The locks are drawn in FORMAT.md.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from koguma.images.files import sync_directory, write_all
from koguma.images.packindex import Place, encode_index

PACK_SUFFIX = ".pack"
INDEX_SUFFIX = ".idx"
TEMPORARY_PREFIX = ".new-"
_UNOWNED_AGE_S = 3600


def pack_name(index: bytes) -> str:
    """What a pack with this index is called."""
    return "pack-" + sha256(index).hexdigest()[:32]


def visible_packs(names: Iterable[str]) -> set[str]:
    """The packs among the names of a directory: those of which both files are there."""
    listed = set(names)
    packs = {name.removesuffix(INDEX_SUFFIX) for name in listed if _is_index(name)}
    return {name for name in packs if name + PACK_SUFFIX in listed}


def create_temporary(directory: Path) -> tuple[Path, int]:
    """A new temporary file and its descriptor, locked: whoever clears up sees that its writer lives."""
    while True:
        path = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return path, descriptor
        except BlockingIOError:
            pass  # somebody clears up and took it for dead in the instant before it was locked
        os.close(descriptor)


def install_pack(temporary: Path, index: bytes) -> str:
    """Make a pack visible that is synced and locked under a temporary name; returns its name."""
    directory, name = temporary.parent, pack_name(index)
    _place_index(temporary, index, name)
    temporary.rename(directory / (name + PACK_SUFFIX))
    sync_directory(directory)
    return name


def adopt_pack(directory: Path, pack: Path, index: bytes) -> str:
    """Make a synced pack of another directory of this file system visible here; returns its name."""
    name = pack_name(index)
    with _placeholder(directory) as temporary:
        _place_index(temporary, index, name)
        pack.rename(directory / (name + PACK_SUFFIX))
        sync_directory(directory)
    return name


def add_index(directory: Path, pack: str, places: Mapping[bytes, Place]) -> str:
    """A second name for a pack, whose index leaves out some of its objects; returns that name."""
    old = directory / (pack + PACK_SUFFIX)
    index = encode_index(dict(places), old.stat().st_size)
    name = pack_name(index)
    if name != pack:
        with _placeholder(directory) as temporary:
            _place_index(temporary, index, name)
            (directory / (name + PACK_SUFFIX)).unlink(missing_ok=True)
            (directory / (name + PACK_SUFFIX)).hardlink_to(old)
            sync_directory(directory)
    return name


def restore_index(pack: Path, places: Mapping[bytes, Place]) -> None:
    """Give a pack the index it lost."""
    with _placeholder(pack.parent) as temporary:
        _place_index(temporary, encode_index(dict(places), pack.stat().st_size), pack.stem)
        sync_directory(pack.parent)


def remove_packs(directory: Path, names: Iterable[str]) -> None:
    """Remove packs. The pack goes before its index: what a crash leaves is an index, which is invisible alone."""
    for name in names:
        (directory / (name + PACK_SUFFIX)).unlink(missing_ok=True)
        (directory / (name + INDEX_SUFFIX)).unlink(missing_ok=True)
    sync_directory(directory)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what writers that died left behind: temporary files that nobody has locked, indexes without packs.

    Safe beside writers. An index without its pack may be one that is just appearing: its writer's temporary file was
    there before it, so the directory is listed again after the index was seen.
    """
    lonely = _lonely_indexes(directory)
    removed, alive = [], False
    names = _names(directory)
    for name in names:
        if not name.startswith(TEMPORARY_PREFIX):
            continue
        owner = directory / name.removesuffix(INDEX_SUFFIX)
        if name.endswith(INDEX_SUFFIX) and owner.name not in names:
            removed += _remove_old(directory / name)
        elif not _remove_unlocked(owner):
            alive = True
        else:
            (directory / name).unlink(missing_ok=True)
            removed.append(directory / name)
    for name in () if alive else lonely:
        if not (directory / (name + PACK_SUFFIX)).exists():
            (directory / (name + INDEX_SUFFIX)).unlink(missing_ok=True)
            removed.append(directory / (name + INDEX_SUFFIX))
    return removed


def _remove_old(path: Path) -> list[Path]:
    """Remove a file without an owner once nobody can be at work on it."""
    try:
        if path.stat().st_mtime > time.time() - _UNOWNED_AGE_S:
            return []
    except FileNotFoundError:
        return []
    path.unlink(missing_ok=True)
    return [path]


def lost_indexes(directory: Path) -> list[Path]:
    """Packs whose index is gone. No crash leaves one: the index comes first and goes last."""
    names = set(_names(directory))
    return [
        directory / name
        for name in sorted(names)
        if name.endswith(PACK_SUFFIX)
        and not name.startswith(".")
        and name.removesuffix(PACK_SUFFIX) + INDEX_SUFFIX not in names
    ]


def _lonely_indexes(directory: Path) -> list[str]:
    names = _names(directory)
    return sorted({name.removesuffix(INDEX_SUFFIX) for name in names if _is_index(name)} - visible_packs(names))


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))  # noqa: PTH208 - every writer starts with this, Path objects take twice as long


def _is_index(name: str) -> bool:
    return name.endswith(INDEX_SUFFIX) and not name.startswith(".")


def _remove_unlocked(path: Path) -> bool:
    """Remove a temporary file unless its writer lives; whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.with_name(path.name + INDEX_SUFFIX).unlink(missing_ok=True)  # first: alone, nobody would know it is dead
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _placeholder(directory: Path) -> Iterator[Path]:
    """A locked, empty temporary file for as long as an index appears that belongs to no new pack."""
    path, descriptor = create_temporary(directory)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _place_index(temporary: Path, index: bytes, name: str) -> None:
    waiting = temporary.with_name(temporary.name + INDEX_SUFFIX)
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, index)
        os.fsync(descriptor)
    except BaseException:
        waiting.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    waiting.rename(temporary.with_name(name + INDEX_SUFFIX))
