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

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field

from koguma.images.affected import Affected, find_affected
from koguma.images.bootcheck import check_artifacts, check_keys
from koguma.images.packcheck import PackFindings, check_packs
from koguma.images.packfiles import PACK_SUFFIX, lost_indexes
from koguma.images.reachable import Reached, mark
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
    reached, unreadable = _walk(repository, refs)
    damage = _damage(repository, refs, reached, unreadable | findings.damaged, findings.sound)
    problems += [str(item) for item in damage]
    problems += _wrong_sizes(repository, refs, reached, findings.sound)
    packs = len(repository.objects.packs()) + len(repository.objects.condemned())
    return Report(packs, len(findings.sound.keys() | findings.damaged.keys()), tuple(problems), tuple(damage))


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


def find_damage(repository: Repository, refs: Sequence[Named]) -> list[Damage]:
    """Objects that the refs need and that no readable pack has, or that cannot be read as what they are needed as."""
    reached, unreadable = _walk(repository, refs)
    return _damage(repository, refs, reached, unreadable, ())


def _walk(repository: Repository, refs: Sequence[Named]) -> tuple[Reached, dict[bytes, str]]:
    """All that the refs need; and of it what cannot be read on the way, and why."""
    reached, unreadable = Reached(), dict[bytes, str]()

    def missing(object_id: bytes, error: Exception) -> None:
        unreadable.setdefault(object_id, str(error))

    shallow = read_shallow(repository.path)
    mark(repository.objects, [named.commit for named in refs], reached, shallow=shallow, missing=missing)
    return reached, unreadable


def _damage(
    repository: Repository, refs: Sequence[Named], reached: Reached, why: Mapping[bytes, str], sound: Container[bytes]
) -> list[Damage]:
    """Of what is damaged and what is needed and absent: what it affects."""
    store = repository.objects
    found = {item for pack in (*store.packs(), *store.condemned()) for item in pack.ids()}
    why = dict.fromkeys(reached.ids - found, "it is in no pack") | dict(why)
    affected = _affected(repository, refs, why)
    return [
        Damage(object_id, why[object_id], affected.get(object_id, Affected()), object_id not in sound)
        for object_id in sorted(why)
    ]


def _wrong_sizes(
    repository: Repository, refs: Sequence[Named], reached: Reached, sizes: Mapping[bytes, int]
) -> list[str]:
    """Trees that say of a file another size than it has; only a tree that came from elsewhere can."""
    wrong = sorted((item, said) for item, said in reached.files if sizes.get(item, said) != said)
    affected = _affected(repository, refs, [item for item, _ in wrong])
    return [
        f"a file must have the {said} bytes its tree says, object {item.hex()} has {sizes[item]};"
        f" it is {affected.get(item, Affected())}"
        for item, said in wrong
    ]


def _affected(repository: Repository, refs: Sequence[Named], objects: Collection[bytes]) -> dict[bytes, Affected]:
    return find_affected(repository, {named.place: named.commit for named in refs}, objects) if objects else {}
