"""What people who know git type by habit: it works, or one line says what works."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from koguma.cli import main
from koguma.images.repository import Repository
from koguma.images.transfer.fetching import clone
from tests.unit.images.making import make_tree

Said = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.init(tmp_path / "images")
    tree = make_tree(tmp_path / "tree", {"etc/motd": "one\n"})
    made.commit_tree(tree, "main", "first", author="ann")
    make_tree(tree, {"etc/motd": "one\ntwo\n"})
    made.commit_tree(tree, "main", "second", author="ben")
    return made


@pytest.fixture
def say(repository: Repository, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Said:
    def run(*words: str, at: Path | None = None) -> tuple[int, str, str]:
        """Exit status, output and error of `koguma image WORDS`."""
        monkeypatch.setattr("sys.argv", ["koguma", "image", "--repo", str(at or repository.path), *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfdbinary.readouterr()
        status: Any = stopped.value.code
        return status, out.decode("utf-8", "replace"), err.decode()

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["commit", "-m", "nightly", ""],
        ["commit", "-m", "nightly", "-b", "", "."],
        ["commit", "-m", " ", "."],
        ["import", "", "-b", "x"],
        ["revert", ""],
        ["tag", "v1", ""],
        ["merge", ""],
        ["push", ""],
        ["log", "--author="],
        ["--repo", "", "log"],
        ["checkout", "", "somewhere"],
        ["diff", "HEAD~1", "HEAD", "--", ""],
    ],
    ids=" ".join,
)
def test_an_empty_word_means_nothing(say: Said, repository: Repository, words: list[str]) -> None:
    before = repository.refs.every()

    status, out, err = say(*words)

    assert (status, out, err.count("\n")) == (1, "", 1)
    assert repository.refs.every() == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["commit", "--amend"], "koguma image branch -f BRANCH HEAD~1"),
        (["push", "--force"], "--force-with-lease"),
        (["tag", "-a", "v1"], "a tag is a name alone"),
        (["log", "--repo", "x"], "koguma image --repo DIR COMMAND"),
        (["log", "--pretty=oneline"], "--json"),
        (["remote", "-v"], "koguma image remote list"),
        (["config", "user.name"], "policy.toml"),
        (["revert", "-m", "1", "HEAD"], "--mainline 1"),
        (["checkout", "HEAD", "--", "etc/motd"], "koguma image show HEAD:etc/motd"),
        (["switch", "nope"], "koguma image switch -c nope"),
        (["branch", "main", "HEAD~1"], "koguma image branch -f main HEAD~1"),
        (["diff", "HEAD~1", "HEAD", "mtod"], "a path of one of the commits, got 'mtod'"),
        (["export", "HEAD", "--format", "tar", "--compression", "gzip", "-o", "x"], "for OCI images"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_what_is_said_otherwise_here_is_told_in_one_line(say: Said, words: list[str], hint: str) -> None:
    status, out, err = say(*words)

    assert (status != 0, out, err.count("\n")) == (True, "", 1)
    assert hint in err


def test_several_messages_are_paragraphs(say: Said, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "tree/etc/motd").write_text("three\n")
    assert say("commit", "-m", "subject", "-m", "body", str(tmp_path / "tree"))[0] == 0
    assert repository.resolve("HEAD").message == "subject\n\nbody"


def test_several_names_are_removed_or_none(say: Said, repository: Repository) -> None:
    for name in ("a", "b", "c"):
        repository.create_branch(name)

    assert "there is no branch 'x'" in say("branch", "-d", "a", "x")[2]
    assert say("branch", "-d", "a", "b", "--json")[0] == 0
    assert [ref.name for ref in repository.refs.all()] == ["c", "main"]


def test_a_branch_is_renamed_and_head_s_is_not_removed(say: Said, repository: Repository) -> None:
    at = repository.resolve("main").id

    assert say("branch", "-m", "compute") == (0, f"{at}\n", "")
    assert say("branch", "--show-current")[1] == "compute\n"
    assert "commit: first" in say("reflog", "compute")[1]
    assert "koguma image switch" in say("branch", "-d", "compute")[2]
    assert repository.resolve("compute").id == at


def test_branches_are_listed_as_git_lists_them(say: Said, repository: Repository) -> None:
    repository.create_branch("old", "HEAD~1")

    assert say("branch", "--show-current")[1] == "main\n"
    assert [line.split()[-3] for line in say("branch", "-v", "--contains", "HEAD")[1].splitlines()] == ["main"]
    assert say("branch", "-r")[1] == ""
    assert json.loads(say("branch", "new", "--json")[1]) == {"name": "new", "commit": repository.resolve("HEAD").id}


def test_a_branch_of_a_remote_is_made_when_it_is_switched_to(say: Said, repository: Repository, tmp_path: Path) -> None:
    repository.create_branch("compute", "HEAD~1")
    copy, _ = clone(str(repository.path), tmp_path / "copy")

    assert say("switch", "compute", at=copy.path)[0] == 0
    assert copy.refs.head() == "compute"
    assert copy.resolve("compute").id == repository.resolve("HEAD~1").id
    assert say("switch", "-c", "mine", "origin/main", at=copy.path)[0] == 0
    assert copy.resolve("HEAD").id == repository.resolve("main").id


def test_an_export_goes_to_a_pipe_when_it_is_whole(say: Said) -> None:
    status, out, _ = say("export", "HEAD", "--format", "tar", "-o", "-")

    with tarfile.open(fileobj=BytesIO(out.encode())) as archive:
        assert "./etc/motd" in archive.getnames() or "etc/motd" in archive.getnames()
    assert status == 0
    assert "cannot go to standard output" in say("export", "HEAD", "--format", "oci", "-o", "-")[2]


@pytest.mark.parametrize(
    "words", [["etc/motd"], ["HEAD", "etc/motd"], ["etc/motd", "HEAD"], ["HEAD", "--", "etc/motd"]], ids=" ".join
)
def test_a_file_is_blamed_in_either_order(say: Said, words: list[str]) -> None:
    assert [line.split()[1] for line in say("blame", *words)[1].splitlines()] == ["ann", "ben"]


def test_a_range_and_paths_need_no_dashes(say: Said) -> None:
    assert say("diff", "HEAD~1..HEAD", "etc", "--name-only")[1] == "/etc/motd\n"


def test_a_pattern_may_begin_with_a_dash(say: Said, repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "dash", {"f": "a -x b\n"}), "main", "third")

    assert say("grep", "-e", "-x")[1] == "/f:a -x b\n"


def test_a_repository_is_made_where_it_is_said(say: Said, tmp_path: Path) -> None:
    assert say("init", str(tmp_path / "new"))[1] == f"{tmp_path / 'new'}\n"
    assert Repository.open(tmp_path / "new").refs.every() == []


def documented_keys(command: str) -> set[str]:
    """The keys that the handbook names for a command's document, those within lists left out."""
    page = (Path(__file__).parents[3] / "docs/operating/images-json.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{command}`"))
    cell = row.split(" | ", 1)[1]
    nested = re.sub(r"(?<=` )\[\][^;|]*", "", cell) if not cell.startswith("[]") else re.sub(r"(?<=` )\[\].*", "", cell)
    return set(re.findall(r"`(\w+)`", nested))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("log", ["log"]),
        ("show REV:FILE", ["show", "HEAD:etc/motd"]),
        ("diff", ["diff", "HEAD~1", "HEAD"]),
        ("status", ["status"]),
        ("branch", ["branch"]),
        ("reflog", ["reflog"]),
        ("grep", ["grep", "one"]),
        ("labels", ["labels"]),
        ("verify", ["verify"]),
        ("keys list", ["keys", "list"]),
        ("fsck", ["fsck"]),
        ("gc", ["gc"]),
        ("du", ["du"]),
        ("du REV", ["du", "HEAD"]),
    ],
)
def test_the_handbook_names_the_keys_of_every_document(say: Said, command: str, words: list[str]) -> None:
    document = json.loads(say(*words, "--json")[1])

    assert set(document[0] if isinstance(document, list) else document) == documented_keys(command)
