from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koguma.images import gc as gc_module
from koguma.images.condemned import Stage, read_condemned, write_condemned
from koguma.images.errors import CorruptError, ImageError, ObjectMissingError, RefError
from koguma.images.fsck import fsck
from koguma.images.gc import collect
from koguma.images.objects import BLOB, TREE, ObjectStore, ObjectWriter, prepare
from koguma.images.packfiles import remove_packs
from koguma.images.packs import PackReader
from koguma.images.pins import pin
from koguma.images.refs import RefKind
from koguma.images.repack import copy_objects, repacking
from koguma.images.repository import Repository
from koguma.images.trees import FILE, Entry, encode, lookup
from tests.unit.images.making import let_age, make_repository, make_tree


def _commit(repository: Repository, tmp_path: Path, files: dict[str, str | bytes], branch: str = "main") -> str:
    tree = make_tree(tmp_path / f"tree-{os.urandom(4).hex()}", files)
    return repository.commit_tree(tree, branch, "a commit", remember=False).commit.id


def _garbage(repository: Repository, content: bytes = b"nobody needs this" * 10) -> bytes:
    with repository.objects.writing() as writer:
        return writer.add(BLOB, content)


def _commit_found(repository: Repository, writer: ObjectWriter, content: bytes, size: int) -> None:
    """Commit a file whose content the writer found, to main."""
    tree = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, size, content)]))
    root = writer.add(TREE, encode([Entry(b"", ord("d"), 0o755, 0, 0, 0, tree)]))
    commit = repository.add_commit(writer, root, [], "counts on it")
    writer.finish()
    repository.publish(commit, "main", None)


def _sound(repository: Repository) -> bool:
    with Repository.open(repository.path) as again:
        return fsck(again).problems == ()


def test_what_no_ref_reaches_is_removed_and_what_a_ref_reaches_stays(repository: Repository, tmp_path: Path) -> None:
    _commit(repository, tmp_path, {"a": "1" * 100, "d/b": "2" * 100})
    lost = _commit(repository, tmp_path, {"a": "1" * 100, "e/c": os.urandom(5000)}, "other")
    kept = repository.resolve("main")
    repository.refs.set_head("main")
    repository.remove("other")

    done = collect(repository, grace_s=0)

    assert done.objects == 5, "the commit, its root object, two trees and a file"
    assert done.freed_bytes > 5000
    assert not repository.objects.readable(bytes.fromhex(lost))
    assert repository.resolve("main") == kept
    assert _sound(repository)
    again = collect(repository, grace_s=0)
    assert (again.objects, again.freed_bytes, again.packs_after) == (0, 0, again.packs_before)


def test_objects_younger_than_the_grace_period_stay_with_all_they_reach(repository: Repository, tmp_path: Path) -> None:
    blob = _garbage(repository)
    (old,) = repository.objects.packs()
    os.utime(old.path, (time.time() - 10_000,) * 2)
    with repository.objects.writing() as writer:
        tree = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, 170, blob)]))

    done = collect(repository, grace_s=5_000)

    assert (done.objects, done.kept_young) == (0, 2), "an old file below a young tree stays: writers count on it"
    assert repository.objects.contains(tree)
    assert repository.objects.contains(blob)


@pytest.mark.parametrize("copy", ["0", "z"], ids=["before it", "after it"])
def test_a_file_with_the_bytes_of_a_tree_does_not_hide_what_the_tree_needs(
    repository: Repository, tmp_path: Path, copy: str
) -> None:
    first = _commit(repository, tmp_path, {"d/a": "1" * 100})
    folder = lookup(repository.objects.read, repository.root(repository.resolve(first)), b"d")
    assert folder
    _commit(repository, tmp_path, {"d/a": "1" * 100, copy: repository.objects.read(folder.digest)})
    _commit(repository, tmp_path, {copy: repository.objects.read(folder.digest)}, "0")
    _garbage(repository, os.urandom(5000))

    assert collect(repository, grace_s=0).objects == 1
    repository.checkout("main~1", tmp_path / "out")
    assert (tmp_path / "out/d/a").read_text() == "1" * 100
    assert _sound(repository)


@pytest.mark.parametrize("damaged", [b"\xf3", b"g", b""], ids=["no text", "no digit", "empty"])
def test_gc_refuses_a_ref_it_cannot_read_because_what_it_kept_would_go(
    repository: Repository, tmp_path: Path, damaged: bytes
) -> None:
    release = _commit(repository, tmp_path, {"a": "1"}, "release")
    _commit(repository, tmp_path, {"a": "2"})
    ref = repository.path / "refs/heads/release"
    ref.write_bytes(damaged + ref.read_bytes()[1:] if damaged else b"")

    with pytest.raises(CorruptError, match=r"a ref must hold an id of 64 hex digits .*refs/heads/release"):
        collect(repository, grace_s=0, reflog_keep_s=-10)

    assert repository.objects.readable(bytes.fromhex(release))


