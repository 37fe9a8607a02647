"""Sweeps what can be made again or nobody uses: root images and package caches of edits, notes on trees that are gone,
abandoned scratch.

Everything here may be deleted at any time while nobody uses it; age says that nobody does, and a lock where there is
one. Labels and boot artifacts are `labels`' own.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from koguma.images.errors import ImageError
from koguma.images.files import locked, remove_tree
from koguma.images.repository import Repository
from koguma.images.statcache import cached_trees

_SCRATCH_MIN_AGE_S = 24 * 3600
"""A build or an export may take hours: scratch is left alone for a day, whatever the grace period."""
_STAT_CACHE_AGE_S = 90 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Swept:
    paths: tuple[str, ...]
    """What was removed, relative to the repository."""
    size_bytes: int


def sweep(
    repository: Repository,
    kept: Container[bytes],
    trees: Container[bytes],
    grace_s: float,
    *,
    dry_run: bool = False,
) -> Swept:
    """Remove what is older than the grace period; `kept` are the objects that stay, `trees` those that stay as trees,
    with all that is in them."""
    removed, total = [], 0
    for path in _sweepable(repository, kept, trees, time.time() - grace_s):
        try:
            total += size_of(path)
        except FileNotFoundError:
            continue  # somebody else removed it
        removed.append(str(path.relative_to(repository.path)))
        if not dry_run:
            remove_tree(path)
    return Swept(tuple(removed), total)


def size_of(path: Path) -> int:
    """Bytes a file or directory takes; what has further names elsewhere frees nothing and counts nothing."""
    status = path.lstat()
    if not path.is_dir() or path.is_symlink():
        return status.st_blocks * 512 if status.st_nlink == 1 else 0
    return sum(size_of(below) for below in path.iterdir())


def _sweepable(
    repository: Repository, kept: Container[bytes], trees: Container[bytes], before: float
) -> Iterator[Path]:
    path, cache = repository.path, repository.path / "cache"
    scratch_before = min(before, time.time() - _SCRATCH_MIN_AGE_S)
    yield from (file for file in _listed(cache / "images") if _mtime(file) < scratch_before and not _is_in_use(file))
    yield from (file for file in _listed(cache / "unbootable") if not _names_kept(file, kept))
    yield from (file for file in _listed(cache / "stat") if _is_stale(file, trees))
    for slot in cache.glob("apt/*/*"):
        yield from _unused_apt_cache(slot, before)
    yield from (item for item in _listed(path / "tmp") if _mtime(item) < scratch_before)
    yield from _unfinished_files(path, time.time() - _SCRATCH_MIN_AGE_S)


def _is_in_use(kept: Path) -> bool:
    """Whether an artifact has this root image, or the one a note is about: later ones take their blocks from it."""
    try:
        return kept.with_suffix(".squashfs").stat().st_nlink > 1
    except FileNotFoundError:
        return False


def _is_stale(stat_cache: Path, trees: Container[bytes]) -> bool:
    """Whether nobody uses a stat cache, or it vouches for directories that are gone."""
    old = _mtime(stat_cache) < time.time() - _STAT_CACHE_AGE_S
    return old or any(tree not in trees for tree in cached_trees(stat_cache))


def _unfinished_files(path: Path, before: float) -> Iterator[Path]:
    """What killed processes left of small files they were replacing (`files.write_atomically`)."""
    folders = [path, path / "boot", path / "edit"]
    found = [item for folder in folders for item in folder.glob(".*.tmp")]
    found += [item for folder in ("refs", "logs", "keys", "edit") for item in (path / folder).glob("*/.*.tmp")]
    yield from (item for item in found if item.is_file() and _mtime(item) < before)


def _unused_apt_cache(slot: Path, before: float) -> Iterator[Path]:
    if slot.is_dir() and _newest(slot) < before:
        try:
            with locked(slot / "lock", timeout_s=0):
                yield slot
        except ImageError:
            return  # an edit uses it


def _names_kept(path: Path, kept: Container[bytes]) -> bool:
    """Whether a file is called after an object that stays; a name that is no id is not ours to remove."""
    try:
        return bytes.fromhex(path.name) in kept
    except ValueError:
        return True


def _newest(folder: Path) -> float:
    return max((_mtime(item) for item in folder.rglob("*")), default=0.0)


def _mtime(path: Path) -> float:
    """When a file was changed; one that is gone was changed just now."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _listed(folder: Path) -> list[Path]:
    """What is in a directory, but for what somebody is writing."""
    if not folder.is_dir():
        return []
    finished = time.time() - _SCRATCH_MIN_AGE_S
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") or _mtime(path) < finished]
