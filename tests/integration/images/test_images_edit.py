"""Edits of a small root, with real mounts."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koguma.images.aid import POLICY
from koguma.images.edit import commit_edit, discard, edit, pending_edits
from koguma.images.errors import EditError
from koguma.images.repository import Repository
from koguma.images.sessions import Session, alone, begin, lock_held, read_session
from koguma.images.status import status
from tests.unit.images.making import make_bootable_tree
from tests.unit.images.test_images_overlay import ACL

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="an edit needs root for its mounts")]


@pytest.fixture
def repository(tmp_path: Path, small_root: Path) -> Repository:
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(small_root, "compute", "start")
    return repository


def _changes(repository: Repository) -> dict[str, str]:
    return {file.path.decode(): file.change for file in repository.diff("compute~1", "compute").files}


def test_what_an_edit_changes_is_what_its_commit_changes(repository: Repository) -> None:
    script = (
        "echo new > /etc/new; mv /etc/new /etc/newer; rm /etc/old; chmod 600 /etc/motd;"
        " rm -r /opt/d; mkdir /opt/d; touch /opt/d/c"
    )
    assert edit(repository, "compute", ["sh", "-c", script]) == 0
    assert pending_edits(repository) == ["compute"]

    done = commit_edit(repository, "compute", "changed")

    assert done.created
    assert _changes(repository) == {
        "etc/motd": "changed",
        "etc/newer": "added",
        "etc/old": "removed",
        "opt/d/a": "removed",
        "opt/d/b": "removed",
        "opt/d/c": "added",
    }
    assert pending_edits(repository) == []


def test_an_edit_goes_on_where_it_was_left_and_tells_the_commands_status(repository: Repository) -> None:
    assert edit(repository, "compute", ["sh", "-c", "echo one > /etc/one; exit 7"]) == 7
    assert edit(repository, "compute", ["cat", "/etc/one"]) == 0

    commit_edit(repository, "compute", "one")
    assert _changes(repository) == {"etc/one": "added"}


def test_the_helps_of_a_session_are_there_and_never_part_of_the_commit(repository: Repository, tmp_path: Path) -> None:
    script = (
        "set -e; cat /etc/resolv.conf >/dev/null; cat /usr/sbin/policy-rc.d; test -c /dev/null;"
        "test -r /proc/self/status; echo > /dev/null; touch /tmp/x /run/y;"
        'test "$(stat -c %a /tmp)" = 1777; ! touch /sys/x 2>/dev/null'
    )
    assert edit(repository, "compute", ["sh", "-c", script]) == 0
    upper = repository.path / "edit" / "compute" / "upper"
    assert [path for path in upper.rglob("*") if not path.is_dir()] == []
    policy = repository.path / "edit" / "compute" / "aid" / "usr" / "sbin" / "policy-rc.d"
    assert policy.read_bytes() == POLICY
    assert subprocess.run([policy], check=False).returncode == 101

    assert not commit_edit(repository, "compute", "nothing").created


def test_helps_that_a_command_copied_to_the_changes_are_no_change(repository: Repository) -> None:
    # An owner that is said again is copied up all the same.
    assert edit(repository, "compute", ["chown", "-R", "0:0", "/etc", "/usr/sbin"]) == 0
    upper = repository.path / "edit" / "compute" / "upper"
    assert (upper / "etc/resolv.conf").exists()
    assert (upper / "usr/sbin/policy-rc.d").exists()
    found = status(repository, "compute").changes
    assert found is not None
    assert found.files == ()
    # What the next session is given lies over no copy of what the last one was.
    assert edit(repository, "compute", ["cat", "/etc/resolv.conf"]) == 0
    assert not (upper / "etc/resolv.conf").exists()
    edit(repository, "compute", ["chown", "-R", "0:0", "/etc", "/usr/sbin"])

    assert not commit_edit(repository, "compute", "m").created


@pytest.mark.parametrize("script", ["echo nameserver 192.0.2.77 > {0}", "cat {0} > /etc/x; rm {0}; mv /etc/x {0}"])
def test_name_servers_that_an_edit_means_are_committed(repository: Repository, script: str) -> None:
    """Other ones, and a file of its own with those of the session."""
    assert edit(repository, "compute", ["sh", "-c", script.format("/etc/resolv.conf")]) == 0

    commit_edit(repository, "compute", "m")

    assert _changes(repository) == {"etc/resolv.conf": "added"}


def _start(repository: Repository, script: str) -> subprocess.Popen[bytes]:
    """An edit in a process group of its own, when its script has made /etc/kept."""
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "edit", "compute", "--"]
    process = subprocess.Popen([*command, "sh", "-c", script], start_new_session=True)
    kept = repository.path / "edit" / "compute" / "upper" / "etc" / "kept"
    deadline = time.monotonic() + 20
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def _commit_when_left(repository: Repository) -> None:
    deadline = time.monotonic() + 20
    while (found := status(repository, "compute")).is_open:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.session is not None
    commit_edit(repository, "compute", "what was done before the kill")


def test_a_session_leaves_no_mount_and_no_loop_device_even_when_it_is_killed(repository: Repository) -> None:
    process = _start(repository, "echo kept > /etc/kept; sleep 60")
    with pytest.raises(EditError, match="open in another process"):
        edit(repository, "compute", ["sh", "-c", "true"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)

    deadline = time.monotonic() + 10
    while str(repository.path) in _loops() and time.monotonic() < deadline:
        time.sleep(0.05)
    _commit_when_left(repository)
    assert str(repository.path) not in Path("/proc/mounts").read_text() + _loops()
    assert _changes(repository) == {"etc/kept": "added"}


def test_a_session_ends_with_who_opened_it_and_holds_the_edit_until_then(
    repository: Repository, tmp_path: Path
) -> None:
    process = _start(repository, "echo kept > /etc/kept; while :; do echo more >> /etc/kept; done")
    process.kill()
    process.wait(10)

    _commit_when_left(repository)

    repository.checkout("compute", tmp_path / "out")
    kept = (tmp_path / "out" / "etc" / "kept").read_text()
    assert kept.startswith("kept\nmore\n")
    assert not (repository.path / "edit" / "compute").exists()
    assert _sessions(repository) == []


def test_the_edit_is_held_while_a_process_of_its_session_is_left(repository: Repository) -> None:
    """Whoever opened it and what the kernel kills with that may be gone: the mounts are those processes'."""
    session = begin(repository, "compute", Session(repository.resolve("compute").id))
    with alone(repository, "compute"):
        process = subprocess.Popen(["sleep", "60"], pass_fds=[lock_held(repository, "compute")])
    try:
        with pytest.raises(EditError, match="open in another process"):
            discard(repository, "compute")
        assert read_session(repository, "compute") == session
    finally:
        process.kill()
        process.wait(10)
    discard(repository, "compute")


