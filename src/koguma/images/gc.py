"""Garbage collection: removes what nothing refers to and merges packs. Safe beside commits, pulls and readers.

Steps of `collect`, under the lock `gc`; nobody waits for it and it waits for nobody for long:
1. finish what an earlier run began to remove;
2. mark all that the roots reach, and all that young objects reach: a writer may be about to refer to them;
3. of packs with garbage, copy what is kept to new packs, or leave garbage out of a second index when there is little;
   merge small packs on the way;
4. condemn the old packs: they can be read, but no new writer counts on them; turn the page of the writers' lock;
5. when the writers that began before are done, look at the roots once more, the last time under the lock of the refs: a
   pack they reach into again is pardoned, the others are gone from now on; remove their files.

When a long pull keeps step 5 from happening, the packs stay condemned and readable, and the next run goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from koguma.images.commits import decode_commit
from koguma.images.condemned import Stage, read_condemned, remove_condemned_leftovers, write_condemned
from koguma.images.errors import CorruptError, ImageError
from koguma.images.files import storage_errors
from koguma.images.objects import PACK_MAX_BYTES, ObjectStore
from koguma.images.packfiles import add_index, remove_leftovers, remove_packs
from koguma.images.packindex import Place
from koguma.images.packs import PACK_HEADER, RECORD, PackReader
from koguma.images.reachable import Reached, mark, mark_any
from koguma.images.repack import copy_objects, merge_count, repacking
from koguma.images.repository import Repository
from koguma.images.roots import REFLOG_KEEP_S, roots
from koguma.images.sweep import Swept, sweep
from koguma.images.writerlock import turn_page, writers_of_old_pages_are_done

GRACE_S = 14 * 24 * 3600
_REWRITE_SHARE = 0.2
"""A pack is copied when this much of it is garbage; below that garbage only leaves its index."""
_WAIT_S = 10
"""How long to wait for commits that are under way; a pull takes longer and is left to the next run."""
_LOOKED_INTO_BYTES = 64 * 1024
"""Young contents up to this size may be commits or trees that were stored as files before; a larger tree is met below
its root object."""
_MERGED_BYTES = PACK_MAX_BYTES // 2
"""Larger packs are not merged: their number does not matter and copying them does."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run did, or with `dry_run` would do."""

    objects: int
    """Objects that nothing refers to any more."""
    freed_bytes: int
    """Bytes of packs: those before less those after."""
    packs_before: int
    packs_after: int
    kept_young: int
    """Objects that nothing refers to, but younger than the grace period."""
    waiting: int
    """Packs that go when writers that began earlier are done, with the next run."""
    swept: Swept
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Task:
    """Packs that become one, or more when they are large: a plan leaves no choice to its execution."""

    sources: tuple[PackReader, ...]
    copy: bool
    """False: the bytes stay, garbage leaves the index."""


