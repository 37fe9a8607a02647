"""kill -9 at random moments of commits, gc, ref and label updates, on a full disk, too: what is left is the old state
or the new one, and the next command makes everything right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koguma.images.fsck import fsck
from koguma.images.repository import Repository
from tests.integration.images.crashing import Crashes
from tests.unit.images.making import make_bootable_tree

pytestmark = pytest.mark.slow
KILLS = 12
KILLS_MAX = 60


def _koguma(repository: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def _grow(tree: Path, generation: int, chance: random.Random, repeated: int) -> None:
    for number in range(60):
        folder = tree / f"usr/share/d{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        content = chance.randbytes(chance.choice([10, 5_000, 400_000])) * repeated
        (folder / f"f{generation}-{number}").write_bytes(content)


@pytest.mark.parametrize("repeated", [1, 6], ids=["stored by threads", "stored by processes"])
def test_a_commit_killed_at_any_moment_leaves_the_old_state_or_the_new_one(tmp_path: Path, repeated: int) -> None:
    chance = random.Random(1)
    tree = make_bootable_tree(tmp_path / "tree")
    repository = Repository.init(tmp_path / "repository")
    head = repository.commit_tree(tree, "main", "start").commit.id
    repository.update_labels()
    started = time.monotonic()
    _koguma(repository.path, "commit", "-b", "main", "-m", "calibrate", str(tree)).communicate(timeout=600)
    usual_s = time.monotonic() - started + 0.4
    outcomes = set()

    for generation in range(KILLS_MAX):
        if generation >= KILLS and len(outcomes) == 2:
            break
        _grow(tree, generation, chance, repeated)
        process = _koguma(repository.path, "commit", "-b", "main", "-m", f"generation {generation}", str(tree))
        time.sleep(chance.uniform(0.05, usual_s))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=600)

        with Repository.open(repository.path) as after:
            now = after.resolve("main")
            outcomes.add(now.id == head)
            assert now.id == head or now.parents == (head,)
            assert fsck(after).problems == ()
            assert after.reflog("main")[0].new == now.id
        # What was not committed comes on top the next time, and takes longer.
        usual_s *= 1.25 if now.id == head else 0.8
        head = now.id

    assert outcomes == {True, False}, "the kills must hit before and after the commit, or the test tests nothing"
    # The next command makes everything right: nothing half-made stays and every commit has its label.
    done = _koguma(repository.path, "commit", "-b", "main", "-m", "last", str(tree))
    output, errors = done.communicate(timeout=600)
    assert done.returncode == 0, errors
    final = Repository.open(repository.path)
    labels = json.loads((repository.path / "boot" / "labels.json").read_bytes())["labels"]
    assert labels["main"]["commit"] == output.decode().split()[-1] == final.resolve("main").id
    assert {item["commit"] for item in labels.values()} == {commit.id for commit in final.log("main")}
    for folder in ("boot/artifacts", "packs"):
        assert [path.name for path in (repository.path / folder).iterdir() if path.name.startswith(".")] == []


def _crashes(path: Path, seed: int) -> Crashes:
    """The harness; KOGUMA_CRASH_SEED replays a run that failed."""
    crashes = Crashes(path / "repository", path / "tree", int(os.environ.get("KOGUMA_CRASH_SEED", seed)))
    crashes.start()
    return crashes


def _works_as_ever(crashes: Crashes) -> None:
    """Nothing half-made stays and every operation succeeds."""
    for name in ("commit", "gc", "push", "pull", "labels"):
        last = crashes.round(name, crashes.operations[name](), finish=True)
        assert last.outcome == "done", last
    for folder in ("boot/artifacts", "packs"):
        assert [path.name for path in (crashes.path / folder).iterdir() if path.name.startswith(".")] == []


def test_operations_killed_at_any_moment_leave_refs_old_or_new_and_everything_whole(tmp_path: Path) -> None:
    crashes = _crashes(tmp_path, seed=20)
    crashes.run(45)

    assert {item.outcome for item in crashes.rounds} >= {"done", "killed"}
    _works_as_ever(crashes)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_of_everything_leave_refs_old_or_new_and_everything_whole(tmp_path: Path, seed: int) -> None:
    """Twice this and once a disk that fills up: three hundred kills."""
    crashes = _crashes(tmp_path, seed)
    crashes.run_until(kills=100)

    assert min(crashes.killed()[name] for name in crashes.operations) >= 3, crashes.killed()
    _works_as_ever(crashes)


@pytest.mark.root
@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.long)])
def test_kills_on_a_disk_that_fills_up_leave_refs_old_or_new_and_everything_whole(tmp_path: Path, kills: int) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "koguma", str(small)], check=True)
    try:
        crashes = Crashes(small / "repository", tmp_path / "tree", int(os.environ.get("KOGUMA_CRASH_SEED", "5")))
        crashes.start()
        crashes.run_until(kills, full=True)

        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        _works_as_ever(crashes)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_two_processes_that_commit_to_one_branch_at_once_lose_nothing_silently(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "repository")
    processes = []
    for number in range(4):
        tree = make_bootable_tree(tmp_path / f"tree{number}", package=str(number))
        processes.append(
            _koguma(repository.path, "commit", "-b", "main", "-m", f"number {number}", "--no-wait", str(tree))
        )
    results = [(process.communicate(timeout=600), process.returncode) for process in processes]

    committed = {output.decode().split()[-1] for (output, _), status in results if status == 0}
    for (_, errors), status in results:
        assert status == 0 or b"branch" in errors
    assert committed
    assert {commit.id for commit in Repository.open(repository.path).log("main")} == committed


def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root to mount")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "koguma", str(small)], check=True)
    try:
        repository = Repository.init(small / "repository")
        tree = make_bootable_tree(tmp_path / "tree")
        good = repository.commit_tree(tree, "main", "fits").commit
        (tree / "big").write_bytes(random.Random(2).randbytes(16 * 1024 * 1024))
        process = _koguma(repository.path, "commit", "-b", "main", "-m", "does not fit", "--no-wait", str(tree))
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        assert errors.count(b"\n") == 1, errors

        (tree / "big").unlink()
        (tree / "etc/motd").write_text("small again")
        with repository, Repository.open(repository.path) as again:
            assert again.resolve("main").id == good.id
            assert fsck(again).problems == ()
            assert again.commit_tree(tree, "main", "fits again").created
    finally:
        subprocess.run(["umount", str(small)], check=True)
