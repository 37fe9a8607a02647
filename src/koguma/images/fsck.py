"""Checks a repository: every stored byte, and that all that is referred to is there; says what damage affects.

Steps of `fsck`, none of which stops at the first problem:
1. read refs, logs and HEAD, under their lock;
2. verify every pack and index, with all cores;
3. walk from the refs to everything they need;
4. verify keys, signatures, boot artifacts, labels and what operations wrote down;
5. of every object that is damaged or missing, find the paths, commits, refs and labels that need it.

Changes nothing; `repair` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from koguma.images.affected import Affected, find_affected
from koguma.images.bootcheck import check_artifacts, check_keys
from koguma.images.packcheck import PackFindings, check_packs
from koguma.images.packfiles import PACK_SUFFIX, lost_indexes
from koguma.images.reachable import mark
from koguma.images.refcheck import Named, check_state, read_refs
from koguma.images.repository import Repository
from koguma.images.roots import read_shallow
from koguma.images.signatures import check_signatures


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that some ref needs, or that lies damaged in a pack."""

    object: bytes
    why: str
    affects: Affected
    lost: bool
    """False: another copy of it is sound."""

    def __str__(self) -> str:
        state = "" if self.lost else " (another copy is sound)"
        return f"object {self.object.hex()} is damaged: {self.why}{state}; affects {self.affects}"


@dataclass(frozen=True, slots=True)
class Report:
    packs: int
    objects: int
    problems: tuple[str, ...]
    """Everything that is wrong, a sentence each."""
    damage: tuple[Damage, ...] = field(default=())
    """The objects among it."""


def fsck(repository: Repository, progress: Callable[[int], None] | None = None) -> Report:
    """Check everything. `progress` is told the bytes of packs checked."""
    refs, problems = read_refs(repository)
    findings = verify_packs(repository, progress)
    problems += findings.problems
    problems += check_state(repository)
    problems += check_keys(repository.path / "keys")
    problems += check_signatures(repository)
    artifacts, labels = check_artifacts(repository.path)
    problems += [artifact.problem for artifact in artifacts]
    problems += labels
    damage = find_damage(repository, refs, findings)
    problems += [str(item) for item in damage]
    packs = len(repository.objects.packs()) + len(repository.objects.condemned())
    return Report(packs, len(findings.sound | findings.damaged.keys()), tuple(problems), tuple(damage))


def verify_packs(repository: Repository, progress: Callable[[int], None] | None = None) -> PackFindings:
    """Verify every pack, also those that lost their index or have a damaged one."""
    store = repository.objects
    store.refresh()
    without_index = lost_indexes(store.directory)
    broken = [store.directory / (name + PACK_SUFFIX) for name in store.broken]
    findings = check_packs([*store.packs(), *store.condemned()], [*without_index, *broken], progress)
    findings.problems += store.broken.values()
    findings.problems += [f"a pack must have its index ({path})" for path in without_index]
    return findings


def find_damage(repository: Repository, refs: Sequence[Named], findings: PackFindings) -> list[Damage]:
    """Objects that are damaged, and those that something reachable needs and that no readable pack has."""
    store, seen, why = repository.objects, set[bytes](), dict(findings.damaged)

    def missing(object_id: bytes, error: Exception) -> None:
        why.setdefault(object_id, str(error))

    mark(store, [named.commit for named in refs], seen, shallow=read_shallow(repository.path), missing=missing)
    found = {item for pack in (*store.packs(), *store.condemned()) for item in pack.ids()}
    for object_id in seen - found:
        why.setdefault(object_id, "it is in no pack")
    if not why:
        return []
    affected = find_affected(repository, {named.place: named.commit for named in refs}, why.keys())
    return [
        Damage(object_id, why[object_id], affected.get(object_id, Affected()), object_id not in findings.sound)
        for object_id in sorted(why)
    ]