def test_the_last_line_of_a_log_keeps_its_commit_however_old_for_its_ref_may_be_lost(
    repository: Repository, tmp_path: Path
) -> None:
    first = _commit(repository, tmp_path, {"a": "1"}, "release")
    second = _commit(repository, tmp_path, {"a": "2"}, "release")
    repository.move_branch("release", first)
    (repository.path / "refs/heads/release").unlink()

    collect(repository, grace_s=0, reflog_keep_s=-10)

    assert repository.objects.contains(bytes.fromhex(first)), "fsck says how to bring the branch back"
    assert not repository.objects.readable(bytes.fromhex(second))


def _flip(pack: PackReader, object_id: bytes) -> None:
    place = pack.find(object_id)
    assert place
    data = bytearray(pack.path.read_bytes())
    data[place[0] + 60] ^= 1
    pack.path.write_bytes(data)


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "young"])
def test_a_commit_whose_bytes_were_a_file_before_is_kept_with_all_it_reaches(
    repository: Repository, tmp_path: Path, pinned: bool
) -> None:
    elsewhere = make_repository(tmp_path / "elsewhere")
    commit = elsewhere.commit(_commit(elsewhere, tmp_path, {"d/a": "1" * 100}))
    _commit(repository, tmp_path, {"its bytes": elsewhere.objects.read(bytes.fromhex(commit.id))})
    new = repository.objects.packs()
    with repository.objects.writing() as writer:
        for pack in elsewhere.objects.packs():
            for item in pack.ids():
                if writer.claim(item):
                    found = elsewhere.objects.describe(item)
                    writer.append([prepare(found.kind, elsewhere.objects.read(item))])
    for pack in repository.objects.packs():
        if pinned or pack not in new:
            os.utime(pack.path, (1, 1))
    if pinned:
        pin(repository.path, commit.id, "it")

    collect(repository, grace_s=5000)

    repository.refs.update(RefKind.BRANCH, "theirs", commit.id, old=None, author="me", reason="test")
    assert _sound(repository)


