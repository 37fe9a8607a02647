"""kill -9 at random moments of clone, pull and push, in processes of their own: refs are the old ones or the new ones,
fsck is clean, and saying the command again completes it with the rest.

Each kill follows from the seed and its number alone; the clock decides only where in the work it falls.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koguma.images.fsck import fsck
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from tests.unit.images.making import make_repository, make_tree

pytestmark = pytest.mark.slow
SEED = 20


def koguma(repository: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return output.decode()


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    server = koguma(repository, "serve", "--listen", "127.0.0.1:0", "--allow-push")
    assert server.stdout is not None
    try:
        yield server.stdout.readline().decode().strip(), server
    finally:
        server.terminate()
        server.communicate(timeout=60)


def grow(tree: Path, chance: random.Random) -> None:
    for number in range(80):
        folder = tree / f"usr/share/d{number % 9}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{chance.randrange(10**9)}").write_bytes(chance.randbytes(chance.choice([10, 5_000, 400_000])))


def sound(path: Path) -> Repository:
    repository = Repository.open(path)
    assert fsck(repository).problems == ()
    return repository


def stored(repository: Repository) -> set[bytes]:
    return {item for pack in repository.objects.packs() for item in pack.ids()}


class Bench:
    """A grown repository and how long its transfers take here, start of the process included."""

    def __init__(self, path: Path, kind: str) -> None:
        self.chance = random.Random(SEED)
        self.kind = kind
        self.tree = make_tree(path / "tree", {"etc/motd": "hello"})
        self.origin = make_repository(path / "origin")
        self.next()

    def next(self) -> str:
        grow(self.tree, self.chance)
        self.origin.objects.refresh()
        return self.origin.commit_tree(self.tree, "main", "grown").commit.id


class Kills:
    """Kills processes at random moments of the time they usually take; counts those that were still at work."""

    def __init__(self, usual_s: float) -> None:
        self._until_s = usual_s
        self.hits = 0

    def kill(self, process: subprocess.Popen[bytes], chance: random.Random) -> None:
        time.sleep(chance.uniform(0.02, self._until_s))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            self.hits += 1
        else:
            # The machine is less busy than it was when the usual time was taken.
            self._until_s = max(0.05, self._until_s * 0.6)
        process.communicate(timeout=60)


def kills_of_clone(path: Path, kills: int, kind: str) -> None:
    bench = Bench(path, kind)
    tip = bench.origin.resolve("main").id
    with serving(bench.origin.path) as (url, _):
        source = url if kind == "http" else str(bench.origin.path)
        started = time.monotonic()
        finish(koguma(path / "usual", "clone", source, "--no-labels"))
        killing = Kills(time.monotonic() - started + 0.2)
        for number in range(kills):
            copy = path / "copy"
            killing.kill(koguma(copy, "clone", source, "--no-labels"), random.Random(SEED * 1000 + number))
            saved = 0
            if (copy / "koguma-repository").exists():
                broken = sound(copy)
                assert {ref.commit for ref in broken.refs.every()} <= {tip}
                saved = len(stored(broken))
                broken.close()
            finish(koguma(copy, "clone", source, "--no-labels"))
            whole = sound(copy)
            assert whole.resolve("main").id == whole.resolve("origin/main").id == tip
            assert len(stored(whole)) >= saved
            assert list((copy / "incoming").glob("*")) == []
            whole.close()
            shutil.rmtree(copy)
    assert killing.hits, "a kill must hit a clone at work, or the test tests nothing"


def kills_of_pull(path: Path, kills: int, kind: str) -> None:
    bench = Bench(path, kind)
    with serving(bench.origin.path) as (url, _):
        source = url if kind == "http" else str(bench.origin.path)
        finish(koguma(path / "copy", "clone", source, "--no-labels"))
        old = bench.origin.resolve("main").id
        killing, outcomes = None, set()
        for number in range(kills + 1):
            new = bench.next()
            process = koguma(path / "copy", "pull", "origin", "main", "--no-wait")
            if killing is None:
                started = time.monotonic()
                finish(process)
                killing = Kills(time.monotonic() - started + 0.2)
                old = new
                continue
            killing.kill(process, random.Random(SEED * 1000 + number))
            copy = sound(path / "copy")
            now = copy.refs.get(RefKind.BRANCH, "main")
            tracked = copy.refs.get(RefKind.REMOTE, "origin/main")
            assert (now, tracked) in {(old, old), (old, new), (new, new)}
            outcomes.add(now == old)
            copy.close()
            finish(koguma(path / "copy", "pull", "origin", "main", "--no-wait"))
            assert sound(path / "copy").resolve("main").id == new
            old = new
    assert killing, "there was a pull"
    assert killing.hits, "a kill must hit a pull at work, or the test tests nothing"


def kills_of_push(path: Path, kills: int, kind: str, victim: str) -> None:
    bench = Bench(path, kind)
    site = make_repository(path / "site")
    with serving(site.path) as (url, _):
        finish(koguma(bench.origin.path, "remote", "add", "site", url if kind == "http" else str(site.path)))
        started = time.monotonic()
        finish(koguma(bench.origin.path, "push", "site", "main"))
        killing = Kills(time.monotonic() - started + 0.2)
    for number in range(kills):
        chance = random.Random(SEED * 1000 + number)
        old, new = bench.origin.resolve("main").id, bench.next()
        with serving(site.path) as (url, server):
            document = json.loads((bench.origin.path / "remotes.json").read_bytes())
            document["site"]["url"] = url if kind == "http" else str(site.path)
            (bench.origin.path / "remotes.json").write_text(json.dumps(document))
            process = koguma(bench.origin.path, "push", "site", "main")
            if victim == "client":
                killing.kill(process, chance)
            else:
                killing.kill(server, chance)
                process.terminate()  # it would try again for some seconds
                process.communicate(timeout=60)
        after = sound(site.path)
        assert after.refs.get(RefKind.BRANCH, "main") in {old, new}
        after.close()
        with serving(site.path) as (url, _):
            document["site"]["url"] = url if kind == "http" else str(site.path)
            (bench.origin.path / "remotes.json").write_text(json.dumps(document))
            finish(koguma(bench.origin.path, "push", "site", "main"))
        after = sound(site.path)
        assert after.refs.get(RefKind.BRANCH, "main") == new
        assert list((site.path / "incoming").glob("*")) == []
        after.close()
        assert sound(bench.origin.path).resolve("site/main").id == new
    assert killing.hits, "a kill must hit a push at work, or the test tests nothing"


def test_a_clone_killed_at_any_moment_is_completed_by_the_next(tmp_path: Path) -> None:
    kills_of_clone(tmp_path, 6, "http")


def test_a_pull_killed_at_any_moment_leaves_the_old_refs_or_the_new_ones(tmp_path: Path) -> None:
    kills_of_pull(tmp_path, 6, "http")


def test_a_push_killed_at_any_moment_leaves_the_old_ref_or_the_new_one(tmp_path: Path) -> None:
    kills_of_push(tmp_path, 5, "http", "client")


def test_a_server_killed_during_a_push_has_the_old_ref_or_the_new_one(tmp_path: Path) -> None:
    kills_of_push(tmp_path, 3, "http", "server")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http", "directory"])
def test_many_kills_of_each_transfer(tmp_path: Path, kind: str) -> None:
    (tmp_path / "clone").mkdir()
    kills_of_clone(tmp_path / "clone", 20, kind)
    (tmp_path / "pull").mkdir()
    kills_of_pull(tmp_path / "pull", 20, kind)
    (tmp_path / "push").mkdir()
    kills_of_push(tmp_path / "push", 20, kind, "client")


@pytest.mark.long
def test_many_kills_of_a_server(tmp_path: Path) -> None:
    kills_of_push(tmp_path, 20, "http", "server")
