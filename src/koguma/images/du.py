"""What commits cost in bytes: in all, by ref, and what each ref has for itself.

Bytes are those of records in packs (compressed, with their headers) and of contents (raw). What nothing refers to is
told apart, and so are boot artifacts and caches, whose root images are the same files by hard links.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from koguma.images.objects import ObjectStore
from koguma.images.packs import RECORD
from koguma.images.reachable import Reached, ignore, mark, mark_root
from koguma.images.repository import Repository
from koguma.images.roots import read_shallow


@dataclass(frozen=True, slots=True)
class Cost:
    """Objects and their bytes."""

    objects: int
    stored_bytes: int
    """In packs."""
    raw_bytes: int
    """As contents."""


@dataclass(frozen=True, slots=True)
class RefCost:
    """What a ref's whole history takes, and what would be freed without the ref."""

    name: str
    kind: str
    total: Cost
    unique: Cost


@dataclass(frozen=True, slots=True)
class CommitCost:
    """What one commit's tree takes, and what it added to its parents' trees."""

    commit: str
    tree: Cost
    added: Cost


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the repository's directory. A hard-linked file counts once, in the first part that has it."""

    name: str
    size_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Usage:
    packs: int
    all: Cost
    shared: Cost
    """Reached by more than one ref."""
    unreachable: Cost
    """By no ref: kept by logs or pending edits, or removed by gc once it is old enough."""
    refs: tuple[RefCost, ...]
    areas: tuple[Area, ...]


def usage(repository: Repository) -> Usage:
    """What the repository and its refs cost."""
    store = repository.objects
    sizes = _sizes(store)
    refs = repository.refs.all()
    reached = {ref: _reach(repository, ref.commit) for ref in refs}
    owners: dict[bytes, int] = {}
    for objects in reached.values():
        for item in objects:
            owners[item] = owners.get(item, 0) + 1
    return Usage(
        packs=len(store.packs()),
        all=_cost(sizes, sizes),
        shared=_cost(sizes, (item for item, count in owners.items() if count > 1)),
        unreachable=_cost(sizes, sizes.keys() - owners.keys()),
        refs=tuple(
            RefCost(
                ref.name,
                ref.kind.word,
                _cost(sizes, objects),
                _cost(sizes, (item for item in objects if owners[item] == 1)),
            )
            for ref, objects in reached.items()
        ),
        areas=_areas(repository.path),
    )


def commit_costs(repository: Repository, revisions: Sequence[str]) -> list[CommitCost]:
    """What these commits cost; a range `a..b` stands for each commit in it."""
    sizes = _sizes(repository.objects)
    costs = []
    for revision in revisions:
        commits = repository.log(revision) if ".." in revision else [repository.resolve(revision)]
        for commit in commits:
            tree, before = _tree(repository, commit.tree), set[bytes]()
            for parent in commit.parents:
                if repository.objects.readable(bytes.fromhex(parent)):
                    before |= _tree(repository, repository.commit(parent).tree)
            costs.append(CommitCost(commit.id, _cost(sizes, tree), _cost(sizes, tree - before)))
    return costs


def _sizes(store: ObjectStore) -> dict[bytes, tuple[int, int]]:
    """Stored and raw bytes of every object; of one with several copies the first is counted, as reads go there."""
    sizes: dict[bytes, tuple[int, int]] = {}
    for pack in store.packs():
        for object_id, (offset, stored) in sorted(pack.places().items(), key=lambda item: item[1]):
            if object_id not in sizes:
                sizes[object_id] = (stored + RECORD.size, pack.header(object_id, offset).size)
    return sizes


def _reach(repository: Repository, commit: str) -> set[bytes]:
    reached = Reached()
    shallow = read_shallow(repository.path)
    mark(repository.objects, [bytes.fromhex(commit)], reached, shallow=shallow, missing=ignore)
    return reached.ids


def _tree(repository: Repository, tree: str) -> set[bytes]:
    reached = Reached()
    mark_root(repository.objects, bytes.fromhex(tree), reached, ignore)
    return reached.ids


def _cost(sizes: dict[bytes, tuple[int, int]], objects: Iterable[bytes]) -> Cost:
    found = [sizes[item] for item in objects if item in sizes]
    return Cost(len(found), sum(stored for stored, _ in found), sum(raw for _, raw in found))


def _areas(repository: Path) -> tuple[Area, ...]:
    counted: set[int] = set()
    areas = []
    for name in ("packs", "boot", "edit", "cache", "tmp"):
        inodes: dict[int, int] = {}
        for item in (repository / name, *(repository / name).rglob("*")):
            try:
                status = item.lstat()
            except FileNotFoundError:
                continue  # removed while we looked
            if status.st_ino not in counted:
                inodes[status.st_ino] = status.st_blocks * 512
        counted |= inodes.keys()
        areas.append(Area(name, sum(inodes.values()), len(inodes)))
    return tuple(areas)
