from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from koguma.contracts.errors import BackendUnreachable
from koguma.contracts.objects import FakeObjects
from koguma.images import gc
from koguma.images.fsck import fsck
from koguma.images.objects import BLOB, TREE
from koguma.images.packs import PackReader
from koguma.images.repair import repair
from koguma.images.repository import Repository
from koguma.images.sources import LocalSource, SourcedObject
from koguma.images.transfer import pushing, source
from koguma.images.transfer.pushing import push
from koguma.images.transfer.remotes import Remote
from koguma.images.trees import DIRECTORY, FILE, Entry, encode, lookup
from tests.unit.images.making import let_age, listing, make_bootable_tree, make_repository, make_tree
from tests.unit.images.sites import AT_ONCE


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Repository, Path]:
    """A repository, and a copy of it that stays whole."""
    repository = make_repository(tmp_path / "repository")
    tree = make_tree(tmp_path / "tree", {"a": "1" * 500, "d/e/b": "2" * 1000, "d/c": "3" * 700})
    repository.commit_tree(tree, "main", "first")
    make_tree(tree, {"d/c": "changed" * 30})
    repository.commit_tree(tree, "main", "second")
    shutil.copytree(repository.path, tmp_path / "copy")
    return repository, tmp_path / "copy"


def _damage(repository: Repository, path: bytes) -> bytes:
    """Flip a byte of a file's stored content; its object's id."""
    entry = lookup(repository.objects.read, repository.root(repository.resolve("main")), path)
    assert entry is not None
    _flip(repository, entry.digest)
    return entry.digest


def _flip(repository: Repository, object_id: bytes) -> None:
    for pack in repository.objects.packs():
        if place := pack.find(object_id):
            data = bytearray(pack.path.read_bytes())
            data[place[0] + 60] ^= 1
            pack.path.write_bytes(data)


def test_damage_is_reported_with_the_paths_commits_and_refs_it_affects(pair: tuple[Repository, Path]) -> None:
    repository, _ = pair
    damaged = _damage(repository, b"d/e/b")
    both = [commit.id for commit in repository.log("main")]

    with Repository.open(repository.path) as again:
        (item,) = fsck(again).damage

    assert (item.object, item.lost, item.affects.paths) == (damaged, True, ["/d/e/b"])
    assert sorted(item.affects.commits) == sorted(both)
    assert item.affects.refs == ["branch main"]


