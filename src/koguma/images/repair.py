"""Repairs what `fsck` finds: indexes from packs, objects from another repository, artifacts from commits.

Steps of `repair`:
1. give packs without a usable index one made from their records, but for garbage that refers to what is gone;
2. copy packs with damaged records without them, and set the damaged packs aside, under `damaged/`; forget the stat
   caches: the next commit of a directory reads its files, and so brings back what was lost of them;
3. ask the source for every object that is needed and gone, until nothing more is found missing: a tree that came back
   may name files that are gone, too; a pack set aside goes when nothing that was damaged in it is missing any more;
4. mend logs and HEAD, remove damaged boot artifacts and make them again.

Every object is verified before it is stored; a source that lies restores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from koguma.errors import KogumaError
from koguma.images.bootcheck import check_artifacts
from koguma.images.commits import is_id
from koguma.images.errors import ImageError
from koguma.images.files import remove_tree, storage_errors, write_atomically
from koguma.images.fsck import Report, find_damage, fsck, verify_packs
from koguma.images.objects import STREAM_MIN_BYTES, ObjectWriter, prepare_hashed
from koguma.images.packcheck import PackFindings
from koguma.images.packfiles import INDEX_SUFFIX, remove_packs, restore_index
from koguma.images.packindex import Place
from koguma.images.packs import PackReader
from koguma.images.reachable import Reached, ignore, mark, not_whole
from koguma.images.refcheck import read_refs
from koguma.images.refs import DEFAULT_BRANCH, RefKind, head_bytes, is_ref_name, joined, log_line, parse_log_line
from koguma.images.repack import copy_objects, repacking
from koguma.images.repository import Repository
from koguma.images.roots import read_shallow
from koguma.images.sources import ObjectSource, SourcedObject

DAMAGED_FOLDER = "damaged"


@dataclass(frozen=True, slots=True)
class Repaired:
    restored: int
    """Objects that came from the source."""
    indexes: int
    """Indexes made from packs."""
    artifacts: int
    """Boot artifacts that were removed, to be made again."""
    after: Report
    """What is wrong still."""


def repair(
    repository: Repository,
    source: ObjectSource | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] | None = None,
) -> Repaired:
    """Repair what can be repaired; `after` says what could not."""
    with storage_errors("a repair"), repacking(repository.objects) as alone:
        if not alone:
            raise ImageError(f"a repair needs the packs for itself, gc is at work; try again later ({repository.path})")
        findings = verify_packs(repository, progress)
        _restore_indexes(repository, findings.rebuilt)
        aside = [_set_aside(repository, path, damaged) for path, damaged in sorted(findings.damaged_in.items())]
        restored = _restore_objects(repository, source, say) if source else 0
        needed = _needed(repository)
        _let_go(repository, aside, needed, findings, say)
        if aside or needed:
            _forget_stat_caches(repository)
    _mend_logs(repository)
    _mend_head(repository)
    damaged, label_problems = check_artifacts(repository.path)
    for folder in sorted({item.folder for item in damaged}):
        remove_tree(folder)
    if damaged or label_problems:
        repository.update_labels()
    return Repaired(restored, len(findings.rebuilt), len({item.folder for item in damaged}), fsck(repository))


def _restore_indexes(repository: Repository, rebuilt: Mapping[Path, Mapping[bytes, Place]]) -> None:
    """Index packs by their records.

    Those that gc left out of the index come back with that. The trees among them may refer to what gc removed, and
    whoever finds a tree counts on all below it: they are left out again, unless a ref needs them as they are.
    """
    if not rebuilt:
        return
    store = repository.objects
    for pack, places in rebuilt.items():
        restore_index(pack, places)
    store.forget(path.stem for path in rebuilt)
    shallow = read_shallow(repository.path)
    lacking = not_whole(store, {item for places in rebuilt.values() for item in places}, shallow)
    if not lacking:
        return
    refs, _ = read_refs(repository)
    reached = Reached()
    mark(store, [named.commit for named in refs], reached, shallow=shallow, missing=ignore)
    for pack, places in rebuilt.items():
        if left_out := lacking & places.keys() - reached.walked:
            restore_index(pack, {item: place for item, place in places.items() if item not in left_out})
    store.forget(path.stem for path in rebuilt)


def _forget_stat_caches(repository: Repository) -> None:
    for path in (repository.path / "cache" / "stat").glob("*"):
        path.unlink(missing_ok=True)


def _set_aside(repository: Repository, path: Path, damaged: set[bytes]) -> Path:
    """Replace a pack by a copy without its damaged records; where the pack itself is kept now."""
    kept = repository.path / DAMAGED_FOLDER / path.name
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    kept.unlink(missing_ok=True)
    kept.hardlink_to(path)
    pack = PackReader(path.with_suffix(INDEX_SUFFIX))
    copy_objects(repository.objects, [pack], pack.places().keys() - damaged)
    remove_packs(repository.objects.directory, [path.stem])
    repository.objects.refresh()
    return kept


def _restore_objects(repository: Repository, source: ObjectSource, say: Callable[[str], None]) -> int:
    refs, _ = read_refs(repository)
    asked: set[bytes] = set()
    restored = 0
    while wanted := [item.object for item in find_damage(repository, refs) if item.object not in asked]:
        asked.update(wanted)
        say(f"asking {source.name} for {len(wanted)} objects")
        with repository.objects.writing() as writer:
            restored += sum(_store(writer, item, say) for item in source.fetch(wanted))
    return restored


def _store(writer: ObjectWriter, item: SourcedObject, say: Callable[[str], None]) -> bool:
    """Store an object if it is what its id says."""
    try:
        pieces, size = [], 0
        stream = iter(item.content)
        for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size >= STREAM_MIN_BYTES:
                writer.add_stream(_chained(pieces, stream), kind=item.kind, expected=item.id)
                return True
        content = b"".join(pieces)
    except KogumaError as error:
        say(f"the source could not give it: {error}")
        return False
    if sha256(content).digest() != item.id:
        say(f"the source gave other content than it should ({item.id.hex()})")
        return False
    writer.append([prepare_hashed(item.kind, content, item.id)])
    return True


def _chained(first: list[bytes], rest: Iterable[bytes]) -> Iterable[bytes]:
    yield from first
    first.clear()
    yield from rest


def _needed(repository: Repository) -> set[bytes]:
    """Objects that the refs need and that are gone."""
    refs, _ = read_refs(repository)
    return {item.object for item in find_damage(repository, refs)}


def _let_go(
    repository: Repository,
    aside: list[Path],
    needed: set[bytes],
    findings: PackFindings,
    say: Callable[[str], None],
) -> None:
    """Remove the packs set aside of which nothing is needed any more."""
    for kept in aside:
        lost = needed & findings.damaged_in[repository.objects.directory / kept.name]
        if lost:
            say(f"{len(lost)} objects could not be restored; the pack with what is left of them is kept as {kept}")
        else:
            kept.unlink()


def _mend_logs(repository: Repository) -> None:
    """Leave out lines that cannot be read; a line of its own says so where they were."""
    with repository.refs.lock():
        for kind in RefKind:
            folder = repository.path / "refs" / kind.value
            for ref in sorted(folder.iterdir()) if folder.is_dir() else ():
                if not ref.name.startswith("."):
                    _mend_log(repository.path / "logs" / kind.value / ref.name, ref)


def _mend_log(log: Path, ref: Path) -> None:
    data = log.read_bytes() if log.exists() else b""
    current = ref.read_text(errors="replace").strip()
    if not is_id(current):
        return
    changes = [change for line in data.split(b"\n") if (change := parse_log_line(line))]
    mended = b"".join(map(log_line, joined(changes, current, int(ref.stat().st_mtime))))
    if mended != data:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(log, mended)


def _mend_head(repository: Repository) -> None:
    """Write HEAD again; when it names no branch, the default or else the first branch takes its place.

    Where there is no branch yet, what it names may be one to come, if it can be one.
    """
    named = repository.refs.head()
    word = f"{RefKind.BRANCH.word} "
    branches = [ref.place.removeprefix(word) for ref in read_refs(repository)[0] if ref.place.startswith(word)]
    if named not in branches and (branches or not is_ref_name(named)):
        named = DEFAULT_BRANCH if DEFAULT_BRANCH in branches or not branches else branches[0]
    path = repository.path / "HEAD"
    if not path.exists() or path.read_bytes() != head_bytes(named):
        write_atomically(path, head_bytes(named))
