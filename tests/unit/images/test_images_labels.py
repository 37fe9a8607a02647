"""Labels and artifacts, of tiny trees: each takes a few hundredths of a second."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from koguma.boot.labels import Labels as BootLabels
from koguma.images import artifacts, rootimages
from koguma.images.commits import Commit
from koguma.images.errors import CorruptError, ManifestError, NotBootableError, PolicyError, StorageError
from koguma.images.fsck import fsck
from koguma.images.kernels import find_boot_files
from koguma.images.pins import announce_use
from koguma.images.repository import Repository
from koguma.images.rootimages import has_whole_image
from koguma.images.signing import create_keys, load_signing_key, sign, trusted_keys, verify
from koguma.model.errors import InvalidValue
from koguma.model.manifest import Manifest, ManifestFile
from tests.unit.images.making import let_age, make_bootable_tree, make_tree
from tests.unit.images.test_images_overlay import ACL

_NOTHING_STAYS = "[labels]\nkeep_commits_per_branch = 0\nkeep_days = 0\ngrace_minutes = 0\n"


def _published(repository: Repository) -> dict[str, dict[str, str]]:
    document = json.loads((repository.path / "boot" / "labels.json").read_bytes())
    assert document["format"] == "koguma-labels/1"
    labels: dict[str, dict[str, str]] = document["labels"]
    return labels


def test_every_branch_tag_and_commit_gets_a_label(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    first = repository.commit_tree(tree, "compute", "first").commit
    (tree / "etc" / "motd").write_text("changed\n")
    second = repository.commit_tree(tree, "compute", "second").commit
    repository.create_tag("v1", "compute~1")
    repository.update_labels()

    assert _published(repository) == {
        "compute": {"commit": second.id, "kind": "branch"},
        "v1": {"commit": first.id, "kind": "tag"},
        first.id[:12]: {"commit": first.id, "kind": "commit"},
        second.id[:12]: {"commit": second.id, "kind": "commit"},
    }


def test_an_artifact_is_what_its_signed_manifest_says(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m").commit
    repository.update_labels()

    folder = repository.path / "boot" / "artifacts" / commit.id
    signed = (folder / "manifest.json").read_bytes()
    verify(signed, (folder / "manifest.sig").read_bytes(), trusted_keys(repository.path / "keys"))
    manifest = Manifest.from_bytes(signed)
    assert (manifest.commit, manifest.tree) == (commit.id, commit.tree)
    assert (manifest.architecture, manifest.kernel_version) == ("x86_64", "6.1.0-9-amd64")
    assert manifest.unpacked_size_bytes == 4 * 4096
    assert (folder / "kernel").read_bytes() == b"kernel 6.1.0-9-amd64"
    assert set(manifest.files) == {"kernel", "initrd", "root"}
    for file in manifest.files.values():
        content = (folder / file.name).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (file.size_bytes, file.sha256)
        assert (folder / file.name).stat().st_mode & 0o777 == 0o644


def test_what_an_interrupted_run_left_is_cleared_and_completed(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m").commit
    half = repository.path / "boot" / "artifacts" / ".new-half"
    half.mkdir()
    (half / "kernel").write_text("half a ker")
    (repository.path / "boot" / "labels.json").unlink()

    repository.update_labels()

    assert not half.exists()
    assert set(_published(repository)) == {"compute", commit.id[:12]}


def test_a_removed_branch_loses_its_label_and_labels_without_an_artifact_are_not_published(
    repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m").commit
    repository.create_branch("next", "compute")
    repository.update_labels()
    repository.remove("next")
    shutil.rmtree(repository.path / "boot" / "artifacts" / commit.id)
    repository.update_labels()

    assert set(_published(repository)) == {"compute", commit.id[:12]}
    assert (repository.path / "boot" / "artifacts" / commit.id / "root.squashfs").exists()


def test_a_commit_without_a_kernel_succeeds_and_its_missing_label_is_explained(
    repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit_tree(make_tree(tmp_path / "tree", {"etc/motd": ""}), "plain", "m").commit

    for _ in range(2):
        state = repository.update_labels()
        assert state.labels == ()
        assert [(item.commit, item.reason) for item in state.unlabelled] == [
            (commit.id, "a bootable tree needs a kernel, there is none at /vmlinuz or /boot/vmlinuz-*")
        ]
    assert _published(repository) == {}


def test_what_no_manifest_can_hold_keeps_one_commit_from_its_label_and_no_other(
    repository: Repository, tmp_path: Path
) -> None:
    strange = make_bootable_tree(tmp_path / "strange")
    status = strange / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("amd64", "a b"))
    one = repository.commit_tree(strange, "strange", "m").commit
    two = repository.commit_tree(make_bootable_tree(tmp_path / "long", version="6." + "1" * 99), "long", "m").commit
    repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m")
    expired = repository.path / "boot" / "artifacts" / ("0" * 64)
    expired.mkdir()
    (repository.path / "policy.toml").write_text("[labels]\ngrace_minutes = 0\n")

    for _ in range(2):
        state = repository.update_labels()
        reasons = {item.commit: item.reason for item in state.unlabelled}
        assert reasons.keys() == {one.id, two.id}
        assert re.fullmatch(
            r"a manifest's architecture must match .*, got 'a b' \(the Architecture of dpkg, /var/lib/dpkg/status\)",
            reasons[one.id],
        )
        assert re.fullmatch(
            r"a manifest's kernel_version must match .*, got '6\.1+…' \(the name of the kernel\)", reasons[two.id]
        )
    assert "compute" in _published(repository)
    assert not expired.exists()
    assert not list((repository.path / "cache" / "images").glob(f"{one.tree}.*"))  # none was made in vain


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.ENOSPC, "No space left on device"), True), (InvalidValue("a value must be of its kind"), False)],
)
def test_an_artifact_that_cannot_be_made_keeps_no_other_from_being_made_and_a_full_disk_is_told(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: bool
) -> None:
    one = repository.commit_tree(make_bootable_tree(tmp_path / "one", package="1"), "one", "m").commit
    repository.commit_tree(make_bootable_tree(tmp_path / "two", package="2"), "two", "m")
    make = rootimages.provide_image

    def provide(of: Repository, commit: Commit, *rest: Any) -> ManifestFile:
        if commit.id == one.id:
            raise error
        return make(of, commit, *rest)

    monkeypatch.setattr(artifacts, "provide_image", provide)
    expired = repository.path / "boot" / "artifacts" / ("0" * 64)
    expired.mkdir()
    (repository.path / "policy.toml").write_text("[labels]\ngrace_minutes = 0\n")
    if told:
        with pytest.raises(StorageError, match="No space left on device"):
            repository.update_labels()
    else:
        state = repository.update_labels()
        assert [(item.commit, item.reason) for item in state.unlabelled] == [
            (one.id, f"its artifact could not be made: {error}")
        ]

    assert "two" in _published(repository)
    assert not expired.exists()


def test_without_the_cache_commits_and_labels_are_made_and_nobody_else_may_look_into_the_new_one(
    repository: Repository, tmp_path: Path
) -> None:
    cache = repository.path / "cache"
    shutil.rmtree(cache)
    repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m")
    assert (cache.stat().st_mode & 0o777, (cache / "stat").stat().st_mode & 0o777) == (0o700, 0o700)
    for _ in range(2):
        shutil.rmtree(cache)
        repository.commit_tree(make_tree(tmp_path / "plain", {"etc/motd": ""}), "plain", "m", remember=False)
        repository.update_labels()
        assert cache.stat().st_mode & 0o777 == 0o700

    assert "compute" in _published(repository)


def test_commits_of_one_tree_share_one_root_image(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    one = repository.commit_tree(tree, "one", "first").commit
    repository.update_labels()
    two = repository.commit_tree(tree, "two", "another message").commit
    repository.update_labels()

    images = [repository.path / "boot" / "artifacts" / commit.id / "root.squashfs" for commit in (one, two)]
    assert one.id != two.id
    assert images[0].stat().st_ino == images[1].stat().st_ino


def test_a_label_moves_on_only_when_the_new_commits_artifact_is_there(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    first = repository.commit_tree(tree, "compute", "first").commit
    repository.update_labels()
    (tree / "etc" / "motd").write_text("changed\n")
    second = repository.commit_tree(tree, "compute", "second").commit

    assert _published(repository)["compute"]["commit"] == first.id
    repository.update_labels()
    assert _published(repository)["compute"]["commit"] == second.id


def test_the_boot_service_sees_a_new_label_within_a_second(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    repository.commit_tree(tree, "compute", "first")
    repository.update_labels()
    boot = BootLabels(repository.path)
    assert set(boot.all()) >= {"compute"}

    tag = repository.create_tag("v1", "compute")  # nobody calls update_labels: the ref-update hook does its part
    changed = time.monotonic()
    assert boot.resolve("v1").commit == tag.commit
    repository.move_branch("compute", "v1")
    repository.remove("v1")
    assert "v1" not in boot.all()
    assert time.monotonic() - changed < 1


def test_an_expired_commit_loses_its_label_at_once_and_its_artifact_after_the_grace(
    repository: Repository, tmp_path: Path
) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    policy = repository.path / "policy.toml"
    policy.write_text("[labels]\nkeep_commits_per_branch = 2\nkeep_days = 0\n")
    state = repository.update_labels()

    assert commits[0][:12] not in _published(repository)
    assert (repository.path / "boot" / "artifacts" / commits[0]).is_dir()
    assert [item.commit for item in state.unlabelled] == [commits[0]]
    assert f"koguma image labels --pin {commits[0][:12]}" in state.unlabelled[0].reason
    policy.write_text("[labels]\nkeep_commits_per_branch = 2\nkeep_days = 0\ngrace_minutes = 0\n")
    repository.update_labels()
    folders = {path.name for path in (repository.path / "boot" / "artifacts").iterdir()}
    assert folders == set(commits[1:])
    assert len(list((repository.path / "cache" / "images").glob("*.squashfs"))) == 2


def test_a_pinned_commit_stays_bootable_and_one_that_is_pinned_again_is_made_again(
    repository: Repository, tmp_path: Path
) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    (repository.path / "policy.toml").write_text(_NOTHING_STAYS)
    repository.pin_label("compute~2")
    repository.update_labels()
    assert set(_published(repository)) == {"compute", commits[2][:12], commits[0][:12]}

    repository.unpin_label("compute~2")
    repository.update_labels()
    assert set(_published(repository)) == {"compute", commits[2][:12]}
    repository.pin_label(commits[1])
    repository.update_labels()
    assert set(_published(repository)) == {"compute", commits[2][:12], commits[1][:12]}
    with pytest.raises(PolicyError, match="there is no pin 'compute~2'"):
        repository.unpin_label("compute~2")


def test_a_label_that_machines_boot_by_does_not_expire(repository: Repository, tmp_path: Path) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    announce_use(repository.path, "boot", [commits[0][:12], "compute", "none"])
    (repository.path / "policy.toml").write_text(_NOTHING_STAYS)
    state = repository.update_labels()

    assert {label.name for label in state.labels} == {"compute", commits[2][:12], commits[0][:12]}
    assert state.kept[commits[0]].why == f"in use: label {commits[0][:12]} of a machine"
    for damaged in ("{", '{"labels": "compute"}', '{"labels": {"compute": 1}}'):
        (repository.path / "boot" / "in-use" / "boot.json").write_text(damaged)
        with pytest.raises(PolicyError, match=r"what is in use must be .*boot\.json"):
            repository.update_labels()
        assert commits[0][:12] in _published(repository)


def test_what_machines_boot_by_is_known_when_labels_json_is_lost(repository: Repository, tmp_path: Path) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    announce_use(repository.path, "boot", [commits[0][:12], "0" * 12])
    (repository.path / "policy.toml").write_text(_NOTHING_STAYS)
    (repository.path / "boot" / "labels.json").unlink()
    repository.update_labels()

    assert set(_published(repository)) == {"compute", commits[2][:12], commits[0][:12]}


def test_a_removed_branchs_commit_stays_bootable_while_machines_boot_by_its_name(
    repository: Repository, tmp_path: Path
) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.create_branch("old", commits[0])
    repository.update_labels()
    announce_use(repository.path, "boot", ["old"])
    (repository.path / "policy.toml").write_text(_NOTHING_STAYS)
    repository.remove("old")

    for _ in range(2):
        (repository.path / "boot" / "labels.json").unlink()
        state = repository.update_labels()
        assert set(_published(repository)) == {"compute", commits[2][:12], commits[0][:12]}
        assert state.kept[commits[0]].why == "in use: label old of a machine"
    repository.create_branch("old", commits[0])
    assert _published(repository)["old"]["commit"] == commits[0]
    repository.remove("old")
    announce_use(repository.path, "boot", [])
    repository.update_labels()
    assert set(_published(repository)) == {"compute", commits[2][:12]}
    assert not (repository.path / "boot" / "artifacts" / commits[0]).exists()


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "{}", '{"labels": []}', '{"labels": {"compute": 1}}', '{"labels": {"x": {"kind": 1, "commit": 2}}}',
     "[" * 100_000],
)  # fmt: skip
def test_a_damaged_labels_json_is_written_again_and_what_machines_boot_by_stays(
    repository: Repository, tmp_path: Path, damaged: str
) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    announce_use(repository.path, "boot", [commits[0][:12], "compute"])
    (repository.path / "policy.toml").write_text(_NOTHING_STAYS)
    before = repository.update_labels().labels
    path = repository.path / "boot" / "labels.json"

    path.write_text(damaged)
    with pytest.raises(CorruptError, match=r"labels\.json"):
        repository.labels()
    assert not repository.is_labelled(commits[2])
    assert any("koguma image labels writes it again" in problem for problem in fsck(repository).problems)
    assert repository.update_labels().labels == before
    assert not fsck(repository).problems

    (tmp_path / "tree" / "etc" / "motd").write_text("changed\n")
    path.write_text(damaged)
    repository.commit_tree(tmp_path / "tree", "compute", "m")
    assert _published(repository)["compute"]["commit"] == commits[2]  # until the new one's artifact is there


@pytest.mark.parametrize("damaged", ["", "[]", '{"x": 1}', '{"%s": {"since": "now"}}' % ("0" * 64)])
def test_a_damaged_expired_json_is_written_again(repository: Repository, tmp_path: Path, damaged: str) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.update_labels()
    (repository.path / "policy.toml").write_text("[labels]\nkeep_commits_per_branch = 0\nkeep_days = 0\n")
    expired = repository.path / "boot" / "expired.json"
    expired.write_text(damaged)
    repository.update_labels()

    assert json.loads(expired.read_bytes()).keys() == set(commits[:2])


def test_a_commit_that_no_ref_leads_to_gets_its_label_back_by_a_pin(repository: Repository, tmp_path: Path) -> None:
    commits = _three_commits(repository, tmp_path)
    repository.move_branch("compute", "compute~2")
    repository.pin_label(commits[2])
    state = repository.update_labels()

    assert set(_published(repository)) == {"compute", commits[0][:12], commits[2][:12]}
    assert state.kept[commits[2]].why == "pinned"
    (repository.path / "pins" / ("0" * 64)).write_text("gone\n")
    state = repository.update_labels()
    assert [item.commit for item in state.unlabelled] == ["0" * 64]
    assert "0" * 64 in state.unlabelled[0].reason


def test_what_went_for_want_of_space_has_its_label_again_when_there_is_more(
    repository: Repository, tmp_path: Path
) -> None:
    commits = _three_commits(repository, tmp_path)
    everything = {"compute", *(commit[:12] for commit in commits)}
    policy = repository.path / "policy.toml"
    for budget in ("", "budget_mib = 1"):
        policy.write_text("[labels]\nbudget_mib = 0\ngrace_minutes = 0\n")
        repository.update_labels()
        repository.update_labels()
        assert set(_published(repository)) == {"compute", commits[2][:12]}
        policy.write_text(f"[labels]\n{budget}\n")
        state = repository.update_labels()
        assert set(_published(repository)) == everything
        assert not state.unlabelled


def test_a_repository_with_labels_turned_off_makes_nothing_bootable(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "policy.toml").write_text("[labels]\nenabled = false\n")
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "compute", "m").commit
    state = repository.update_labels()

    assert state.labels == ()
    assert [(item.commit, item.reason) for item in state.unlabelled] == [
        (commit.id, "labels are turned off ([labels] enabled in policy.toml)")
    ]


def test_an_image_that_lacks_an_acl_is_not_said_to_be_whole(repository: Repository, tmp_path: Path) -> None:
    plain = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "main", "without").commit
    os.setxattr(tmp_path / "tree" / "etc" / "motd", "system.posix_acl_access", ACL)
    with_acl = repository.commit_tree(tmp_path / "tree", "main", "with an ACL").commit
    repository.update_labels()

    assert has_whole_image(repository.path, plain.tree)
    assert repository.root_image(with_acl.tree)
    assert not has_whole_image(repository.path, with_acl.tree)


def test_a_kept_image_that_was_damaged_on_the_disk_is_made_anew(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    one = repository.commit_tree(tree, "one", "first").commit
    repository.update_labels()
    image = repository.path / "boot" / "artifacts" / one.id / "root.squashfs"
    good = image.read_bytes()
    damaged = bytearray(good)
    damaged[200] ^= 1
    image.write_bytes(damaged)
    two = repository.commit_tree(tree, "two", "another message").commit
    repository.update_labels()

    assert (repository.path / "boot" / "artifacts" / two.id / "root.squashfs").read_bytes() == good


@pytest.mark.parametrize("damage", ["root.squashfs", "manifest.json", "manifest.sig", None])
def test_without_the_cache_an_artifacts_root_image_is_used_again_only_if_its_manifest_says_it_is_whole(
    repository: Repository, tmp_path: Path, damage: str | None
) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    one = repository.commit_tree(tree, "one", "first").commit
    repository.update_labels()
    folder = repository.path / "boot" / "artifacts" / one.id
    good = (folder / "root.squashfs").read_bytes()
    if damage:
        content = bytearray((folder / damage).read_bytes())
        content[-20] ^= 1
        (folder / damage).write_bytes(content)
    shutil.rmtree(repository.path / "cache")
    two = repository.commit_tree(tree, "two", "another message").commit
    repository.update_labels()

    made = repository.path / "boot" / "artifacts" / two.id
    assert (made / "root.squashfs").read_bytes() == good
    manifest = Manifest.from_bytes((made / "manifest.json").read_bytes())
    assert manifest.files["root"].sha256 == sha256(good).hexdigest()
    assert (made / "root.squashfs").samefile(folder / "root.squashfs") == (damage is None)


def test_labels_made_by_two_processes_at_once_are_all_there(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path)]
    processes = []
    for number in range(4):
        (tree / "etc" / "motd").write_text(f"{number}\n")
        repository.commit_tree(tree, f"branch-{number}", f"{number}")
        processes.append(subprocess.Popen([*command, "labels"], stdout=subprocess.DEVNULL))
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]

    assert {name for name in _published(repository) if name.startswith("branch-")} == {
        f"branch-{number}" for number in range(4)
    }
    leftovers = [path for path in (repository.path / "boot" / "artifacts").iterdir() if path.name.startswith(".")]
    assert leftovers == []


def _three_commits(repository: Repository, tmp_path: Path) -> list[str]:
    """On `compute`, oldest first."""
    tree = make_bootable_tree(tmp_path / "tree")
    commits = []
    for number in range(3):
        (tree / "etc" / "motd").write_text(f"{number}\n")
        let_age()
        commits.append(repository.commit_tree(tree, "compute", f"{number}").commit.id)
    return commits


def _version(repository: Repository, tree: Path) -> str:
    commit = repository.commit_tree(tree, "main", "m").commit
    return find_boot_files(repository.objects.read, repository.root(commit)).version


def test_the_newest_kernel_is_booted_by_debians_order_of_versions(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree", version="6.1.0-9-amd64")
    make_bootable_tree(tree, version="6.1.0-10-amd64")

    assert _version(repository, tree) == "6.1.0-10-amd64"


def test_debians_link_decides_which_kernel_is_booted(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree", version="6.1.0-9-amd64")
    make_bootable_tree(tree, version="6.1.0-10-amd64")
    (tree / "vmlinuz").symlink_to("boot/vmlinuz-6.1.0-9-amd64")

    assert _version(repository, tree) == "6.1.0-9-amd64"


def test_a_kernel_without_its_initramfs_is_passed_over(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree", version="6.1.0-9-amd64")
    make_tree(tree, {"boot/vmlinuz-6.2.0-1-amd64": "kernel"})

    assert _version(repository, tree) == "6.1.0-9-amd64"
    (tree / "boot/initrd.img-6.1.0-9-amd64").unlink()
    with pytest.raises(NotBootableError, match=r"there is no /boot/initrd\.img-6\.2\.0-1-amd64"):
        _version(repository, tree)


def test_a_signature_by_a_key_nobody_trusts_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path / "ours")
    create_keys(tmp_path / "theirs")
    signature = sign(b"manifest", load_signing_key(tmp_path / "theirs"))

    with pytest.raises(ManifestError, match="signed by a trusted key"):
        verify(b"manifest", signature, trusted_keys(tmp_path / "ours"))


def test_a_signature_of_other_bytes_is_refused(tmp_path: Path) -> None:
    identity = create_keys(tmp_path / "keys")
    signature = sign(b"manifest", load_signing_key(tmp_path / "keys"))
    trusted = trusted_keys(tmp_path / "keys")

    assert verify(b"manifest", signature, trusted) == identity
    assert signature.startswith(identity.encode() + b" ")
    with pytest.raises(ManifestError, match="must match its signature"):
        verify(b"manifesto", signature, trusted)
    with pytest.raises(ManifestError, match="must match its signature"):
        verify(b"manifest", identity.encode() + b" !!!\n", trusted)


def test_a_trusted_key_must_be_in_the_file_its_id_names(tmp_path: Path) -> None:
    identity = create_keys(tmp_path / "keys")
    (tmp_path / "keys" / "trusted" / f"{identity}.pem").rename(tmp_path / "keys" / "trusted" / "0000000000000000.pem")

    with pytest.raises(ManifestError, match="named by its id"):
        trusted_keys(tmp_path / "keys")
