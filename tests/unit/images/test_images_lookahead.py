"""Commits whose directories processes look at ahead of the walk: whoever looks, every change is found."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from koguma.images import lookahead, scan
from koguma.images.lookahead import Lookahead
from koguma.images.repository import Repository
from tests.unit.images.making import let_age, make_repository, make_tree

FOLDERS = 90


class Patient(Lookahead):
    """Waits until all is looked at, so that whatever the processes can answer they do."""

    def __init__(self, paths: Sequence[bytes], is_unchanged: Callable[[bytes], bool]) -> None:
        super().__init__(paths, is_unchanged)
        for process in self.processes:
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them for the smallest tree, on a machine with any number of processors."""
    monkeypatch.setattr(lookahead, "_DIRECTORIES_MIN", 0)
    monkeypatch.setattr(lookahead, "_COLLECT_EVERY", 1)
    monkeypatch.setattr(lookahead, "processes_worth_it", lambda: 2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Directories up to three deep, with files of a few bytes."""
    files = {
        f"{number % 3}/{'deep/' * (number % 2)}{number}/{name}": f"{name} of {number}"
        for number in range(FOLDERS)
        for name in ("a", "b", "c")
    }
    return make_tree(tmp_path / "tree", dict(files))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The directories that the walk itself looked at."""
    found: list[bytes] = []
    look = scan._Walk._list

    def noting(walk: scan._Walk, absolute: bytes) -> tuple[list[tuple[bytes, os.stat_result]], bool]:
        found.append(absolute)
        return look(walk, absolute)

    monkeypatch.setattr(scan._Walk, "_list", noting)
    return found


def commit(repository: Repository, tree: Path) -> str:
    return repository.commit_tree(tree, "main", "m").commit.tree


def test_of_an_unchanged_tree_the_walk_looks_at_nothing_itself(
    repository: Repository, tree: Path, listed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_age()
    first = commit(repository, tree)
    assert len(listed) == len({*listed}) > FOLDERS
    listed.clear()
    monkeypatch.setattr(scan, "Lookahead", Patient)

    assert commit(repository, tree) == first
    assert listed == []


@pytest.mark.parametrize("looking", [Lookahead, Patient])
def test_whatever_changes_between_commits_is_found(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looking: type[Lookahead]
) -> None:
    monkeypatch.setattr(scan, "Lookahead", looking)
    chance = random.Random(5)
    let_age()
    commit(repository, tree)
    for number in range(12):
        for _ in range(4):
            _change(tree, chance)
        if number % 2:
            let_age()

        assert commit(repository, tree) == commit(make_repository(tmp_path / f"fresh{number}"), tree)


def test_where_the_walk_waits_for_a_disk_more_processes_look(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Waiting(Patient):
        def __init__(self, paths: Sequence[bytes], is_unchanged: Callable[[bytes], bool]) -> None:
            super().__init__(paths, is_unchanged)
            time.sleep(0.2)

        def end(self) -> None:
            started.append(len(self.processes))
            super().end()

    let_age()
    first = commit(repository, tree)
    monkeypatch.setattr(scan, "Lookahead", Waiting)

    assert commit(repository, tree) == first
    monkeypatch.setattr(lookahead, "_BUSY_SHARE", 0)
    assert commit(repository, tree) == first
    assert started == [4, 2]


def test_a_tree_larger_than_a_pipe_is_looked_at_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "_STRETCHES_MAX", 4)
    paths = [b"%d" % number for number in range(1000)]

    with Patient(paths, lambda path: path != b"990") as ahead:
        found = [path for path in paths if ahead.unchanged(path)]

    assert found == [path for path in paths[-4 * 32 :] if path != b"990"]


def test_pipes_that_are_small_or_not_to_be_had_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, made = os.pipe, list[int]()

    def small() -> tuple[int, int]:
        ends = pipe()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    def scarce() -> tuple[int, int]:
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.extend(pipe())
        return made[0], made[1]

    paths = [b"%d" % number for number in range(200_000)]
    monkeypatch.setattr(os, "pipe", small)
    with Lookahead(paths, lambda _: True) as ahead:
        deadline = time.monotonic() + 20
        while not ahead.unchanged(paths[-1]):
            assert time.monotonic() < deadline

    monkeypatch.setattr(os, "pipe", scarce)
    with Lookahead(paths, lambda _: True) as ahead:
        assert ahead.processes == []
        assert not ahead.unchanged(paths[-1])
    for end in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


def test_a_file_that_changed_just_now_is_read_again(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inode may say the same after the next change: that one bears the same time where clocks are coarse."""
    monkeypatch.setattr(scan, "Lookahead", Patient)
    tree = make_tree(tmp_path / "small", {"d/a": "1"})
    seen = {commit(repository, tree)}
    for content in "234":
        (tree / "d/a").write_text(content)
        seen.add(commit(repository, tree))

    assert len(seen) == 4


def _change(tree: Path, chance: random.Random) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    folders = sorted(path for path in tree.rglob("*") if path.is_dir())
    file, folder = chance.choice(files), chance.choice(folders)
    new = folder / f"new{chance.random()}"
    match chance.randrange(9):
        case 0:
            file.write_text(f"other {chance.random()}")
        case 1:
            file.chmod(chance.choice((0o600, 0o755, 0o4711)))
        case 2:
            file.unlink()
        case 3:
            new.hardlink_to(file)
        case 4:
            new.symlink_to("anywhere")
        case 5:
            new.mkdir()
        case 6:
            folder.chmod(chance.choice((0o700, 0o755)))
        case 7:
            os.setxattr(file, "user.note", chance.randbytes(4))
        case _:
            file.rename(new)


def test_a_process_that_dies_is_not_missed(repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Lookahead):
        def __init__(self, paths: Sequence[bytes], is_unchanged: Callable[[bytes], bool]) -> None:
            super().__init__(paths, is_unchanged)
            for process in self.processes:
                os.kill(process, signal.SIGKILL)

    let_age()
    first = commit(repository, tree)
    monkeypatch.setattr(scan, "Lookahead", Killed)

    assert commit(repository, tree) == first
    (tree / "new").touch()
    assert commit(repository, tree) != first


def test_a_program_that_ignores_its_children_commits_too(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_age()
    first = commit(repository, tree)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert commit(repository, tree) == first
        monkeypatch.setattr(Lookahead, "unchanged", lambda _, __: time.sleep(0.005) is not None)
        assert commit(repository, tree) == first
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_where_no_process_is_to_be_had_the_walk_does_it_all(
    repository: Repository, tree: Path, listed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    let_age()
    first = commit(repository, tree)
    monkeypatch.setattr(os, "fork", fork)
    assert commit(repository, tree) == first
    descriptors = [*Path("/proc/self/fd").iterdir()]
    listed.clear()

    assert commit(repository, tree) == first
    assert len(listed) > FOLDERS
    assert len([*Path("/proc/self/fd").iterdir()]) == len(descriptors)


def test_processes_end_with_the_walk_and_with_who_started_them(tmp_path: Path) -> None:
    def slowly(_: bytes) -> bool:
        time.sleep(0.01)
        return True

    paths = [b"%d" % number for number in range(3000)]
    began = time.monotonic()
    with Lookahead(paths, slowly) as ahead:
        processes = list(ahead.processes)
        assert [_is_running(process) for process in processes] == [True, True]
        time.sleep(0.5)
        ahead.unchanged(b"")
        found = [path for path in paths if ahead.unchanged(path)]
    assert [_is_running(process) for process in processes] == [False, False]
    assert time.monotonic() - began < 2  # all of it would take them longer
    assert found
    assert all(int(path) >= 2000 for path in found)

    told = tmp_path / "processes"
    starter = os.fork()
    if starter == 0:
        ahead = Lookahead(paths, slowly)
        told.write_text(" ".join(map(str, ahead.processes)))
        os._exit(0)
    os.waitpid(starter, 0)
    orphans = [int(word) for word in told.read_text().split()]
    assert len(orphans) == 2
    deadline = time.monotonic() + 5
    while any(map(_is_running, orphans)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