def test_a_stat_cache_does_not_vouch_for_a_tree_that_stays_only_as_a_file(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1" * 100})
    let_age()
    commit = repository.commit_tree(tree, "other", "a tree without directories").commit
    _commit(repository, tmp_path, {"copy": repository.objects.read(repository.root(commit).digest)})
    repository.refs.set_head("main")
    repository.remove("other")

    collect(repository, grace_s=0)
    repository.commit_tree(tree, "other", "again")

    assert _sound(repository)


def test_gc_goes_by_the_sound_copy_of_what_is_damaged_in_another_pack(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(_commit(repository, tmp_path, {"d/a": os.urandom(5000)}))
    (pack,) = repository.objects.packs()
    copied = [bytes.fromhex(commit.id), bytes.fromhex(commit.tree), repository.root(commit).digest]
    with repository.objects.writing() as writer:
        writer.append([prepare(TREE, repository.objects.read(item)) for item in copied])
    repository.refs.delete(RefKind.BRANCH, "main", old=commit.id)
    pin(repository.path, commit.id, "kept")
    for item in copied:
        _flip(pack, item)

    with Repository.open(repository.path) as damaged:
        collect(damaged, grace_s=0)
        damaged.refs.update(RefKind.BRANCH, "main", commit.id, old=None, author="me", reason="test")
        damaged.checkout("main", tmp_path / "out")
        assert not any(item.lost for item in fsck(damaged).damage)
        made = copy_objects(damaged.objects, [item for item in damaged.objects.packs() if item.name == pack.name])
        remove_packs(damaged.objects.directory, {pack.name} - {*made})
    assert _sound(repository), "a copy of the damaged pack has the sound records"


def test_gc_stops_when_a_tree_that_only_a_log_keeps_is_damaged(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(_commit(repository, tmp_path, {"d/a": "1" * 100}))
    folder, file = (lookup(repository.objects.read, repository.root(commit), path) for path in (b"d", b"d/a"))
    assert folder
    assert file
    repository.refs.delete(RefKind.BRANCH, "main", old=commit.id)
    pin(repository.path, commit.id, "kept")
    (pack,) = repository.objects.packs()
    _flip(pack, folder.digest)

    with Repository.open(repository.path) as damaged, pytest.raises(CorruptError, match=folder.digest.hex()):
        collect(damaged, grace_s=0)
    assert Repository.open(repository.path).objects.contains(file.digest), "whoever mends the tree finds it"


def test_merged_packs_are_as_old_as_their_youngest_part(repository: Repository) -> None:
    lost = _garbage(repository, b"first" * 100), _garbage(repository, b"second" * 100)
    for age, pack in zip((20_000, 10_000), repository.objects.packs(), strict=True):
        os.utime(pack.path, (time.time() - age,) * 2)

    collect(repository, grace_s=100_000)
    (merged,) = repository.objects.packs()

    assert abs(time.time() - merged.path.stat().st_mtime - 10_000) < 60
    collect(repository, grace_s=5_000)
    assert not any(repository.objects.readable(item) for item in lost)


def test_logs_pending_edits_and_state_of_other_operations_keep_commits(repository: Repository, tmp_path: Path) -> None:
    first = _commit(repository, tmp_path, {"a": "1"})
    moved = _commit(repository, tmp_path, {"a": "2"})
    repository.move_branch("main", first)
    edited = _commit(repository, tmp_path, {"a": "3"}, "edited")
    bisected = _commit(repository, tmp_path, {"a": "4"}, "bisected")
    fetched = _commit(repository, tmp_path, {"a": "5"}, "fetched")
    repository.refs.set_head("main")
    for branch in ("edited", "bisected", "fetched"):
        repository.remove(branch)
    for place, text in {
        "edit/main/session.json": json.dumps({"base": edited, "committed": None, "other": [first]}),
        "bisect.json": json.dumps({"bad": bisected}),
        "refs/remotes/origin/main": f"{fetched}\n",
    }.items():
        (repository.path / place).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / place).write_text(text)

    collect(repository, grace_s=0)

    for commit in (first, moved, edited, bisected, fetched):
        assert repository.objects.contains(bytes.fromhex(commit))
    collect(repository, grace_s=0, reflog_keep_s=-10)
    assert not repository.objects.readable(bytes.fromhex(moved)), "a line of the log older than its time keeps nothing"


def test_a_dry_run_changes_nothing_and_says_what_would_go(repository: Repository, tmp_path: Path) -> None:
    _commit(repository, tmp_path, {"a": "1"})
    lost = _garbage(repository, os.urandom(1000))
    before = sorted(path.name for path in (repository.path / "packs").iterdir())

    done = collect(repository, grace_s=0, dry_run=True)

    assert (done.objects, done.dry_run) == (1, True)
    assert done.freed_bytes >= 1000
    assert sorted(path.name for path in (repository.path / "packs").iterdir()) == before
    assert repository.objects.contains(lost)


def test_little_garbage_leaves_the_index_of_a_large_pack_and_not_its_bytes(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_module, "_MERGED_BYTES", 1000)
    with repository.objects.writing() as writer:
        lost = writer.add(BLOB, os.urandom(1000))
        kept = writer.add(BLOB, os.urandom(100_000))
        root = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, 100_000, kept)]))
        (repository.path / "keeps").write_text(root.hex())
    (before,) = repository.objects.packs()
    size = before.path.stat().st_size

    collect(repository, grace_s=0)

    (after,) = repository.objects.packs()
    assert after.path.stat().st_size == size
    assert not repository.objects.readable(lost)
    assert repository.objects.read(root)
    assert len(repository.objects.read(kept)) == 100_000
    assert _sound(repository)


def test_a_writer_that_counts_on_garbage_while_it_is_condemned_gets_it_back(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_module, "_WAIT_S", 0.1)
    content = b"found by a writer that began before gc" * 10
    lost = _garbage(repository, content)
    old = Repository.open(repository.path)
    with old.objects.writing() as writer:
        assert not writer.claim(lost), "the writer finds it and does not store it again"
        first = collect(repository, grace_s=0)
        assert first.waiting == 1
        with Repository.open(repository.path) as new, new.objects.writing() as another:
            assert another.claim(lost), "a writer that begins later does not count on it"
        with pytest.raises(ImageError, match="waits for a writer"):
            collect(repository, grace_s=0)
        _commit_found(old, writer, lost, len(content))

    collect(repository, grace_s=0)

    assert repository.objects.read(lost) == content
    assert _sound(repository)


def test_a_tree_written_without_a_ref_beside_gc_keeps_what_is_below_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_module, "_WAIT_S", 0.1)
    lost = _garbage(repository)
    with Repository.open(repository.path) as old, old.objects.writing() as writer:
        assert not writer.claim(lost)
        collect(repository, grace_s=0)
        tree = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, 170, lost)]))
    gc_module._Collection(repository, repository.objects, 0, 0, print)._finish_earlier()

    assert repository.objects.contains(tree)
    assert repository.objects.contains(lost), "whoever finds the tree counts on the file"


