"""Conflicts: left in the pending edit of the branch, settled there, committed with two parents; with real mounts."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.edit import commit_edit, discard, edit
from koguma.images.errors import EditError
from koguma.images.fsck import fsck
from koguma.images.merge import Outcome, Result, merge
from koguma.images.merging import Problem
from koguma.images.replay import abort, cherry_pick, go_on, revert
from koguma.images.repository import Repository
from koguma.images.resolving import open_conflicts, resolve
from koguma.images.sessions import pending_edits
from koguma.images.status import status
from koguma.images.trees import lookup
from tests.unit.images.making import make_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="an edit needs root for its mounts")]
Commit = Callable[[str, str], str]


@pytest.fixture
def repository(tmp_path: Path, small_root: Path) -> Repository:
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(small_root, "main", "start")
    repository.create_branch("other", "main")
    return repository


@pytest.fixture
def commit(repository: Repository) -> Commit:
    """Commits what a shell script does to a branch."""

    def run(branch: str, script: str) -> str:
        assert edit(repository, branch, ["sh", "-ec", script]) == 0
        return commit_edit(repository, branch, f"on {branch}: {script}"[:60]).commit.id

    return run


def _content(repository: Repository, path: str, revision: str = "main") -> bytes | None:
    entry = lookup(repository.objects.read, repository.root(repository.resolve(revision)), path.encode())
    return None if entry is None else repository.objects.read(entry.digest) if entry.size else b""


def _problems(outcome: Outcome) -> dict[str, str]:
    return {item.path.decode(): item.problem.value for item in outcome.conflicts}


def test_a_text_conflict_is_settled_by_removing_its_markers_and_the_commit_has_two_parents(
    repository: Repository, commit: Commit
) -> None:
    theirs = commit("other", "echo theirs > /etc/motd; echo new > /etc/theirs; rm /opt/d/a")
    ours = commit("main", "echo ours > /etc/motd; chmod 600 /etc/old")

    outcome = merge(repository, "other", "main")

    assert (outcome.result, _problems(outcome)) == (Result.CONFLICTS, {"etc/motd": "text"})
    assert repository.resolve("main").id == ours
    with pytest.raises(EditError, match="1 are open"):
        commit_edit(repository, "main")
    script = "cat /etc/motd; test ! -e /opt/d/a; test -e /etc/theirs"
    assert edit(repository, "main", ["sh", "-ec", script]) == 0
    upper = repository.path / "edit" / "main" / "upper"
    assert (upper / "etc/motd").read_text() == "<<<<<<< ours (main)\nours\n=======\ntheirs\n>>>>>>> theirs (other)\n"

    assert edit(repository, "main", ["sh", "-ec", "echo both > /etc/motd"]) == 0
    done = commit_edit(repository, "main").commit

    assert (done.parents, done.message) == ((ours, theirs), "Merge branch 'other' into main")
    assert _content(repository, "etc/motd") == b"both\n"
    assert _content(repository, "etc/theirs") == b"new\n"
    assert _content(repository, "opt/d/a") is None
    assert pending_edits(repository) == []
    assert fsck(repository).problems == ()


def test_a_session_changes_nothing_but_what_differs_and_a_merge_keeps_what_only_one_side_did(
    repository: Repository, commit: Commit
) -> None:
    """What the edit's layer says and what the trees say is the same tree, with links, devices and directories."""
    commit(
        "other",
        "cd /opt; mkdir -m 2750 new; echo x > new/a; ln new/a new/b; mkdir odd; rm -r d; echo file > d; rm /etc/old;"
        " mkdir /etc/old; echo y > /etc/old/y; echo theirs > /etc/motd; chmod 711 /opt",
    )
    commit("main", "echo ours > /etc/motd; ln -s motd /etc/link")

    merge(repository, "other", "main")
    resolve(repository, "main", [b"/etc/motd"], take="theirs")
    commit_edit(repository, "main")

    assert [(item.path, item.change) for item in repository.diff("other", "main").files] == [(b"etc/link", "added")]


