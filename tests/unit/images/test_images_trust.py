"""Signatures of commits, keys that change, and policy that refuses what nobody trusted signed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from koguma.images import signatures
from koguma.images.commits import Commit
from koguma.images.errors import ImageError, KeyringError, ManifestError, SignatureError
from koguma.images.fsck import fsck
from koguma.images.keyring import add_key, export_key, keys_of, revoke_key, rotate_key
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.signatures import (
    Signature,
    add_signatures,
    all_signatures,
    check_signatures,
    sign_commit,
    signature_by,
    signatures_of,
    verify_commit,
)
from koguma.images.signing import load_signing_key, trusted_keys, verify
from koguma.images.sources import open_source
from koguma.images.transfer.ancestry import Complete
from koguma.images.transfer.errors import RefRejectedError
from koguma.images.transfer.fetching import clone, pull
from koguma.images.transfer.pushing import push
from koguma.images.transfer.receiving import receive
from koguma.images.transfer.remotes import add_remote, find_remote
from tests.unit.images.making import make_bootable_tree, make_repository, make_tree
from tests.unit.images.sites import served


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", {"etc/motd": "hello"})


def signing_id(repository: Repository) -> str:
    return keys_of(repository.path)[0].id


def require_signed(repository: Repository, pattern: str) -> None:
    (repository.path / "policy.toml").write_text(f'[signatures]\nrequire_signed = ["{pattern}"]\n')


def unsigned(repository: Repository, tree: Path, text: str) -> str:
    """A commit on `work` made where no signing key was."""
    key = repository.path / "keys" / "signing.pem"
    hidden = key.rename(key.with_suffix(".hidden"))
    (tree / "etc/motd").write_text(text)
    made = repository.commit_tree(tree, "work", text).commit.id
    hidden.rename(key)
    return made


def test_a_commit_is_signed_when_it_is_made(repository: Repository, tree: Path) -> None:
    made = repository.commit_tree(tree, "main", "first").commit.id

    assert verify_commit(repository, made).valid == (signing_id(repository),)


def test_without_a_signing_key_a_commit_is_made_unsigned_and_can_be_signed_later(
    repository: Repository, tree: Path
) -> None:
    made = unsigned(repository, tree, "first")
    assert verify_commit(repository, made).valid == ()

    sign_commit(repository, made)
    sign_commit(repository, made)
    assert verify_commit(repository, made).valid == (signing_id(repository),)
    assert len(all_signatures(repository.path)) == 1


def test_a_signature_of_another_commit_is_wrong(repository: Repository, tree: Path) -> None:
    first = repository.commit_tree(tree, "main", "first").commit.id
    second = unsigned(repository, tree, "second")
    stolen = signatures_of(repository.path, first)[0]
    add_signatures(repository.path, [Signature(second, stolen.key, stolen.encoded)])

    verdict = verify_commit(repository, second)
    assert (verdict.valid, verdict.wrong) == ((), (signing_id(repository),))


def test_a_wrong_line_of_a_key_does_not_keep_it_from_signing(repository: Repository, tree: Path) -> None:
    made = unsigned(repository, tree, "first")
    add_signatures(repository.path, [Signature(made, signing_id(repository), base64.b64encode(bytes(64)).decode())])

    sign_commit(repository, made)
    sign_commit(repository, made)
    assert verify_commit(repository, made).valid == (signing_id(repository),)
    assert len(all_signatures(repository.path)) == 2


def test_wrong_signatures_of_keys_that_are_trusted_do_not_travel(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    made = unsigned(repository, tree, "first")
    site = make_repository(tmp_path / "site")
    encoded = base64.b64encode(bytes(64)).decode()
    wrong = [Signature(made, key, encoded) for key in (signing_id(site), signing_id(repository))]
    add_signatures(repository.path, wrong)
    add_remote(repository.path, "site", str(site.path))
    with served(site.path) as url:
        add_remote(repository.path, "served", url)
        for name in ("site", "served"):
            push(repository, find_remote(repository.path, name), ["work"])
            assert all_signatures(site.path) == wrong[1:]  # of that key nobody knows anything here
    other = make_repository(tmp_path / "other")
    add_key(other.path, export_key(repository.path))
    add_remote(other.path, "origin", str(repository.path))
    pull(other, find_remote(other.path, "origin"), "work")

    assert all_signatures(other.path) == wrong[:1]


def test_a_line_that_a_crash_cut_short_counts_for_nothing_and_spoils_nothing(
    repository: Repository, tree: Path
) -> None:
    first = repository.commit_tree(tree, "main", "first").commit.id
    log = repository.path / "signatures" / "log"
    log.write_bytes(log.read_bytes()[:-20])
    assert verify_commit(repository, first).valid == ()

    assert fsck(repository).problems == ()
    sign_commit(repository, first)
    assert verify_commit(repository, first).valid == (signing_id(repository),)
    assert log.read_bytes().count(b"\n") == 1


def test_any_flipped_bit_of_a_signature_is_found(repository: Repository, tree: Path) -> None:
    repository.commit_tree(tree, "main", "first")
    log = repository.path / "signatures" / "log"
    whole = log.read_bytes()
    for at in range(len(whole) - 1):
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert list(check_signatures(repository)), f"byte {at}"
    log.write_bytes(whole)
    assert list(check_signatures(repository)) == []


def test_a_signature_that_is_of_no_trusted_key_is_no_damage_but_a_wrong_one_is(
    repository: Repository, tree: Path
) -> None:
    made = repository.commit_tree(tree, "main", "first").commit.id
    encoded = base64.b64encode(bytes(64)).decode()
    add_signatures(repository.path, [Signature(made, "0" * 16, encoded)])
    assert fsck(repository).problems == ()

    add_signatures(repository.path, [Signature(made, signing_id(repository), encoded)])
    assert "a signature must be of its commit" in fsck(repository).problems[0]


def test_after_a_rotation_both_keys_sign_until_the_old_one_is_revoked(tmp_path: Path, repository: Repository) -> None:
    first = repository.commit_tree(make_bootable_tree(tmp_path / "a"), "main", "first").commit.id
    repository.update_labels()
    old = signing_id(repository)
    before = trusted_keys(repository.path / "keys")
    new, said_old = rotate_key(repository)
    second = repository.commit_tree(make_bootable_tree(tmp_path / "b", package="2"), "main", "second").commit.id
    repository.update_labels()

    assert said_old == old != new
    assert [(key.id, key.role) for key in keys_of(repository.path)] == [(new, "signing"), (old, "retiring")]
    after = trusted_keys(repository.path / "keys")
    for commit in (first, second):
        assert set(verify_commit(repository, commit).valid) == {old, new}
        artifact = repository.path / "boot" / "artifacts" / commit
        manifest, signatures = (artifact / "manifest.json").read_bytes(), (artifact / "manifest.sig").read_bytes()
        assert verify(manifest, signatures, before) == old  # machines whose stage 1 is older
        assert verify(manifest, signatures, {new: after[new]}) == new

    assert revoke_key(repository, old) == (old, [])
    assert [(key.id, key.role) for key in keys_of(repository.path)] == [(new, "signing"), (old, "revoked")]
    for commit in (first, second):
        assert verify_commit(repository, commit).valid == (new,)
        artifact = repository.path / "boot" / "artifacts" / commit
        manifest, signatures = (artifact / "manifest.json").read_bytes(), (artifact / "manifest.sig").read_bytes()
        assert verify(manifest, signatures, trusted_keys(repository.path / "keys")) == new
    third = repository.commit_tree(make_bootable_tree(tmp_path / "c", package="3"), "main", "third").commit.id
    assert [item.key for item in signatures_of(repository.path, third)] == [new]


@pytest.mark.parametrize("step", ["_sign_everything", "_trust"])
def test_a_rotation_that_was_interrupted_is_completed_by_the_next(
    repository: Repository, tree: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koguma.images import keyring

    made = repository.commit_tree(tree, "main", "first").commit.id
    old = signing_id(repository)
    with monkeypatch.context() as broken:
        broken.setattr(keyring, step, lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            rotate_key(repository)
    assert signing_id(repository) == old
    assert verify_commit(repository, made).valid == (old,)

    new, _ = rotate_key(repository)
    assert {key.role for key in keys_of(repository.path)} == {"signing", "retiring"}
    assert set(verify_commit(repository, made).valid) == {old, new}


def test_a_key_of_a_rotation_that_was_cut_short_is_revoked_for_good(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koguma.images import keyring

    repository.commit_tree(tree, "main", "first")
    upcoming = repository.path / "keys" / "next.pem"
    with monkeypatch.context() as broken:
        broken.setattr(keyring, "_sign_everything", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            rotate_key(repository)
    private = upcoming.read_bytes()
    stolen = next(key.id for key in keys_of(repository.path) if key.role == "trusted")
    revoke_key(repository, stolen)
    assert not upcoming.exists()

    upcoming.write_bytes(private)  # as a repository has it where the key was revoked without this rule
    new, _ = rotate_key(repository)
    assert new != stolen
    assert stolen not in trusted_keys(repository.path / "keys")
    assert [key.role for key in keys_of(repository.path) if key.id == stolen] == ["revoked"]


def test_a_rotation_does_not_sign_what_nobody_trusted_signed(tmp_path: Path, repository: Repository) -> None:
    made = repository.commit_tree(make_bootable_tree(tmp_path / "a"), "main", "first").commit.id
    repository.update_labels()
    artifact = repository.path / "boot" / "artifacts" / made
    manifest = (artifact / "manifest.json").read_bytes().replace(b"x86_64", b"x86_65")
    (artifact / "manifest.json").write_bytes(manifest)
    log = repository.path / "signatures" / "log"
    good = signatures_of(repository.path, made)[0]
    log.write_bytes(Signature(made, good.key, base64.b64encode(bytes(64)).decode()).line())

    new, _ = rotate_key(repository)
    assert new not in [item.key for item in signatures_of(repository.path, made)]
    with pytest.raises(ManifestError):
        verify(manifest, (artifact / "manifest.sig").read_bytes(), trusted_keys(repository.path / "keys"))


def test_revoking_says_which_commits_nobody_signs_any_more(repository: Repository, tree: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other")
    made = other.commit_tree(tree, "main", "theirs").commit.id
    theirs = add_key(repository.path, export_key(other.path))
    add_remote(repository.path, "other", str(other.path))
    pull(repository, find_remote(repository.path, "other"), "main")
    assert verify_commit(repository, made).valid == (theirs,)

    assert revoke_key(repository, theirs[:6]) == (theirs, [made])
    with pytest.raises(KeyringError, match="revoked key is not trusted again"):
        add_key(repository.path, export_key(other.path))


def test_the_key_that_signs_cannot_be_revoked(repository: Repository) -> None:
    with pytest.raises(KeyringError, match="koguma image keys rotate"):
        revoke_key(repository, signing_id(repository))


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_not_trusted(repository: Repository, pem: bytes) -> None:
    with pytest.raises(KeyringError, match="PEM"):
        add_key(repository.path, pem)


def test_policy_refuses_a_ref_to_what_is_not_signed(repository: Repository, tree: Path) -> None:
    made = unsigned(repository, tree, "first")
    require_signed(repository, "release/*")

    repository.create_branch("other", "work")
    with pytest.raises(SignatureError, match=r"branch 'release/1' takes commits signed .* no signature"):
        repository.create_branch("release/1", "work")
    with pytest.raises(SignatureError):
        repository.create_tag("release/v1", "work")
    sign_commit(repository, made)
    repository.create_branch("release/1", "work")
    second = unsigned(repository, tree, "second")
    with pytest.raises(SignatureError):
        repository.move_branch("release/1", second)
    assert repository.refs.get(RefKind.BRANCH, "release/1") == made


def test_policy_refuses_at_push_and_at_pull(repository: Repository, tree: Path, tmp_path: Path) -> None:
    made = unsigned(repository, tree, "first")
    repository.create_branch("release/1", "work")
    site = make_repository(tmp_path / "site")
    require_signed(site, "release/*")
    add_remote(repository.path, "site", str(site.path))
    with served(site.path) as url:
        add_remote(repository.path, "served", url)
        for name in ("site", "served"):
            with pytest.raises(RefRejectedError, match="takes commits signed by a trusted key only"):
                push(repository, find_remote(repository.path, name), ["release/1"])
        assert site.refs.get(RefKind.BRANCH, "release/1") is None
        add_remote(site.path, "origin", str(repository.path))
        with pytest.raises(SignatureError):
            pull(site, find_remote(site.path, "origin"), "release/1")
        # Looked at it may be, and once it is signed by a key the site trusts it is taken.
        assert site.resolve("origin/release/1").id == made
        sign_commit(repository, made)
        with pytest.raises(RefRejectedError, match="not trusted here"):
            push(repository, find_remote(repository.path, "served"), ["release/1"])
        add_key(site.path, export_key(repository.path))
        push(repository, find_remote(repository.path, "served"), ["release/1"])
    assert site.refs.get(RefKind.BRANCH, "release/1") == made


def test_signatures_that_arrive_are_verified_or_few(repository: Repository, tree: Path) -> None:
    made = unsigned(repository, tree, "first")
    mine = signing_id(repository)

    def line(key: str, number: int) -> Signature:
        return Signature(made, key, base64.b64encode(number.to_bytes(64, "big")).decode())

    sent = [line(mine, number) for number in range(50)]
    sent += [line(f"{key:016x}", number) for key in range(30) for number in range(20)]
    receive(repository, [], sent, "me")
    receive(repository, [], sent, "me")

    kept = signatures_of(repository.path, made)
    assert (len(kept), len({item.key for item in kept}), mine in {item.key for item in kept}) == (64, 16, False)
    assert fsck(repository).problems == ()
    key = load_signing_key(repository.path / "keys")
    receive(repository, [], [signature_by(key, made, repository.objects.read(bytes.fromhex(made)))], "me")
    assert verify_commit(repository, made).valid == (mine,)


def test_the_log_of_signatures_is_read_once_for_all_that_arrive(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = repository.commit_tree(tree, "main", "first").commit.id
    read, reads = signatures._content, []
    monkeypatch.setattr(signatures, "_content", lambda path: (reads.append(path), read(path))[1])
    receive(repository, [], [Signature(made, f"{key:016x}", "A" * 86 + "==") for key in range(20)], "me")

    assert len(reads) == 1


def test_of_many_refs_to_one_history_every_commit_is_read_once() -> None:
    reads = []

    def read(commit: str) -> Commit:
        reads.append(commit)
        number = int(commit, 16)
        return Commit("0" * 64, (f"{number - 1:064x}",) if number else (), "me", number, "m", id=commit)

    complete = Complete(read, lambda _: True, [f"{number:064x}" for number in range(50)])

    assert not complete("f" * 64)
    assert len(reads) == 50


def test_policy_gives_no_label_to_a_ref_that_is_not_signed(repository: Repository, tmp_path: Path) -> None:
    made = unsigned(repository, make_bootable_tree(tmp_path / "a"), "first")
    repository.create_branch("release", "work")
    require_signed(repository, "release")
    state = repository.update_labels()

    assert "release" not in [label.name for label in state.labels]
    assert "work" in [label.name for label in state.labels]
    assert [item.commit for item in state.unlabelled if "signed by a trusted key" in item.reason] == [made]
    sign_commit(repository, made)
    assert "release" in [label.name for label in repository.update_labels().labels]


def test_lost_objects_can_be_asked_of_a_remote(repository: Repository, tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(bytes(range(256)) * 100_000)
    repository.commit_tree(tree, "main", "first")
    wanted = {item: repository.objects.read(item) for pack in repository.objects.packs() for item in pack.ids()}
    with served(repository.path) as url:
        copy, _ = clone(url, tmp_path / "copy")
        source = open_source(copy, "origin")
        found = {item.id: b"".join(item.content) for item in source.fetch([*wanted, b"\1" * 32])}
        source.close()

    assert found == wanted
    assert fsck(copy).problems == ()
    with pytest.raises(ImageError, match="source"):
        open_source(copy, "nowhere")