def test_a_gc_killed_before_it_turned_the_page_removes_nothing_under_a_writer_that_began_before(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(_lock: Path) -> None:
        raise Killed

    monkeypatch.setattr(gc_module, "_WAIT_S", 0.05)
    content = b"found by a writer that began before gc" * 10
    lost = _garbage(repository, content)
    with Repository.open(repository.path) as old, old.objects.writing() as writer:
        assert not writer.claim(lost), "the writer finds it and does not store it again"
        with monkeypatch.context() as patch:
            patch.setattr(gc_module, "turn_page", killed)
            with pytest.raises(Killed):
                collect(repository, grace_s=0)
        with pytest.raises(ImageError, match="waits for a writer"):
            collect(repository, grace_s=0)
        _commit_found(old, writer, lost, len(content))

    collect(repository, grace_s=0)

    assert repository.objects.read(lost) == content
    assert _sound(repository)


def test_a_pardoned_pack_keeps_what_its_garbage_needs(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_module, "_MERGED_BYTES", 0)
    monkeypatch.setattr(gc_module, "_WAIT_S", 0.05)
    file = _garbage(repository, b"below a tree of another pack" * 10)
    with repository.objects.writing() as writer:
        wanted = writer.add(BLOB, b"found by a writer" * 10)
        tree = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, 280, file)]))
    with Repository.open(repository.path) as old, old.objects.writing() as writer:
        assert not writer.claim(wanted)
        assert collect(repository, grace_s=0).waiting == 2
        (repository.path / "keeps").write_text(wanted.hex())
    gc_module._Collection(repository, repository.objects, 0, 0, print)._finish_earlier()

    assert repository.objects.contains(wanted)
    assert repository.objects.contains(tree), "the pack came back as it was"
    assert repository.objects.contains(file), "whoever finds the tree counts on the file"