def test_damaged_and_missing_objects_come_back_from_another_repository(
    pair: tuple[Repository, Path], tmp_path: Path
) -> None:
    repository, copy = pair
    _damage(repository, b"a")
    _damage(repository, b"d/e")  # a tree: what is below it is not known to be needed until it is back
    with Repository.open(repository.path) as damaged:
        for pack in damaged.objects.packs():
            if pack.find(bytes.fromhex(damaged.refs.all()[0].commit)):
                pack.path.unlink()
    with Repository.open(repository.path) as damaged:
        assert fsck(damaged).problems
        done = repair(damaged, LocalSource(copy))

        assert done.after.problems == ()
        assert done.restored >= 4
        damaged.checkout("main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tmp_path / "tree")
    assert not any((repository.path / "damaged").iterdir())


@pytest.mark.parametrize(("failures", "restored"), [(3, 2), (100, 1)])
def test_a_moment_of_silence_does_not_end_a_repair(
    pair: tuple[Repository, Path], monkeypatch: pytest.MonkeyPatch, failures: int, restored: int
) -> None:
    repository, _ = pair
    fake = FakeObjects()
    for module in (pushing, source):
        monkeypatch.setattr(module, "open_backend", lambda _: fake)
    site = Remote("site", "s3://fake")
    push(repository, site, ["main"])
    damaged = {_damage(repository, b"a"), _damage(repository, b"d/e/b")}
    read_range, failed = fake.read_range, []

    def breaking_off(name: str, offset: int, length: int) -> Iterator[bytes]:
        """The first object that is asked for, some bytes at a time."""
        if len(failed) < failures and (not failed or failed[-1] == (name, offset + length)):
            failed.append((name, offset + length))
            yield from read_range(name, offset, 20 if failures < 10 else 0)
            raise BackendUnreachable("the line went dead")
        yield from read_range(name, offset, length)

    monkeypatch.setattr(fake, "read_range", breaking_off)
    said: list[str] = []
    with Repository.open(repository.path) as again:
        done = repair(again, source.RemoteSource(again, site, AT_ONCE), say=said.append)

    assert done.restored == restored
    assert len({item.object for item in done.after.damage} & damaged) == 2 - restored
    assert [line for line in said if "the line went dead" in line] == [
        "the source could not give it: the line went dead"
    ] * (2 - restored)


def test_a_source_that_lies_restores_nothing_and_the_damaged_pack_is_kept(pair: tuple[Repository, Path]) -> None:
    repository, copy = pair
    _damage(repository, b"a")

    class Liar(LocalSource):
        def fetch(self, ids):  # type: ignore[no-untyped-def]
            for object_id in ids:
                yield SourcedObject(object_id, ord("b"), [b"something else"])

    with Repository.open(repository.path) as damaged:
        done = repair(damaged, Liar(copy))
        assert done.restored == 0
        assert len(done.after.problems) == 1
    assert len(list((repository.path / "damaged").glob("*.pack"))) == 1


@pytest.mark.parametrize("way", ["lost", "flipped", "broken", "empty"])
def test_an_index_is_made_again_from_its_pack(pair: tuple[Repository, Path], way: str) -> None:
    repository, _ = pair
    index = repository.objects.packs()[0].index_path
    original = index.read_bytes()
    if way == "lost":
        index.unlink()
    else:
        changed = {
            "flipped": original[:1100] + bytes([original[1100] ^ 1]) + original[1101:],
            "broken": b"X" + original[1:],
            "empty": b"",
        }
        index.write_bytes(changed[way])

    with Repository.open(repository.path) as damaged:
        assert fsck(damaged).problems
        done = repair(damaged)

    assert (done.indexes, done.after.problems) == (1, ())
    assert index.read_bytes() == original


def test_an_index_that_is_made_again_brings_no_garbage_back_whose_files_gc_removed(
    pair: tuple[Repository, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _ = pair
    monkeypatch.setattr(gc, "_MERGED_BYTES", 1000)
    with repository.objects.writing() as writer:
        file = writer.add(BLOB, b"gc removes it")
    with repository.objects.writing() as writer:
        kept = writer.add(BLOB, os.urandom(5000))
        tree = writer.add(TREE, encode([Entry(b"a", FILE, 0o644, 0, 0, 13, file)]))
        above = writer.add(TREE, encode([Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=tree)]))
        (repository.path / "keeps").write_text(kept.hex())
    gc.collect(repository, grace_s=0)
    (pack,) = [item for item in repository.objects.packs() if item.find(kept)]
    pack.index_path.unlink()

    with Repository.open(repository.path) as damaged:
        assert repair(damaged).after.problems == ()
        assert damaged.objects.contains(kept)
        assert not any(map(damaged.objects.contains, (file, tree, above)))


def test_a_commit_of_the_intact_directory_brings_back_what_a_repair_could_not(
    pair: tuple[Repository, Path], tmp_path: Path
) -> None:
    repository, _ = pair
    let_age()
    repository.commit_tree(tmp_path / "tree", "main", "unchanged, and old enough for the stat cache")
    _damage(repository, b"d/e/b")
    with Repository.open(repository.path) as damaged:
        assert repair(damaged).after.damage
        damaged.commit_tree(tmp_path / "tree", "main", "again")

    with Repository.open(repository.path) as again:
        assert fsck(again).problems == ()


def test_logs_and_head_are_mended_and_say_so(pair: tuple[Repository, Path]) -> None:
    repository, _ = pair
    log = repository.path / "logs/heads/main"
    log.write_bytes(log.read_bytes().replace(b"first", b"fi?st"))
    (repository.path / "HEAD").write_bytes(b"branch mbin\n00000000\n")

    with Repository.open(repository.path) as damaged:
        assert len(fsck(damaged).problems) == 2
        done = repair(damaged)
        assert done.after.problems == ()
        assert damaged.refs.head() == "main"
        assert damaged.reflog("main")[0].new == damaged.resolve("main").id


@pytest.mark.parametrize("head", [b"branch ma\xe9n\n00000000\n", b"\xff"])
def test_a_head_that_is_no_text_is_mended_beside_a_damaged_ref(pair: tuple[Repository, Path], head: bytes) -> None:
    repository, _ = pair
    (repository.path / "HEAD").write_bytes(head)
    (repository.path / "refs/heads/odd").write_bytes(b"\xe9" * 64 + b"\n")

    after = repair(repository).after

    assert repository.refs.head() == "main"
    assert len(after.problems) == 1
    assert "branch odd" in after.problems[0]


def test_a_damaged_boot_artifact_names_its_labels_and_is_made_again(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository")
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "main", "bootable").commit
    repository.update_labels()
    kernel = repository.path / "boot/artifacts" / commit.id / "kernel"
    original = kernel.read_bytes()
    kernel.write_bytes(original[:-1] + b"?")

    (problem,) = fsck(repository).problems
    assert "label main" in problem

    done = repair(repository)
    assert (done.artifacts, done.after.problems) == (1, ())
    assert kernel.read_bytes() == original


def test_records_that_an_index_leaves_out_are_checked_too(pair: tuple[Repository, Path]) -> None:
    from koguma.images.packfiles import add_index, remove_packs

    repository, _ = pair
    with repository.objects.writing() as writer:
        left_out = writer.add(ord("b"), b"nobody needs this " * 20)
        writer.add(ord("b"), b"kept " * 20)
    (pack,) = [item for item in repository.objects.packs() if item.find(left_out)]
    place = pack.find(left_out)
    assert place is not None
    name = add_index(pack.path.parent, pack.name, {item: at for item, at in pack.places().items() if item != left_out})
    remove_packs(pack.path.parent, [pack.name])
    with Repository.open(repository.path) as again:
        assert fsck(again).problems == ()
    path = pack.path.with_name(name + ".pack")
    data = bytearray(path.read_bytes())
    data[place[0] + 55] ^= 1
    path.write_bytes(data)

    with Repository.open(repository.path) as again:
        assert len(fsck(again).problems) == 1
    assert PackReader(path.with_suffix(".idx")).find(left_out) is None