def test_conflicts_of_every_kind_are_settled_by_taking_a_side(repository: Repository, commit: Commit) -> None:
    commit("other", "cd /etc; echo theirs > motd; rm old; rm -r /opt/d; echo t > /opt/d; chmod 640 /usr/bin/id")
    commit("main", "cd /etc; echo ours > motd; echo ours > old; echo ours > /opt/d/a; chmod 600 /usr/bin/id")

    outcome = merge(repository, "other", "main")

    assert _problems(outcome) == {"etc/motd": "text", "etc/old": "removed", "opt/d": "type", "usr/bin/id": "mode"}
    resolve(repository, "main", [b"/etc"], take="theirs")
    resolve(repository, "main", [b"opt/d"], take="theirs")
    assert [item.path for item in open_conflicts(repository, "main")] == [b"usr/bin/id"]
    resolve(repository, "main", [b"/usr/bin/id"])
    commit_edit(repository, "main")

    assert _content(repository, "etc/motd") == b"theirs\n"
    assert _content(repository, "etc/old") is None
    assert _content(repository, "opt/d") == b"t\n"
    changed = {item.path: item.aspects for item in repository.diff("other", "main").files}
    assert changed == {b"usr/bin/id": ("mode",)}


def test_a_side_that_removed_a_directory_can_be_taken_and_the_base_too(repository: Repository, commit: Commit) -> None:
    commit("other", "rm -r /opt/d; echo theirs > /etc/motd")
    commit("main", "echo ours > /opt/d/a; echo ours > /etc/motd")

    outcome = merge(repository, "other", "main")

    assert _problems(outcome) == {"etc/motd": "text", "opt/d/a": "removed"}
    resolve(repository, "main", [b"opt/d"], take="theirs")
    resolve(repository, "main", [b"etc/motd"], take="base")
    commit_edit(repository, "main")
    assert _content(repository, "opt/d/a") is None
    assert _content(repository, "etc/motd") == b"hello\n"


def test_what_has_no_conflict_or_still_has_markers_is_not_settled_by_saying_so(
    repository: Repository, commit: Commit
) -> None:
    with pytest.raises(EditError, match="nothing to resolve"):
        resolve(repository, "main", [b"etc/motd"])
    commit("other", "echo theirs > /etc/motd")
    commit("main", "echo ours > /etc/motd")
    merge(repository, "other", "main")

    with pytest.raises(EditError, match="must have an open conflict"):
        resolve(repository, "main", [b"etc/old"])
    with pytest.raises(EditError, match="still has conflict markers"):
        resolve(repository, "main", [b"etc/motd"])
    resolve(repository, "main", [b"etc/motd"], force=True)
    assert commit_edit(repository, "main").created


def test_a_merge_that_is_given_up_leaves_the_branch_as_it_was(repository: Repository, commit: Commit) -> None:
    commit("other", "echo theirs > /etc/motd")
    ours = commit("main", "echo ours > /etc/motd")
    merge(repository, "other", "main")

    with pytest.raises(EditError, match="must have nothing pending"):
        merge(repository, "other", "main")
    discard(repository, "main")

    assert repository.resolve("main").id == ours
    assert edit(repository, "main", ["sh", "-c", 'test "$(cat /etc/motd)" = ours; test ! -e /etc/theirs']) == 0


def test_a_pending_edit_is_not_run_over_by_a_merge(repository: Repository, commit: Commit) -> None:
    commit("other", "echo theirs > /etc/motd")
    edit(repository, "main", ["touch", "/etc/mine"])

    with pytest.raises(EditError, match="must have nothing pending, there is an edit"):
        merge(repository, "other", "main")

    assert (repository.path / "edit" / "main" / "upper" / "etc" / "mine").exists()


def test_a_result_that_is_not_committed_waits_in_the_edit(repository: Repository, commit: Commit) -> None:
    theirs = commit("other", "echo theirs > /etc/motd")
    ours = commit("main", "echo ours > /etc/old")

    assert merge(repository, "other", "main", commit=False).result is Result.PREPARED
    edit(repository, "main", ["touch", "/etc/more"])
    done = commit_edit(repository, "main", "with more").commit

    assert (done.parents, done.message) == ((ours, theirs), "with more")
    assert (_content(repository, "etc/motd"), _content(repository, "etc/more")) == (b"theirs\n", b"")


def test_stale_files_are_made_again_in_the_image_and_stay_a_conflict_where_that_fails(
    repository: Repository, commit: Commit
) -> None:
    commit("other", "echo theirs > /etc/ld.so.cache; echo theirs > /etc/theirs")
    ours = commit("main", "echo ours > /etc/ld.so.cache")

    outcome = merge(repository, "other", "main")  # this root has no ldconfig

    assert [(item.problem, item.command) for item in outcome.conflicts] == [(Problem.STALE, "ldconfig")]
    discard(repository, "main")
    commit("main", "echo 'echo made from both > /etc/ld.so.cache' > /usr/sbin/ldconfig; chmod 755 /usr/sbin/ldconfig")
    outcome = merge(repository, "other", "main")

    assert outcome.result is Result.COMMITTED
    assert _content(repository, "etc/ld.so.cache") == b"made from both\n"
    assert ours not in outcome.commit.parents
    assert outcome.commit.parents[1] == repository.resolve("other").id


