"""Commits, revisions, stat cache, hard links, times: the repository as its users see it."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from koguma.images import objects
from koguma.images.commits import TIME_MAX_S, Commit, decode_commit
from koguma.images.errors import (
    CommitError,
    CorruptError,
    ImageError,
    RefError,
    RefMovedError,
    RepositoryError,
    RevisionError,
    TreeError,
)
from koguma.images.repository import Repository
from koguma.images.trees import lookup, walk
from tests.unit.images.making import let_age, listing, make_tree


def _commit(repository: Repository, tree: Path, message: str = "m", branch: str = "main") -> Commit:
    return repository.commit_tree(tree, branch, message).commit


def test_a_directory_that_is_no_repository_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"koguma image --repo .* init"):
        Repository.open(tmp_path / "nowhere")


def test_init_does_not_take_over_a_directory_that_holds_something_else(tmp_path: Path) -> None:
    make_tree(tmp_path / "home", {"thesis.txt": "precious"})

    with pytest.raises(RepositoryError, match="new or empty"):
        Repository.init(tmp_path / "home")


def test_init_of_a_repository_keeps_its_key(repository: Repository) -> None:
    before = (repository.path / "keys" / "signing.pem").read_bytes()
    Repository.init(repository.path)

    assert (repository.path / "keys" / "signing.pem").read_bytes() == before
    assert (repository.path / "keys" / "signing.pem").stat().st_mode & 0o777 == 0o600


def test_what_is_committed_is_what_is_checked_out(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1", "d/b": "2" * 70_000, "d/e/c": bytes(200_000), "empty": ""})
    (tree / "nothing").mkdir()
    (tree / "link").symlink_to("d/b")
    (tree / "a").chmod(0o4755)
    commit = _commit(repository, tree)

    repository.checkout(commit.id, tmp_path / "out")

    assert listing(tmp_path / "out") == listing(tree)


def test_a_commit_too_large_to_be_read_again_is_not_made(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "COMMIT_BYTES_MAX", 1000)

    with pytest.raises(ImageError, match="a commit with its message and notes has at most 1000 bytes"):
        _commit(repository, make_tree(tmp_path / "tree", {"a": "1"}), "x" * 1000)
    assert repository.refs.every() == []


def test_equal_trees_give_equal_ids_wherever_and_whenever_they_were_made(
    repository: Repository, tmp_path: Path
) -> None:
    one = make_tree(tmp_path / "one", {"a": "1", "d/b": "2"})
    two = make_tree(tmp_path / "two", {"d/b": "2", "a": "1"})
    os.utime(two / "a", (1, 1))

    assert _commit(repository, one).tree == _commit(repository, two, branch="other").tree


def test_times_are_recorded_to_the_nanosecond_when_asked(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    os.utime(tree / "a", ns=(5, 1_700_000_000_123_456_789))
    repository.commit_tree(tree, "main", "m", keep_times=True)

    repository.checkout("main", tmp_path / "out")

    assert (tmp_path / "out" / "a").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_a_python_source_keeps_its_time_while_a_compiled_file_depends_on_it(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"m.py": "", "alone.py": "", "__pycache__/m.cpython-311.pyc": "x"})
    for name in ("m.py", "alone.py"):
        os.utime(tree / name, ns=(0, 1_700_000_000_500_000_000))
    commit = _commit(repository, tree)

    root = repository.root(commit)
    kept, normal = (lookup(repository.objects.read, root, name) for name in (b"m.py", b"alone.py"))
    assert kept is not None
    assert normal is not None
    assert kept.mtime_ns == 1_700_000_000 * 10**9
    assert normal.mtime_ns is None


def test_an_unchanged_tree_is_no_new_commit_and_reads_no_file(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1", "d/b": "2"})
    let_age()
    first = _commit(repository, tree)
    read: list[int] = []

    again = repository.commit_tree(tree, "main", "again", progress=read.append)

    assert (again.created, again.commit.id) == (False, first.id)
    assert sum(read) == 0


@pytest.mark.parametrize("aged", [True, False])
def test_every_kind_of_change_is_noticed_behind_the_stat_cache(
    repository: Repository, tmp_path: Path, aged: bool
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1", "d/b": "2", "d/e/f": "3", "gone": "4"})
    if aged:
        let_age()
    seen = {_commit(repository, tree).tree}
    status = (tree / "a").stat()

    def same_size_and_times() -> None:
        (tree / "a").write_text("X")
        os.utime(tree / "a", ns=(status.st_atime_ns, status.st_mtime_ns))

    changes = [
        same_size_and_times,
        lambda: (tree / "d/e/f").chmod(0o600),
        (tree / "gone").unlink,
        lambda: (tree / "d/b").rename(tree / "d/c"),
        lambda: (tree / "d").rename(tree / "z"),
        lambda: (tree / "z/e").chmod(0o700),
        lambda: os.setxattr(tree / "a", "user.note", b"v"),
        lambda: (tree / "z/e/f").write_text("longer"),
    ]
    for number, change in enumerate(changes):
        change()
        tree_id = _commit(repository, tree).tree
        assert tree_id not in seen, f"change {number} went unnoticed"
        seen.add(tree_id)
        assert tree_id == _commit(Repository.init(tmp_path / f"fresh{number}"), tree).tree


def test_hard_links_stay_links_and_are_one_group_per_file(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a/x": "1", "other": "1"})
    (tree / "b").mkdir()
    (tree / "b" / "y").hardlink_to(tree / "a" / "x")
    commit = _commit(repository, tree)

    repository.checkout(commit.id, tmp_path / "out")

    out = tmp_path / "out"
    assert (out / "a/x").stat().st_ino == (out / "b/y").stat().st_ino != (out / "other").stat().st_ino


def test_hard_links_get_the_ids_their_paths_ask_for_although_directories_are_cached(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"a/x": "1", "m/y": "2"})
    (tree / "m" / "x").hardlink_to(tree / "a" / "x")
    let_age()
    _commit(repository, tree)
    (tree / "a").rename(tree / "z")

    moved = _commit(repository, tree)

    assert moved.tree == _commit(Repository.init(tmp_path / "fresh"), tree).tree


def test_a_name_linked_to_outside_the_tree_is_a_plain_file(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    (tmp_path / "outside").hardlink_to(tree / "a")
    commit = _commit(repository, tree)

    assert all(not entry.link for _, entry in walk(repository.objects.read, repository.root(commit)))


def test_a_socket_is_refused_by_its_name(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", {"run/x": ""})
    monkeypatch.chdir(tree / "run")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("control.sock")
        with pytest.raises(TreeError, match=r"sockets.*run/control\.sock"):
            _commit(repository, tree)


def test_a_tree_that_is_not_there_is_refused_and_no_branch_is_made(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="must be a directory"):
        _commit(repository, tmp_path / "nowhere")
    assert repository.refs.all() == []


def test_large_runs_of_zeros_become_holes(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {})
    with (tree / "sparse").open("wb") as file:
        file.write(b"head")
        file.truncate(8 * 1024 * 1024)
    _commit(repository, tree)

    repository.checkout("main", tmp_path / "out")

    status = (tmp_path / "out" / "sparse").stat()
    assert status.st_size == 8 * 1024 * 1024
    assert status.st_blocks * 512 < 64 * 1024
    assert (tmp_path / "out" / "sparse").read_bytes() == (tree / "sparse").read_bytes()


def test_expressions_lead_to_commits_as_in_git(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "0"})
    ids = []
    for number in range(3):
        (tree / "a").write_text(str(number))
        ids.append(_commit(repository, tree, f"number {number}").id)
    repository.create_tag("v1", "main~1")

    expected = {
        "main": 2, "HEAD": 2, "@": 2, "main~2": 0, "main^": 1, "main^^": 0, "HEAD~1": 1, "main@{1}": 1, "v1": 1,
        "v1~": 0, ids[0]: 0, ids[0][:12]: 0, "main^0": 2,
    }  # fmt: skip
    for text, number in expected.items():
        assert repository.resolve(text).id == ids[number], text
    assert [commit.id for commit in repository.log()] == ids[::-1]
    assert [commit.id for commit in repository.log("main~2..main")] == ids[:0:-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mian", "did you mean 'main'"),
        ("main~5", "goes past the first one"),
        ("main^2", "goes past the first one"),
        ("main@{9}", "the log of 'main' has 1 entries"),
        ("main~x", "a revision is NAME"),
        ("ffffffffff", "there is no branch, tag or commit"),
    ],
)
def test_an_expression_that_leads_nowhere_says_why(
    repository: Repository, tmp_path: Path, text: str, message: str
) -> None:
    _commit(repository, make_tree(tmp_path / "tree", {"a": "0"}))

    with pytest.raises(RevisionError, match=message):
        repository.resolve(text)


def test_the_id_of_a_file_is_not_taken_for_that_of_a_commit(repository: Repository, tmp_path: Path) -> None:
    commit = _commit(repository, make_tree(tmp_path / "tree", {"a": "0"}))

    with pytest.raises(RevisionError):
        repository.resolve(commit.tree)


def test_of_two_commits_to_one_branch_at_once_the_second_is_told(repository: Repository, tmp_path: Path) -> None:
    first = _commit(repository, make_tree(tmp_path / "tree", {"a": "0"}))
    (tmp_path / "tree" / "a").write_text("1")
    with repository.objects.writing() as writer:
        late = repository.add_commit(writer, bytes.fromhex(first.tree), [], "from nothing")
    _commit(repository, tmp_path / "tree")

    with pytest.raises(RefMovedError) as raised:
        repository.publish(late, "main", first.id)
    assert raised.value.retry


def test_a_branch_is_not_made_over_another(repository: Repository, tmp_path: Path) -> None:
    _commit(repository, make_tree(tmp_path / "tree", {"a": "0"}))
    repository.create_branch("next")

    with pytest.raises(RefError, match="koguma image branch -f next HEAD"):
        repository.create_branch("next")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"format":"koguma-commit/2"}',
        b'{"format":"koguma-commit/1","tree":"x"}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_commit_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_commit(data, "0" * 64)


@pytest.mark.parametrize("time_s", [10**20, 2**40, 253_402_214_400, -1, True, 1.5])
def test_a_commit_of_no_year_that_a_calendar_has_is_refused(time_s: int) -> None:
    with pytest.raises(CorruptError, match="from 0 to 253402214399"):
        decode_commit(Commit("0" * 64, (), "me", time_s, "m").to_bytes(), "0" * 64)


def test_the_first_and_the_last_time_of_a_commit_are_times_everywhere() -> None:
    for time_s in (0, TIME_MAX_S):
        assert decode_commit(Commit("0" * 64, (), "me", time_s, "m").to_bytes(), "0" * 64).time == time_s
        for hours in (-12, 14):
            datetime.fromtimestamp(time_s, UTC).astimezone(timezone(timedelta(hours=hours)))


@pytest.mark.parametrize("clock_s", [-1.5, 2.0**40])
def test_a_machine_whose_clock_is_absurd_makes_no_commit(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_s: float
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    monkeypatch.setattr("koguma.images.repository.time.time", lambda: clock_s)

    with pytest.raises(CommitError, match="must be of the years 1970 to 9999"):
        repository.commit_tree(tree, "main", "m", remember=False)


@pytest.mark.parametrize("author", ["me\nDate:   never", "me\r", "me\x1b[2J", "me\u2028you", "me\udcff", "me\x85"])
def test_an_author_is_one_line_without_control_characters(repository: Repository, tmp_path: Path, author: str) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})

    with pytest.raises(CommitError, match=r"author must be one line without control characters, got 'me\\"):
        repository.commit_tree(tree, "main", "m", author=author)
    with repository.objects.writing() as writer, pytest.raises(CommitError, match="author"):
        repository.add_commit(writer, bytes(32), [], "m", author=author)
    stored = decode_commit(Commit("0" * 64, (), "me\nDate:   never", 1, "m").to_bytes(), "0" * 64)
    assert stored.author == "me\nDate:   never"  # what is stored is read


def test_a_message_has_lines_and_tabs_and_no_other_control_characters(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    for message in ("m\x1b[2J", "good\rbad", "m\udcff"):
        with pytest.raises(CommitError, match="message must be without control characters"):
            repository.commit_tree(tree, "main", message)

    made = repository.commit_tree(tree, "main", "of a file\r\n\r\nwritten\telsewhere: \u200d é\r\n").commit
    assert repository.commit(made.id).message == "of a file\n\nwritten\telsewhere: \u200d é"
