"""Repairs what `fsck` finds: indexes from packs, objects from another repository, artifacts from commits.

Steps of `repair`:
1. give packs without a usable index one made from their records;
2. copy packs with damaged records without them, and set the damaged packs aside, under `damaged/`;
3. ask the source for every object that is needed and gone, until nothing more is found missing: a tree that came back
   may name files that are gone, too; a pack set aside goes when nothing that was damaged in it is missing any more;
4. mend logs and HEAD, remove damaged boot artifacts and make them again.

Every object is verified before it is stored; a source that lies restores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from koguma.errors import KogumaError
from koguma.images.bootcheck import check_artifacts
from koguma.images.errors import ImageError
from koguma.images.files import remove_tree, storage_errors, write_atomically
from koguma.images.fsck import Report, find_damage, fsck, verify_packs
from koguma.images.objects import STREAM_MIN_BYTES, ObjectWriter, prepare_hashed
from koguma.images.packcheck import PackFindings
from koguma.images.packfiles import INDEX_SUFFIX, remove_packs, restore_index
from koguma.images.packs import PackReader
from koguma.images.refcheck import read_refs
from koguma.images.refs import NO_COMMIT, RefChange, RefKind, head_bytes, log_line, parse_log_line
from koguma.images.repack import copy_objects, repacking
from koguma.images.repository import Repository
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
        for pack, places in findings.rebuilt.items():
            restore_index(pack, places)
        repository.objects.forget(path.stem for path in findings.rebuilt)
        aside = [_set_aside(repository, path, damaged) for path, damaged in sorted(findings.damaged_in.items())]
        restored = _restore_objects(repository, source, say) if source else 0
        _let_go(repository, aside, findings, say)
    _mend_logs(repository)
    _mend_head(repository)
    damaged, label_problems = check_artifacts(repository.path)
    for folder in sorted({item.folder for item in damaged}):
        remove_tree(folder)
    if damaged or label_problems:
        repository.update_labels()
    return Repaired(restored, len(findings.rebuilt), len({item.folder for item in damaged}), fsck(repository))


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


def _let_go(repository: Repository, aside: list[Path], findings: PackFindings, say: Callable[[str], None]) -> None:
    """Remove the packs set aside of which nothing is needed any more."""
    refs, _ = read_refs(repository)
    needed = {item.object for item in find_damage(repository, refs)}
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
    current, before = ref.read_text(errors="replace").strip(), NO_COMMIT
    kept: list[RefChange] = []
    for change in filter(None, [parse_log_line(line) for line in data.split(b"\n")]):
        if kept and change.old != before:
            kept.append(RefChange(before, change.old, change.time, "-", "lines of the log were damaged"))
        kept.append(change)
        before = change.new
    if current not in [change.new for change in kept[-2:]]:
        kept.append(RefChange(before, current, int(ref.stat().st_mtime), "-", "lines of the log were damaged"))
    mended = b"".join(map(log_line, kept))
    if mended != data:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(log, mended)


def _mend_head(repository: Repository) -> None:
    """Write HEAD again; when it names no branch, the default or else the first branch takes its place."""
    named = repository.refs.head()
    branches = [ref.name for ref in repository.refs.all() if ref.kind is RefKind.BRANCH]
    if branches and named not in branches:
        named = "main" if "main" in branches else branches[0]
    path = repository.path / "HEAD"
    if not path.exists() or path.read_bytes() != head_bytes(named):
        write_atomically(path, head_bytes(named))