def test_status_tells_of_changes_by_file_and_of_conflicts(repository: Repository, commit: Commit) -> None:
    commit("other", "echo theirs > /etc/motd; echo t > /etc/theirs")
    commit("main", "echo ours > /etc/motd")
    packs = sorted(path.name for path in (repository.path / "packs").iterdir())
    assert status(repository, "main").session is None

    edit(repository, "other", ["touch", "/etc/unrelated"])
    merge(repository, "other", "main")
    found = status(repository, "main")

    assert found.changes is not None
    assert [(item.path, item.change) for item in found.changes.files] == [
        (b"etc/motd", "changed"),
        (b"etc/theirs", "added"),
    ]
    assert [item.path for item in found.open_conflicts] == [b"etc/motd"]
    assert found.session is not None
    assert found.session.operation is not None
    assert (found.session.operation.kind, found.others, found.is_open, found.moved) == (
        "merge",
        ("other",),
        False,
        False,
    )
    resolve(repository, "main", [b"etc/motd"], take="ours")
    found = status(repository, "main")
    assert (found.open_conflicts, [item.path for item in found.settled_conflicts]) == ((), [b"etc/motd"])
    stored = sorted(path.name for path in (repository.path / "packs").iterdir())
    status(repository, "main")
    assert sorted(path.name for path in (repository.path / "packs").iterdir()) == stored != packs


def test_status_names_packages_that_the_edit_installed(repository: Repository, commit: Commit) -> None:
    stanza = "Package: a\\nStatus: install ok installed\\nArchitecture: all\\nVersion: 1\\n"
    edit(repository, "main", ["sh", "-ec", f"mkdir -p /var/lib/dpkg; echo '{stanza}' > /var/lib/dpkg/status"])

    found = status(repository, "main")

    assert found.changes is not None
    assert [(item.name, item.change) for item in found.changes.packages] == [("a", "installed")]


def test_a_row_of_picks_stops_at_a_conflict_and_goes_on_when_it_is_settled(
    repository: Repository, commit: Commit
) -> None:
    for script in ("echo 1 > /etc/one", "echo theirs > /etc/motd", "echo 3 > /etc/three"):
        commit("other", script)
    ours = commit("main", "echo ours > /etc/motd")

    outcomes = cherry_pick(repository, ["main~1..other"], "main")

    assert [item.result for item in outcomes] == [Result.COMMITTED, Result.CONFLICTS]
    resolve(repository, "main", [b"/etc/motd"], take="theirs")
    rest = go_on(repository, "cherry-pick", "main")
    assert [item.result for item in rest] == [Result.COMMITTED, Result.COMMITTED]
    assert [item.subject[:8] for item in repository.log("main")][:3] == ["on other"] * 3
    assert repository.resolve("main~3").id == ours
    assert [_content(repository, path) for path in ("etc/one", "etc/motd", "etc/three")] == [
        b"1\n",
        b"theirs\n",
        b"3\n",
    ]


def test_a_row_of_picks_can_leave_one_out_or_be_given_up_as_a_whole(repository: Repository, commit: Commit) -> None:
    for script in ("echo 1 > /etc/one", "echo theirs > /etc/motd", "echo 3 > /etc/three"):
        commit("other", script)
    ours = commit("main", "echo ours > /etc/motd")
    cherry_pick(repository, ["main~1..other"], "main")

    assert abort(repository, "cherry-pick", "main").id == repository.resolve("main").id == ours
    assert pending_edits(repository) == []

    cherry_pick(repository, ["main~1..other"], "main")
    assert [item.result for item in go_on(repository, "cherry-pick", "main", skip=True)] == [Result.COMMITTED]
    assert [_content(repository, path) for path in ("etc/one", "etc/motd", "etc/three")] == [b"1\n", b"ours\n", b"3\n"]


def test_a_revert_that_conflicts_is_settled_like_a_merge(repository: Repository, commit: Commit) -> None:
    bad = commit("main", "echo bad > /etc/motd")
    commit("main", "echo later > /etc/motd")

    (outcome,) = revert(repository, [bad], "main")

    assert _problems(outcome) == {"etc/motd": "text"}
    resolve(repository, "main", [b"etc/motd"], take="theirs")
    done = commit_edit(repository, "main").commit
    assert _content(repository, "etc/motd") == b"hello\n"
    assert len(done.parents) == 1
    assert done.subject.startswith("Revert ")


