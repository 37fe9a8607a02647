"""Checks a repository: every stored byte against its checksum and digest, and that all that is referred to is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice

from koguma.images.commits import decode_commit
from koguma.images.errors import CorruptError, ImageError, ObjectMissingError
from koguma.images.objects import ObjectStore
from koguma.images.packs import PackReader
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, decode, read_root

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Report:
    packs: int
    objects: int
    problems: tuple[str, ...]


def fsck(repository: Repository, progress: Callable[[int], None] | None = None) -> Report:
    """Check everything; never stops at the first problem. `progress` is told the bytes checked."""
    problems: list[str] = []
    objects = 0
    with ThreadPoolExecutor(thread_name_prefix="fsck") as pool:
        for pack in repository.objects.packs():
            problems += _check_index(pack)
            check = partial(_check_objects, repository.objects, pack)
            for count, size, found in pool.map(check, _batches(pack)):
                objects += count
                problems += found
                if progress:
                    progress(size)
    problems += _check_references(repository)
    return Report(len(repository.objects.packs()), objects, tuple(problems))


def _batches(pack: PackReader) -> Iterator[list[bytes]]:
    ids = pack.ids()
    while batch := list(islice(ids, _BATCH)):
        yield batch


def _check_index(pack: PackReader) -> list[str]:
    try:
        pack.verify_index()
    except (CorruptError, OSError) as error:
        return [str(error)]
    return []


def _check_objects(store: ObjectStore, pack: PackReader, ids: list[bytes]) -> tuple[int, int, list[str]]:
    size, problems = 0, []
    for object_id in ids:
        try:
            digest = sha256()
            for piece in store.chunks_in(pack, object_id):
                digest.update(piece)
                size += len(piece)
            if digest.digest() != object_id:
                raise CorruptError(f"an object must match its id, got other content ({object_id.hex()}, {pack.path})")
        except (ImageError, OSError) as error:
            problems.append(str(error))
    return len(ids), size, problems


def _check_references(repository: Repository) -> Iterator[str]:
    """Walk from every ref through commits and trees; each object is looked at once."""
    seen: set[bytes] = set()
    for ref in repository.refs.all():
        yield from _check_commits(repository, ref.commit, f"{ref.kind.word} {ref.name}", seen)


def _check_commits(repository: Repository, start: str, place: str, seen: set[bytes]) -> Iterator[str]:
    waiting = [start]
    while waiting:
        commit_id = waiting.pop()
        if bytes.fromhex(commit_id) in seen:
            continue
        seen.add(bytes.fromhex(commit_id))
        try:
            commit = decode_commit(repository.objects.read_verified(bytes.fromhex(commit_id)), commit_id)
            root = read_root(repository.objects.read, bytes.fromhex(commit.tree))
        except (CorruptError, ObjectMissingError) as error:
            yield f"{error} (commit {commit_id[:12]} of {place})"
            continue
        waiting += commit.parents
        yield from _check_tree(repository.objects, root.digest, f"commit {commit_id[:12]} of {place}", seen)


def _check_tree(store: ObjectStore, top: bytes, place: str, seen: set[bytes]) -> Iterator[str]:
    waiting = [(b"", top)]
    while waiting:
        path, tree = waiting.pop()
        if tree in seen:
            continue
        seen.add(tree)
        try:
            entries = decode(store.read(tree))
        except (CorruptError, ObjectMissingError) as error:
            yield f"{error} (directory /{path.decode(errors='backslashreplace')} in {place})"
            continue
        for entry in entries:
            below = path + b"/" + entry.name if path else entry.name
            if entry.kind == DIRECTORY:
                waiting.append((below, entry.digest))
            elif entry.kind == FILE and entry.size and entry.digest not in seen:
                seen.add(entry.digest)
                if not store.contains(entry.digest):
                    name = below.decode(errors="backslashreplace")
                    yield f"object {entry.digest.hex()} is in no pack (file /{name} in {place})"