def _sessions(repository: Repository) -> list[str]:
    """The command lines of what still runs in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
            if "koguma-edit" in line and path.with_name("cwd").readlink().is_relative_to(repository.path):
                found.append(line)
        except OSError:
            continue
    return found


def _loops() -> str:
    return subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout


def test_an_edit_over_a_head_that_moved_is_not_committed(repository: Repository, tmp_path: Path) -> None:
    edit(repository, "compute", ["touch", "/etc/mine"])
    repository.checkout("compute", tmp_path / "other")
    (tmp_path / "other" / "etc" / "theirs").touch()
    theirs = repository.commit_tree(tmp_path / "other", "compute", "meanwhile").commit

    with pytest.raises(EditError, match="--discard"):
        commit_edit(repository, "compute", "mine")

    assert repository.resolve("compute").id == theirs.id
    discard(repository, "compute")
    assert edit(repository, "compute", ["cat", "/etc/theirs"]) == 0


def test_a_commit_of_an_edit_that_was_killed_before_clearing_up_is_not_made_twice(repository: Repository) -> None:
    edit(repository, "compute", ["touch", "/etc/mine"])
    folder = repository.path / "edit" / "compute"
    saved = folder.with_name("saved")
    shutil.copytree(folder, saved, symlinks=True)
    done = commit_edit(repository, "compute", "mine")
    session = (saved / "session.json").read_text().replace("null", f'"{done.commit.id}"')
    saved.rename(folder)
    (folder / "session.json").write_text(session)

    with pytest.raises(EditError, match="no pending edit"):
        commit_edit(repository, "compute", "again")
    assert not folder.exists()


def test_a_new_mode_keeps_an_acl_over_a_root_image_too(
    repository: Repository, small_root: Path, tmp_path: Path
) -> None:
    root = make_bootable_tree(tmp_path / "root")
    shutil.copytree(small_root, root, symlinks=True, dirs_exist_ok=True)
    os.setxattr(root / "etc" / "motd", "system.posix_acl_access", ACL)
    commit = repository.commit_tree(root, "compute", "with an image").commit
    repository.update_labels()
    assert repository.root_image(commit.tree) is not None

    edit(repository, "compute", ["chmod", "660", "/etc/motd"])
    commit_edit(repository, "compute", "m")

    repository.checkout("compute", tmp_path / "out")
    # The group's bits are now those of the mask; the user it names is still there.
    assert (tmp_path / "out/etc/motd").stat().st_mode & 0o777 == 0o660
    mask, user = struct.pack("<HH", 16, 6), struct.pack("<HHI", 2, 4, 1234)
    found = os.getxattr(tmp_path / "out/etc/motd", "system.posix_acl_access")
    assert mask in found
    assert user in found


def test_hard_links_survive_an_edit_that_removes_one_of_their_names(repository: Repository, tmp_path: Path) -> None:
    edit(repository, "compute", ["sh", "-c", "cd /etc; ln motd hard1; ln motd hard2; ln motd hard3"])
    commit_edit(repository, "compute", "linked")
    edit(repository, "compute", ["rm", "/etc/hard1"])
    commit = commit_edit(repository, "compute", "one less").commit

    repository.checkout("compute", tmp_path / "out")

    assert (tmp_path / "out/etc/hard2").stat().st_nlink == 3
    assert Repository.init(tmp_path / "fresh").commit_tree(tmp_path / "out", "main", "m").commit.tree == commit.tree