def test_kept_times_stay_when_a_merge_goes_through_an_edit(
    repository: Repository, tmp_path: Path, small_root: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(small_root, tree, symlinks=True)
    repository.commit_tree(tree, "timed", "m", keep_times=True)
    repository.create_branch("other-timed", "timed")
    for branch, content in (("timed", "ours\n"), ("other-timed", "theirs\n")):
        make_tree(tree, {"etc/motd": content, f"etc/{branch}": "x"})
        os.utime(tree / f"etc/{branch}", ns=(0, 1_234_567_890_123_456_789))
        repository.commit_tree(tree, branch, "m", keep_times=True)
        (tree / f"etc/{branch}").unlink()

    merge(repository, "other-timed", "timed")
    resolve(repository, "timed", [b"etc/motd"], take="ours")
    commit_edit(repository, "timed")

    root = repository.root(repository.resolve("timed"))
    for name in (b"etc/timed", b"etc/other-timed"):
        entry = lookup(repository.objects.read, root, name)
        assert entry is not None
        assert entry.mtime_ns == 1_234_567_890_123_456_789


def test_the_command_line_lists_conflicts_and_ends_with_1(repository: Repository, commit: Commit) -> None:
    commit("other", "echo theirs > /etc/motd")
    commit("main", "echo ours > /etc/motd")

    failed = _image(repository, "merge", "other", "-b", "main", status=1)

    assert failed.stdout == "text     /etc/motd: ours changed lines; theirs changed lines\n"
    assert "koguma image resolved -b main" in failed.stderr
    shown = _image(repository, "status", "-b", "main").stdout
    assert "pending merge of other" in shown
    assert "text     /etc/motd" in shown
    document = json.loads(_image(repository, "status", "-b", "main", "--json").stdout)
    assert [(item["path"], item["problem"]) for item in document["conflicts"]] == [("/etc/motd", "text")]
    _image(repository, "resolved", "-b", "main", "--theirs", "/etc/motd")
    done = _image(repository, "merge", "--continue", "-b", "main")
    assert done.stdout.split()[-1] == Repository.open(repository.path).resolve("main").id
    assert "up to date" in _image(repository, "merge", "other", "-b", "main").stderr
    assert _image(repository, "switch", "other").stdout.startswith("on branch other at ")
    assert json.loads(_image(repository, "status", "--json").stdout)["branch"] == "other"
    assert "no merge is pending" in _image(repository, "merge", "--abort", status=1).stderr
    assert "say what to merge" in _image(repository, "merge", status=2).stderr


def _image(repository: Repository, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_merge_killed_at_any_moment_has_begun_or_has_not(repository: Repository, commit: Commit) -> None:
    """Whatever is left, the branch is where it was, and the session is whole or none at all."""
    files = (
        "for n in 0 1 2 3 4 5 6 7 8 9; do mkdir -p /opt/$n;"
        " for m in 0 1 2 3 4 5 6 7 8 9; do echo $n > /opt/$n/$m; done; done"
    )
    commit("other", f"echo theirs > /etc/motd; {files}")
    head = commit("main", "echo ours > /etc/motd")
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "merge", "other", "-b", "main"]
    started = time.monotonic()
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 1
    usual_s = time.monotonic() - started
    discard(repository, "main")
    chance, begun = random.Random(7), set()

    for attempt in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if attempt < 11:  # the last one is left alone
            time.sleep(usual_s * (0.1 + attempt / 12 + chance.uniform(-0.05, 0.05)))
            process.kill()
        process.wait(30)

        with Repository.open(repository.path) as after:
            found = status(after, "main")
            assert after.resolve("main").id == head
            begun.add(found.session is not None)
            if found.session is not None:
                assert found.changes is not None
                assert {item.change for item in found.changes.files} == {"added", "changed"}
                assert len(found.changes.files) == 111
                assert [item.path for item in found.open_conflicts] == [b"etc/motd"]
                discard(after, "main")
            assert fsck(after).problems == ()

    assert begun == {True, False}, "the kills must hit before and after the beginning, or the test tests nothing"
    assert merge(repository, "other", "main").result is Result.CONFLICTS
    resolve(repository, "main", [b"etc/motd"], take="ours")
    assert commit_edit(repository, "main").commit.parents[0] == head
