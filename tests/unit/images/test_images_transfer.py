"""Moving commits: the same to a served repository, a directory and a store of blobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from koguma.contracts.errors import BackendRefused, BackendUnreachable
from koguma.contracts.objects import FakeObjects
from koguma.images.condemned import Stage, write_condemned
from koguma.images.errors import RefError, RefMovedError, RepositoryError, StorageError
from koguma.images.fsck import fsck
from koguma.images.objects import BLOB
from koguma.images.packfiles import remove_packs
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.shallow import read_shallow
from koguma.images.transfer import fetching, pushing
from koguma.images.transfer.errors import NotFastForwardError, RefRejectedError, RemoteError, TransferError
from koguma.images.transfer.fetching import clone, fetch, pull
from koguma.images.transfer.incoming import PartFile
from koguma.images.transfer.pushing import push
from koguma.images.transfer.remotes import Remote, add_remote, check_url, find_remote, remotes
from koguma.images.transfer.server import Access, read_tokens
from koguma.images.trees import lookup
from tests.unit.images.making import listing, make_repository, make_tree
from tests.unit.images.sites import AT_ONCE, served


class Site:
    """Another site, as an address, with what its blobs are looked at by."""

    def __init__(self, url: str, fake: FakeObjects | None = None) -> None:
        self.url = url
        self.fake = fake


@pytest.fixture(params=["http", "directory", "blobs"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if request.param == "http":
        with served(make_repository(tmp_path / "site").path) as url:
            yield Site(url)
    elif request.param == "directory":
        yield Site(str(tmp_path / "site"))
    else:
        fake = FakeObjects()
        for module in (fetching, pushing):
            monkeypatch.setattr(module, "open_backend", lambda _: fake)
        yield Site("s3://fake", fake)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(
        tmp_path / "tree",
        {f"d{number % 7}/e/f{number}": f"content {number} " * number for number in range(60)} | {"etc/motd": "hello"},
    )


@pytest.fixture
def origin(repository: Repository, tree: Path, site: Site) -> Repository:
    """A repository with two commits on main and a tag, pushed to the site."""
    repository.commit_tree(tree, "main", "first")
    (tree / "etc/motd").write_text("changed")
    repository.commit_tree(tree, "main", "second")
    repository.create_tag("v1", "main")
    add_remote(repository.path, "site", site.url)
    push(repository, find_remote(repository.path, "site"), ["main"], tags=True)
    return repository


def remote_of(repository: Repository, name: str = "site") -> Remote:
    return find_remote(repository.path, name)


def commit_on(repository: Repository, branch: str, tmp_path: Path) -> str:
    return repository.commit_tree(make_tree(tmp_path / branch, {"branch": branch}), branch, branch).commit.id


def commit(repository: Repository, tree: Path, text: str) -> str:
    (tree / "etc/motd").write_text(text)
    return repository.commit_tree(tree, "main", text).commit.id


def test_a_clone_has_all_that_was_pushed(origin: Repository, site: Site, tmp_path: Path, tree: Path) -> None:
    copy, branch = clone(site.url, tmp_path / "copy")

    assert branch == "main"
    assert copy.refs.head() == "main"
    assert [item.id for item in copy.log("main")] == [item.id for item in origin.log("main")]
    assert copy.resolve("v1").id == copy.resolve("origin/main").id == origin.resolve("main").id
    assert fsck(copy).problems == ()
    copy.checkout("main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)
    assert list((copy.path / "incoming").iterdir()) == []


def test_a_file_with_the_bytes_of_a_tree_hides_nothing_from_a_transfer(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    (tree / "new").mkdir()
    (tree / "new/inside").write_text("found only below this directory")
    first = origin.commit_tree(tree, "main", "third").commit
    folder = lookup(origin.objects.read, origin.root(first), b"new")
    assert folder
    (tree / "0").write_bytes(origin.objects.read(folder.digest))
    origin.move_branch("main", "main~1")
    copy, _ = clone(site.url, tmp_path / "copy")
    origin.commit_tree(tree, "main", "with the copy in front")
    push(origin, remote_of(origin), ["main"])
    pull(copy, remote_of(copy, "origin"), "main")

    assert fsck(copy).problems == ()
    copy.checkout("main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)


def test_a_pull_brings_what_is_new_and_nothing_else(origin: Repository, site: Site, tmp_path: Path, tree: Path) -> None:
    copy, _ = clone(site.url, tmp_path / "copy")
    third = commit(origin, tree, "third")
    pushed = push(origin, remote_of(origin), ["main"])
    fetched, now = pull(copy, remote_of(copy, "origin"), "main")

    # The file, its directory, the root's directory, the root object and the commit.
    assert pushed.objects == fetched.objects == 5
    assert now == third == copy.resolve("main").id
    assert fetch(copy, remote_of(copy, "origin")).objects == 0
    assert fsck(copy).problems == ()


def test_what_is_there_already_is_not_sent_again(origin: Repository, site: Site, tmp_path: Path, tree: Path) -> None:
    other = make_repository(tmp_path / "other")
    other.commit_tree(tree, "main", "the same tree, made elsewhere")
    add_remote(other.path, "site", site.url)

    fetched = fetch(other, remote_of(other), branches=["main"])
    # Both commits, and of the first tree the file, its directory, the root's directory and the root object.
    assert fetched.objects == 6


def test_a_branch_that_went_another_way_is_not_replaced(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    copy, _ = clone(site.url, tmp_path / "copy")
    theirs = commit(copy, tree, "theirs")
    ours = commit(origin, tree, "ours")
    push(copy, remote_of(copy, "origin"), ["main"])

    with pytest.raises(NotFastForwardError, match=r"may not lose commits.*koguma image pull site main"):
        push(origin, remote_of(origin), ["main"])
    with pytest.raises(NotFastForwardError, match="merge needed; merge them with: koguma image merge"):
        pull(origin, remote_of(origin), "main")
    assert origin.resolve("main").id == ours
    assert origin.resolve("site/main").id == theirs


def test_force_with_lease_replaces_only_what_was_seen(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    copy, _ = clone(site.url, tmp_path / "copy")
    commit(copy, tree, "theirs")
    ours = commit(origin, tree, "ours")
    push(copy, remote_of(copy, "origin"), ["main"])

    with pytest.raises(RefMovedError, match="where the last fetch saw it"):
        push(origin, remote_of(origin), ["main"], force_with_lease=True)
    fetch(origin, remote_of(origin))
    push(origin, remote_of(origin), ["main"], force_with_lease=True)

    assert fetch(copy, remote_of(copy, "origin")).advertised.get(RefKind.BRANCH, "main") == ours


def test_of_two_who_push_at_once_the_second_is_told(
    origin: Repository, site: Site, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, _ = clone(site.url, tmp_path / "copy")
    first = commit(copy, tree, "first to arrive")
    commit(origin, tree, "second to arrive")
    send = pushing._Push._send

    def overtaken(self: object, *arguments: object) -> object:
        monkeypatch.setattr(pushing._Push, "_send", send)
        push(copy, remote_of(copy, "origin"), ["main"])
        return send(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pushing._Push, "_send", overtaken)
    with pytest.raises(RefRejectedError, match="main"):
        push(origin, remote_of(origin), ["main"])

    assert fetch(copy, remote_of(copy, "origin")).advertised.get(RefKind.BRANCH, "main") == first


def test_a_branch_is_removed_and_can_be_made_again(origin: Repository, site: Site, tmp_path: Path) -> None:
    origin.create_branch("release/1", "main")
    push(origin, remote_of(origin), ["release/1"])
    assert origin.resolve("site/release/1").id == origin.resolve("main").id

    push(origin, remote_of(origin), ["release/1"], delete=True)
    assert fetch(origin, remote_of(origin)).advertised.get(RefKind.BRANCH, "release/1") is None
    assert origin.refs.get(RefKind.REMOTE, "site/release/1") is None

    push(origin, remote_of(origin), ["release/1"])
    assert fetch(origin, remote_of(origin)).advertised.get(RefKind.BRANCH, "release/1") is not None


def test_a_tag_never_moves(origin: Repository, site: Site, tmp_path: Path, tree: Path) -> None:
    copy, _ = clone(site.url, tmp_path / "copy")
    before = copy.resolve("v1").id
    commit(origin, tree, "third")
    origin.remove("v1")
    origin.create_tag("v1", "main")

    with pytest.raises(NotFastForwardError, match="tag 'v1'"):
        push(origin, remote_of(origin), [], tags=True)
    copy.remove("v1")
    copy.create_tag("v1", "main~1")
    assert fetch(copy, remote_of(copy, "origin")).kept_tags == ("v1",)
    assert copy.resolve("v1").id != before


def test_a_shallow_clone_has_the_newest_commit_and_works(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    copy, _ = clone(site.url, tmp_path / "copy", depth=1)
    tip = origin.resolve("main").id

    assert [item.id for item in copy.log("main")] == [tip]
    assert read_shallow(copy.path) == {tip}
    assert fsck(copy).problems == ()
    third = commit(origin, tree, "third")
    push(origin, remote_of(origin), ["main"])
    pull(copy, remote_of(copy, "origin"), "main", depth=1)
    assert [item.id for item in copy.log("main")] == [third, tip]
    assert commit(copy, tree, "fourth") == copy.resolve("main").id
    push(copy, remote_of(copy, "origin"), ["main"])
    assert fsck(copy).problems == ()


def test_gc_after_a_shallow_pull_takes_nothing_that_is_needed(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    from koguma.images.gc import collect

    copy, _ = clone(site.url, tmp_path / "copy", depth=1)
    copy.refs.delete(RefKind.BRANCH, "main", old=copy.resolve("main").id)  # the remote's branch keeps the commit
    collect(copy, grace_s=0, reflog_keep_s=0)
    copy.checkout("origin/main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)
    assert fsck(copy).problems == ()


def test_a_file_with_the_bytes_of_the_parent_that_was_left_out_is_no_parent(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    from koguma.images.gc import collect

    copy, _ = clone(site.url, tmp_path / "copy", depth=1)
    boundary = read_shallow(copy.path)
    parent = origin.resolve("main~1").id
    (tree / "parent").write_bytes(origin.objects.read(bytes.fromhex(parent)))
    here = copy.commit_tree(tree, "main", "its bytes").commit.id
    commit(origin, tree, "third")
    push(origin, remote_of(origin), ["main"])
    fetch(copy, remote_of(copy, "origin"), depth=1)

    assert read_shallow(copy.path) >= boundary
    assert [item.id for item in copy.log("main")] == [here, *boundary]
    collect(copy, grace_s=0)
    assert fsck(copy).problems == ()


def test_a_pack_that_arrives_while_its_like_is_being_removed_gets_another_name(
    repository: Repository, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koguma.images import gc

    first = repository.commit_tree(tree, "main", "first").commit.id
    (tree / "etc/motd").unlink()
    second = repository.commit_tree(tree, "main", "second").commit.id
    copy = make_repository(tmp_path / "copy")
    origin = add_remote(copy.path, "origin", str(repository.path))
    fetch(copy, origin)
    copy.create_tag("v0", first)
    copy.refs.delete(RefKind.REMOTE, "origin/main", old=second)
    with monkeypatch.context() as patch:
        patch.setattr(gc, "remove_packs", _killed)
        with pytest.raises(KeyboardInterrupt):
            gc.collect(copy, grace_s=0)
    (tree / "etc/motd").write_text("third")
    repository.commit_tree(tree, "main", "third")
    fetch(copy, origin)
    gc.collect(copy, grace_s=0)

    assert fsck(copy).problems == ()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_shallow_clone_left_out_can_be_brought(origin: Repository, site: Site, tmp_path: Path) -> None:
    copy, _ = clone(site.url, tmp_path / "copy", depth=1)
    pull(copy, remote_of(copy, "origin"), "main", unshallow=True)

    assert [item.id for item in copy.log("main")] == [item.id for item in origin.log("main")]
    assert read_shallow(copy.path) == set()
    assert fsck(copy).problems == ()


def test_a_shallow_clone_does_not_pretend_to_have_a_history(origin: Repository, site: Site, tmp_path: Path) -> None:
    copy, _ = clone(site.url, tmp_path / "copy", depth=1)
    add_remote(copy.path, "empty", str(tmp_path / "empty"))
    if site.fake:
        site.fake.blobs.clear()

    with pytest.raises(TransferError, match="--unshallow"):
        push(copy, remote_of(copy, "origin" if site.fake else "empty"), ["main"])


def test_signatures_travel_with_commits(origin: Repository, site: Site, tmp_path: Path) -> None:
    from koguma.images.keyring import add_key, export_key
    from koguma.images.signatures import verify_commit

    copy, _ = clone(site.url, tmp_path / "copy")
    tip = origin.resolve("main").id
    assert verify_commit(copy, tip).valid == ()
    key = add_key(copy.path, export_key(origin.path))
    assert verify_commit(copy, tip).valid == (key,)


def test_signatures_come_with_a_branch_that_is_fetched_later(origin: Repository, site: Site, tmp_path: Path) -> None:
    from koguma.images.signatures import signatures_of

    dev = commit_on(origin, "dev", tmp_path)
    push(origin, remote_of(origin), ["main", "dev"])
    copy = make_repository(tmp_path / "copy")
    add_remote(copy.path, "site", site.url)
    fetch(copy, remote_of(copy), branches=["main"])
    assert signatures_of(copy.path, dev) == []
    fetch(copy, remote_of(copy), branches=["dev"])

    assert signatures_of(copy.path, dev) == signatures_of(origin.path, dev)


def test_signatures_that_could_not_be_stored_are_read_again(
    origin: Repository, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koguma.images.signatures import signatures_of

    copy, tip = make_repository(tmp_path / "copy"), origin.resolve("main").id
    add_remote(copy.path, "site", site.url)
    with monkeypatch.context() as full:
        full.setattr(fetching, "receive_signatures", lambda *_: (_ for _ in ()).throw(StorageError("the disk is full")))
        with pytest.raises(StorageError):
            fetch(copy, remote_of(copy))
    fetch(copy, remote_of(copy))

    assert signatures_of(copy.path, tip) == signatures_of(origin.path, tip)


def test_an_interrupted_transfer_is_taken_up_where_it_ended(
    origin: Repository, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koguma.images.transfer import downloading

    monkeypatch.setattr(downloading, "SPAN_MAX_BYTES", 2000)
    whole = fsck(clone(site.url, tmp_path / "whole")[0]).objects
    keep = downloading.Downloads._keep
    kept = []

    def breaking(self: downloading.Downloads, arrived: downloading.Arrived) -> None:
        if len(kept) >= 4 and sum(kept):
            raise BackendRefused("the line went dead")
        kept.append(sum(header.kind == BLOB for header, _ in arrived.records))
        keep(self, arrived)

    monkeypatch.setattr(downloading.Downloads, "_keep", breaking)
    with pytest.raises(BackendRefused, match="dead"):
        clone(site.url, tmp_path / "copy")
    broken = Repository.open(tmp_path / "copy")
    assert broken.refs.every() == []
    assert fsck(broken).problems == ()

    monkeypatch.setattr(downloading.Downloads, "_keep", keep)
    fetched = fetch(broken, find_remote(broken.path, "origin"))
    # Files are kept; trees and commits are not, because what they refer to had not all arrived.
    assert sum(kept) > 0
    assert fetched.objects == whole - sum(kept)
    clone(site.url, tmp_path / "copy")
    assert fsck(Repository.open(tmp_path / "copy")).problems == ()


def test_an_interrupted_push_sends_only_the_rest(
    repository: Repository, site: Site, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit_tree(tree, "main", "first")
    monkeypatch.setattr(pushing.outgoing_packs, "__defaults__", (1500,))
    add_remote(repository.path, "site", site.url)
    sent = []

    def breaking(size: int) -> None:
        sent.append(size)
        if len(sent) == 3:
            raise BackendRefused("the line went dead")

    with pytest.raises(BackendRefused, match="dead"):
        push(repository, remote_of(repository), ["main"], progress=breaking)
    first = len(sent)
    pushed = push(repository, remote_of(repository), ["main"], progress=sent.append)

    assert 0 < pushed.objects < fsck(repository).objects
    assert len(sent) > first
    assert push(repository, remote_of(repository), ["main"]).objects == 0


def test_what_passes_by_itself_is_tried_again(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeObjects()
    for module in (fetching, pushing):
        monkeypatch.setattr(module, "open_backend", lambda _: fake)
    repository = make_repository(tmp_path / "a")
    repository.commit_tree(tree, "main", "first")
    add_remote(repository.path, "site", "s3://fake")
    push(repository, remote_of(repository), ["main"])
    copy = make_repository(tmp_path / "b")
    add_remote(copy.path, "site", "s3://fake")

    fake.failures = [BackendUnreachable("busy") for _ in range(3)]
    fetch(copy, remote_of(copy), backoff=AT_ONCE)
    assert copy.resolve("site/main").id == repository.resolve("main").id

    fake.failures = [BackendUnreachable("busy") for _ in range(4)]
    with pytest.raises(BackendUnreachable):
        fetch(copy, remote_of(copy), backoff=AT_ONCE)


def test_packs_the_remote_rewrote_meanwhile_are_looked_for_again(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeObjects()
    for module in (fetching, pushing):
        monkeypatch.setattr(module, "open_backend", lambda _: fake)
    repository = make_repository(tmp_path / "a")
    repository.commit_tree(tree, "main", "first")
    add_remote(repository.path, "site", "s3://fake")
    push(repository, remote_of(repository), ["main"])
    copy = make_repository(tmp_path / "b")
    add_remote(copy.path, "site", "s3://fake")
    old = {name: data for name, data in fake.blobs.items() if name.startswith("packs/")}
    monkeypatch.setattr(pushing.outgoing_packs, "__defaults__", (1500,))
    again = FakeObjects()
    monkeypatch.setattr(pushing, "open_backend", lambda _: again)
    push(repository, remote_of(repository), ["main"])
    read_range = fake.read_range

    def rewritten(name: str, offset: int, length: int) -> Iterator[bytes]:
        if old:
            for gone in old:
                del fake.blobs[gone]
            old.clear()
            fake.blobs.update(again.blobs)
        return read_range(name, offset, length)

    monkeypatch.setattr(fake, "read_range", rewritten)
    fetch(copy, remote_of(copy), backoff=AT_ONCE)
    assert copy.resolve("site/main").id == repository.resolve("main").id


def test_what_gc_took_during_a_fetch_is_brought_after_all(
    origin: Repository, site: Site, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make_repository(tmp_path / "copy")
    copy.commit_tree(tree, "scratch", "the same files")
    copy.refs.set_head("main")
    copy.remove("scratch")
    add_remote(copy.path, "site", site.url)
    from koguma.images.transfer import downloading

    fetch_files = downloading.Downloads.fetch_files

    def collected(self: downloading.Downloads, sizes: dict[bytes, int]) -> None:
        fetch_files(self, sizes)
        monkeypatch.setattr(downloading.Downloads, "fetch_files", fetch_files)
        for file in (copy.path / "packs").iterdir():
            file.unlink()
        copy.objects.refresh()

    monkeypatch.setattr(downloading.Downloads, "fetch_files", collected)
    fetch(copy, remote_of(copy), branches=["main"])

    assert copy.resolve("site/main").id == origin.resolve("main").id
    assert fsck(copy).problems == ()
    copy.checkout("site/main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)


def test_a_push_counts_on_no_pack_that_gc_is_about_to_remove(
    origin: Repository, site: Site, tmp_path: Path, tree: Path
) -> None:
    if site.fake:
        pytest.skip("a store of blobs has no gc")
    push(origin, remote_of(origin), ["main", "v1"], delete=True)
    packs = tmp_path / "site" / "packs"
    going = [path.stem for path in packs.glob("*.pack")]
    write_condemned(packs, Stage.WAITING, going)
    commit(origin, tree, "third")
    push(origin, remote_of(origin), ["main"])

    remove_packs(packs, going)
    write_condemned(packs, Stage.WAITING, [])
    assert fsck(Repository.open(tmp_path / "site")).problems == ()


@pytest.mark.parametrize(("bytes_max", "parts"), [(1 << 30, 1), (1000, 3)])
def test_a_clone_of_many_packs_has_few_files_open(
    origin: Repository, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_max: int, parts: int
) -> None:
    from koguma.images.transfer import downloading

    for number in range(6):
        commit_on(origin, f"b{number}", tmp_path)
        push(origin, remote_of(origin), [f"b{number}"])
    begun = []
    monkeypatch.setattr(downloading, "PACK_MAX_BYTES", bytes_max, raising=False)
    monkeypatch.setattr(downloading, "_PARTS_MAX", 3, raising=False)
    monkeypatch.setattr(fetching, "PartFile", lambda path: (begun.append(path), PartFile(path))[1])
    copy, _ = clone(site.url, tmp_path / "copy")

    assert len(begun) <= parts
    assert fsck(copy).problems == ()


def test_a_branch_with_the_longest_name_is_cloned(origin: Repository, site: Site, tmp_path: Path) -> None:
    name = "b" * 100
    made = commit_on(origin, name, tmp_path)
    push(origin, remote_of(origin), [name])
    copy, _ = clone(site.url, tmp_path / "copy")

    assert copy.resolve(f"origin/{name}").id == made
    assert fsck(copy).problems == ()
    with pytest.raises(RefError, match="1 to 100 letters"):
        copy.create_branch("b" * 101, "main")


@pytest.mark.parametrize("existed", [True, False])
def test_a_clone_that_failed_does_not_stand_in_the_way_of_the_next(
    origin: Repository, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    copy = tmp_path / "copy"
    if existed:
        copy.mkdir()
    with monkeypatch.context() as broken:
        broken.setattr(fetching, "fetch", lambda *_, **__: (_ for _ in ()).throw(BackendRefused("no")))
        with pytest.raises(BackendRefused):
            clone(site.url, copy)
    assert copy.exists() == existed
    with monkeypatch.context() as broken:
        broken.setattr(fetching, "open_backend", lambda _: FakeObjects())
        with pytest.raises(RemoteError, match="must be an image repository"):
            clone("s3://mistyped", copy)
    assert copy.exists() == existed
    clone(site.url, copy)

    with pytest.raises(
        RepositoryError, match=r"clone into another one, or go on with that: koguma image --repo .* fetch"
    ):
        clone(str(origin.path), copy) if not site.fake else clone("s3://another", copy)
    with pytest.raises(RepositoryError, match=r"koguma image --repo .* remote add origin .* fetch"):
        clone(site.url, origin.path)


def test_an_address_with_credentials_is_refused_and_not_repeated() -> None:
    with pytest.raises(RemoteError) as caught:
        check_url("https://user:geheim@site.example/images")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://site/x", "http://", "s3:///x", "http://site:99999/x", "http://site/x?y"])
def test_an_address_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(RemoteError, match="address"):
        check_url(url)


def test_remotes_have_names(repository: Repository, tmp_path: Path) -> None:
    add_remote(repository.path, "origin", "https://site.example:8470/")
    with pytest.raises(RemoteError, match="exists already"):
        add_remote(repository.path, "origin", "https://other.example")
    with pytest.raises(RemoteError, match="there is no remote 'upstream', there are origin"):
        find_remote(repository.path, "upstream")
    assert remotes(repository.path)["origin"].url == "https://site.example:8470"
    assert (repository.path / "remotes.json").stat().st_mode & 0o777 == 0o600


def test_a_server_gives_nothing_without_the_right_token(repository: Repository, tmp_path: Path, tree: Path) -> None:
    repository.commit_tree(tree, "main", "first")
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the sites\nread-0123456789abcdef read\npush-0123456789abcdef\n")
    with served(repository.path, Access(read_tokens(tokens), allow_push=True)) as url:
        with pytest.raises(BackendRefused, match="token") as caught:
            clone(url, tmp_path / "none")
        assert "0123456789abcdef" not in str(caught.value)
        mine = tmp_path / "mine"
        mine.write_text("read-0123456789abcdef\n")
        copy, _ = clone(url, tmp_path / "copy", token_file=mine)
        commit(copy, tree, "second")
        with pytest.raises(BackendRefused, match="takes no pushes from this token"):
            push(copy, remote_of(copy, "origin"), ["main"])
        mine.write_text("push-0123456789abcdef\n")
        push(copy, remote_of(copy, "origin"), ["main"])
    assert repository.resolve("main").id == copy.resolve("main").id


def test_a_server_without_allow_push_takes_none(repository: Repository, tmp_path: Path, tree: Path) -> None:
    repository.commit_tree(tree, "main", "first")
    with served(repository.path, Access()) as url:
        copy, _ = clone(url, tmp_path / "copy")
        commit(copy, tree, "second")
        with pytest.raises(BackendRefused, match="--allow-push"):
            push(copy, remote_of(copy, "origin"), ["main"])


def test_no_repository_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RemoteError, match="must be an image repository"):
        clone(str(tmp_path / "nothing"), tmp_path / "copy")


def test_large_files_arrive_whole(site: Site, tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "big")
    tree = make_tree(tmp_path / "bigtree", {"zeros": b"\0" * 50_000_000, "noise": bytes(range(256)) * 200_000})
    (tree / "random").write_bytes(random.Random(1).randbytes(40_000_000))
    repository.commit_tree(tree, "main", "big")
    add_remote(repository.path, "site", site.url)
    push(repository, remote_of(repository), ["main"])
    copy, _ = clone(site.url, tmp_path / "copy")

    assert fsck(copy).problems == ()
    copy.checkout("main", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)