def test_the_last_look_at_the_refs_reads_no_object_again(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _commit(repository, tmp_path, {f"f{number}": os.urandom(50) for number in range(20)})
    _garbage(repository)
    looked_at: list[bytes] = []

    def noting(look: Callable[[ObjectStore, bytes], object]) -> Callable[[ObjectStore, bytes], object]:
        def noted(store: ObjectStore, object_id: bytes) -> object:
            looked_at.append(object_id)
            return look(store, object_id)

        return noted

    @contextmanager
    def lock() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in ("describe", "read"):
                patch.setattr(ObjectStore, name, noting(getattr(ObjectStore, name)))
            yield

    monkeypatch.setattr(repository.refs, "lock", lock)

    assert collect(repository, grace_s=0).objects == 1
    assert looked_at == [], "writers wait for the lock"


def test_a_removal_that_was_cut_short_is_finished_by_the_next_run(repository: Repository, tmp_path: Path) -> None:
    kept = _commit(repository, tmp_path, {"a": "1"})
    lost = _garbage(repository)
    (pack,) = [item for item in repository.objects.packs() if item.find(lost)]
    write_condemned(repository.path / "packs", Stage.REMOVING, [pack.name])
    pack.path.unlink()

    collect(repository, grace_s=0)

    assert read_condemned(repository.path / "packs") is None
    assert not pack.index_path.exists()
    assert repository.resolve("main").id == kept


def test_a_reader_with_the_old_packs_reads_on_after_gc(repository: Repository, tmp_path: Path) -> None:
    for number in range(4):
        _commit(repository, tmp_path, {"a": str(number), f"f{number}": os.urandom(3000)})
    with Repository.open(repository.path) as reader:
        wanted = [item for pack in reader.objects.packs() for item in pack.ids()]
        opened = [reader.objects.read(item) for item in wanted[:3]]
        collect(repository, grace_s=0)

        assert [reader.objects.read(item) for item in wanted[:3]] == opened
        assert all(b"".join(reader.objects.chunks(item)) for item in wanted)


def test_gc_refuses_a_damaged_repository_and_removes_nothing(repository: Repository, tmp_path: Path) -> None:
    _commit(repository, tmp_path, {"a": "1", "d/b": "2"})
    lost = _garbage(repository)
    (pack,) = [item for item in repository.objects.packs() if not item.find(lost)]
    pack.path.unlink()
    pack.index_path.unlink()

    with Repository.open(repository.path) as damaged, pytest.raises(CorruptError, match="fsck"):
        collect(damaged, grace_s=0)
    assert Repository.open(repository.path).objects.contains(lost)


def test_only_one_gc_runs_at_a_time(repository: Repository) -> None:
    with repacking(repository.objects) as alone:
        assert alone
        with pytest.raises(ImageError, match="one gc"):
            collect(repository)


def test_a_ref_cannot_name_a_commit_that_gc_removed(repository: Repository, tmp_path: Path) -> None:
    _commit(repository, tmp_path, {"a": "1"})
    lost = _commit(repository, tmp_path, {"a": "2"}, "other")
    repository.refs.set_head("main")
    repository.remove("other")
    with Repository.open(repository.path) as slow:
        commit = slow.resolve(lost)
        collect(repository, grace_s=0)
        with pytest.raises((RefError, ObjectMissingError)):
            slow.refs.update(RefKind.BRANCH, "back", commit.id, old=None, author="a", reason="r")


def test_a_full_disk_leaves_no_half_copied_packs(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        _commit(repository, tmp_path, {f"f{number}": os.urandom(1000)})
    before = sorted(path.name for path in (repository.path / "packs").iterdir())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koguma.images.packs.os.fsync", full)
    with pytest.raises(ImageError, match="No space left"):
        collect(repository, grace_s=0)

    assert sorted(path.name for path in (repository.path / "packs").iterdir()) == before


def test_sweeping_removes_what_is_old_and_unused_and_leaves_the_rest(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(_commit(repository, tmp_path, {"a": "1"}))
    stale, fresh = "0" * 64, "1" * 64
    for name in (
        "cache/images",
        "cache/unbootable",
        "tmp/erofs-old",
        "cache/apt/key/0/lists",
    ):
        (repository.path / name).mkdir(parents=True, exist_ok=True)
    for name in (stale, fresh):
        (repository.path / "cache/images" / f"{name}.squashfs").write_bytes(b"image")
    (repository.path / "cache/unbootable" / commit.tree).write_text("no kernel")
    (repository.path / "cache/unbootable" / stale).write_text("no kernel")
    old = time.time() - 20 * 86400
    for name in (f"cache/images/{stale}.squashfs", "tmp/erofs-old", "cache/apt/key/0/lists"):
        os.utime(repository.path / name, (old, old))

    being_written = repository.path / "cache/stat" / f".{fresh}.1.tmp"
    being_written.write_bytes(b"half a cache")

    done = collect(repository)

    assert being_written.exists()
    assert set(done.swept.paths) == {
        f"cache/images/{stale}.squashfs",
        f"cache/unbootable/{stale}",
        "tmp/erofs-old",
        "cache/apt/key/0",
    }
    assert (repository.path / "cache/images" / f"{fresh}.squashfs").exists()
    assert not any((repository.path / name).exists() for name in done.swept.paths)


def test_a_merged_pack_never_has_the_name_of_one_that_is_being_removed(repository: Repository) -> None:
    store = repository.objects
    with store.writing() as writer:
        both = [writer.add(BLOB, content) for content in (b"first" * 9, b"second" * 9)]
    (going,) = store.packs()
    write_condemned(store.directory, Stage.WAITING, [going.name])
    for content in (b"first" * 9, b"second" * 9):
        with store.writing() as writer:
            writer.add(BLOB, content)
    made = copy_objects(store, sorted(store.packs(), key=lambda pack: not pack.find(both[0])))

    assert going.name not in made, "it would go with the other"


def test_a_commit_a_day_for_months_leaves_a_handful_of_packs(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository")
    tree = make_tree(tmp_path / "tree", {"a": "start"})
    for number in range(120):
        make_tree(tree, {"a": f"day {number}"})
        repository.commit_tree(tree, "main", f"day {number}", remember=False)

    assert len(repository.objects.packs()) <= 10
    assert len(list(repository.log("main"))) == 120
    assert _sound(repository)


def test_a_stat_cache_that_vouches_for_trees_that_are_gone_goes_too(repository: Repository, tmp_path: Path) -> None:
    kept, lost = make_tree(tmp_path / "kept", {"a": "1"}), make_tree(tmp_path / "lost", {"d/a": "2"})
    repository.commit_tree(kept, "main", "kept")
    repository.commit_tree(lost, "other", "lost")
    repository.refs.set_head("main")
    repository.remove("other")
    assert len(list((repository.path / "cache/stat").iterdir())) == 2

    collect(repository, grace_s=0)

    assert len(list((repository.path / "cache/stat").iterdir())) == 1
    assert repository.commit_tree(kept, "main", "unchanged").created is False
    repository.commit_tree(lost, "other", "again")
    assert _sound(repository)
