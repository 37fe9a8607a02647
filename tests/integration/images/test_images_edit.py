"""Edits of a small root, with real mounts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koguma.images.edit import POLICY, commit_edit, discard, edit, pending_edits
from koguma.images.errors import EditError
from koguma.images.repository import Repository

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


def test_a_session_leaves_no_mount_and_no_loop_device_even_when_it_is_killed(repository: Repository) -> None:
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "edit", "compute", "--"]
    process = subprocess.Popen([*command, "sh", "-c", "echo kept > /etc/kept; sleep 60"], start_new_session=True)
    kept = repository.path / "edit" / "compute" / "upper" / "etc" / "kept"
    deadline = time.monotonic() + 20
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(EditError, match="open in another process"):
        edit(repository, "compute", ["sh", "-c", "true"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)

    deadline = time.monotonic() + 10
    while str(repository.path) in _loops() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert str(repository.path) not in Path("/proc/mounts").read_text() + _loops()
    commit_edit(repository, "compute", "what was done before the kill")
    assert _changes(repository) == {"etc/kept": "added"}


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


def test_hard_links_survive_an_edit_that_removes_one_of_their_names(repository: Repository, tmp_path: Path) -> None:
    edit(repository, "compute", ["sh", "-c", "cd /etc; ln motd hard1; ln motd hard2; ln motd hard3"])
    commit_edit(repository, "compute", "linked")
    edit(repository, "compute", ["rm", "/etc/hard1"])
    commit = commit_edit(repository, "compute", "one less").commit

    repository.checkout("compute", tmp_path / "out")

    assert (tmp_path / "out/etc/hard2").stat().st_nlink == 3
    assert Repository.init(tmp_path / "fresh").commit_tree(tmp_path / "out", "main", "m").commit.tree == commit.tree