def collect(
    repository: Repository,
    *,
    grace_s: float = GRACE_S,
    reflog_keep_s: float = REFLOG_KEEP_S,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Collected:
    """Remove what nothing refers to and is older than the grace period.

    Raises CorruptError when something that a ref needs is missing or damaged: then nothing is removed.
    """
    store = repository.objects
    with storage_errors("gc"), repacking(store) as alone:
        if not alone:
            raise ImageError(f"only one gc may run at a time, another one is at work ({repository.path})")
        return _Collection(repository, store, grace_s, reflog_keep_s, say).run(dry_run=dry_run)


class _Collection:
    def __init__(
        self,
        repository: Repository,
        store: ObjectStore,
        grace_s: float,
        reflog_keep_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._store = store
        self._grace_s = grace_s
        self._young_since = time.time() - grace_s
        self._shallow = frozenset[bytes]()
        self._reflog_keep_s = reflog_keep_s
        self._say = say
        self._reached = Reached()
        self._kept = self._reached.ids
        self._closed: set[str] = set()
        """Packs of which everything is marked, with all that it reaches."""
        self._followed: set[bytes] = set()
        """Of the roots those that may lead nowhere. What they led to is marked; what came since is in new packs."""

    def run(self, *, dry_run: bool) -> Collected:
        self._require_sound()
        if not dry_run:
            self._finish_earlier()
            remove_leftovers(self._store.directory)
            remove_condemned_leftovers(self._store.directory)
        self._store.refresh()
        packs = self._store.packs()
        self._mark_roots()
        reached = len(self._kept)
        self._mark_unreached(pack for pack in packs if pack.path.stat().st_mtime > self._young_since)
        places = {pack: pack.places() for pack in packs}
        garbage = {pack: _garbage_bytes(places[pack], self._kept) for pack in packs}
        tasks = plan(packs, garbage)
        self._closed.update(pack.name for pack in packs if not garbage[pack])
        # Before packs go: a writer that begins then must not trust in a tree that stays only as the content of a file.
        swept = sweep(self._repository, self._kept, self._reached.walked, self._grace_s, dry_run=dry_run)
        freed = sum(garbage[pack] for task in tasks if task.copy for pack in task.sources)
        waiting = 0
        if not dry_run:
            freed, waiting = self._execute(tasks)
        return Collected(
            objects=len({item for found in places.values() for item in found if item not in self._kept}),
            freed_bytes=freed,
            packs_before=len(packs),
            packs_after=len(packs) if dry_run else len(self._store.packs()),
            kept_young=len(self._kept) - reached,
            waiting=waiting,
            swept=swept,
            dry_run=dry_run,
        )

    # Marking

    def _require_sound(self) -> None:
        for why in self._store.broken.values():
            raise CorruptError(f"gc needs a whole repository; koguma image fsck says what is wrong: {why}")

    def _mark_roots(self) -> None:
        """Mark from every root. What a ref needs must be there; other names may be of something that is gone."""
        found = roots(self._repository, reflog_keep_s=self._reflog_keep_s)
        mark(self._store, found.refs, self._reached, shallow=found.shallow, missing=_stop)
        self._shallow |= found.shallow
        for item in found.others - self._followed:
            mark_any(self._store, item, self._reached, self._shallow, missing=self._absent)
        self._followed |= found.others
        self._mark_left_out()

    def _mark_left_out(self) -> None:
        """What is there of the parents of shallow commits: a fetch may be about to complete them."""
        done = set[bytes]()
        while fresh := (self._shallow & self._reached.walked) - done:
            done |= fresh
            for commit in fresh:
                for parent in decode_commit(self._store.read(commit), commit.hex()).parents:
                    parent_id = bytes.fromhex(parent)
                    mark_any(self._store, parent_id, self._reached, self._shallow, missing=self._absent)

    def _mark_unreached(self, packs: Iterable[PackReader]) -> None:
        """Keep all of these packs and what it reaches: a writer that finds a tree counts on everything below it."""
        for pack in packs:
            for item in pack.ids():
                mark_any(
                    self._store,
                    item,
                    self._reached,
                    self._shallow,
                    missing=self._absent,
                    looked_into_bytes=_LOOKED_INTO_BYTES,
                )
            self._closed.add(pack.name)

    def _absent(self, object_id: bytes, error: Exception) -> None:
        """What a name leads to may be gone, or be no commit; of what is damaged nobody can say what it needs."""
        if isinstance(error, CorruptError):
            try:
                self._store.read(object_id)
            except CorruptError:
                _stop(object_id, error)

    def _mark_again(self) -> None:
        """What came since: refs that moved, and packs that were written."""
        self._store.refresh()
        self._mark_roots()
        self._mark_unreached(pack for pack in self._store.packs() if pack.name not in self._closed)

    # Changing

    def _execute(self, tasks: list[_Task]) -> tuple[int, int]:
        """Make the new packs, condemn the old ones, remove them if that can be now; bytes freed and packs waiting."""
        old = {pack.name: pack for task in tasks for pack in task.sources}
        made: set[str] = set()
        try:
            for task in tasks:
                made.update(self._remake(task))
        except BaseException:
            remove_packs(self._store.directory, made - old.keys())  # a full disk must not be fuller afterwards
            raise
        condemned = old.keys() - made
        if not condemned:
            return 0, 0
        self._store.refresh()
        sizes = {pack.name: pack.size_bytes for pack in self._store.packs()}
        self._closed |= made
        write_condemned(self._store.directory, Stage.WAITING, condemned)
        turn_page(self._store.lock)
        return sum(sizes[name] for name in condemned) - sum(sizes[name] for name in made - old.keys()), self._settle()

    def _remake(self, task: _Task) -> list[str]:
        if task.copy:
            return copy_objects(self._store, task.sources, self._kept)
        (pack,) = task.sources
        kept = {item: place for item, place in pack.places().items() if item in self._kept}
        return [add_index(self._store.directory, pack.name, kept)]

    def _finish_earlier(self) -> None:
        found = read_condemned(self._store.directory)
        if found and found.stage is Stage.REMOVING:
            self._remove(found.packs)
        elif found:
            turn_page(self._store.lock)  # the earlier run may have died before it did
            if waiting := self._settle():
                raise ImageError(
                    f"gc waits for a writer that began before; {waiting} packs of its last run go when it is done,"
                    f" try again later ({self._repository.path})"
                )

    def _settle(self) -> int:
        """Step 5; returns how many packs have to wait."""
        found = read_condemned(self._store.directory)
        if found is None:
            return 0
        if not writers_of_old_pages_are_done(self._store.lock, _WAIT_S):
            self._store.refresh()
            self._say(f"a writer that began earlier is still at work: {len(found.packs)} packs go with the next gc")
            return len(found.packs)
        self._mark_again()  # now, so that the last look is a short one
        at_stake = {
            pack: [item for item in pack.ids() if not self._store.contains(item)] for pack in self._store.condemned()
        }
        with self._repository.refs.lock():
            self._mark_again()
            gone = found.packs - self._pardoned(at_stake)
            write_condemned(self._store.directory, Stage.REMOVING, gone)
        self._remove(gone)
        return 0

    def _pardoned(self, at_stake: Mapping[PackReader, Iterable[bytes]]) -> set[str]:
        """The condemned packs that have something that is kept and that no pack has that stays.

        A pardoned pack stays with all its garbage, and so has to stay what its trees refer to.
        """
        waiting, pardoned = dict(at_stake), list[PackReader]()

        def is_needed(pack: PackReader) -> bool:
            return any(
                item in self._kept
                and not self._store.contains(item)
                and not any(other.find(item) for other in pardoned)
                for item in waiting[pack]
            )

        while needed := next(filter(is_needed, waiting), None):
            del waiting[needed]
            pardoned.append(needed)
            self._mark_unreached([needed])
        return {pack.name for pack in pardoned}

    def _remove(self, names: Iterable[str]) -> None:
        remove_packs(self._store.directory, names)
        write_condemned(self._store.directory, Stage.REMOVING, ())
        self._store.refresh()


def plan(packs: list[PackReader], garbage_bytes: dict[PackReader, int]) -> list[_Task]:
    """Which packs to copy, merge or index again: packs with much garbage, and small ones as `merge_count` has it."""
    live = {pack: pack.size_bytes - garbage_bytes[pack] for pack in packs}
    small = sorted((pack for pack in packs if live[pack] < _MERGED_BYTES), key=live.__getitem__)
    merged = small[: merge_count([live[pack] for pack in small], len(small) * _MERGED_BYTES)]
    tasks = [_Task(tuple(merged), copy=True)] if merged else []
    for pack in packs:
        if garbage_bytes[pack] and pack not in merged:
            much = garbage_bytes[pack] + _unindexed_bytes(pack) >= _REWRITE_SHARE * pack.size_bytes
            tasks.append(_Task((pack,), copy=much))
    return tasks


def _unindexed_bytes(pack: PackReader) -> int:
    """Bytes that earlier runs left out of the index."""
    indexed = sum(stored + RECORD.size for _, stored in pack.places().values())
    return pack.size_bytes - PACK_HEADER.size - indexed


def _garbage_bytes(places: dict[bytes, Place], kept: set[bytes]) -> int:
    return sum(stored + RECORD.size for item, (_, stored) in places.items() if item not in kept)


def _stop(object_id: bytes, error: Exception) -> None:
    raise CorruptError(
        f"gc needs a whole repository; koguma image fsck says what is wrong: {error} ({object_id.hex()})"
    )
