"""The commands that are answered without the library that parses command lines do what the others do."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from koguma import places
from koguma.cli.image.group import ImageGroup
from koguma.cli.image.quick import COMMANDS, answer
from koguma.cli.program import app
from koguma.images.repository import Repository
from tests.unit.images.making import make_tree


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.init(tmp_path / "images")
    tree = make_tree(tmp_path / "tree", {"etc/motd": "one\n", "etc/hostname": "a\n"})
    made.commit_tree(tree, "main", "first", author="ann")
    make_tree(tree, {"etc/motd": "two\n"})
    made.commit_tree(tree, "main", "second", author="ben")
    return made


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_that_is_answered_sets_what_the_command_itself_sets(name: str) -> None:
    context: Any = None
    command: Any = ImageGroup().get_command(context, name)
    known = {option: item for item in command.params for option in (*item.opts, *item.secondary_opts)}
    quick = COMMANDS[name]

    for option, parameter in {**quick.flags, **quick.values}.items():
        assert known[option].name == parameter
        assert known[option].is_flag == (option in quick.flags)


@pytest.mark.parametrize(
    "words",
    [
        ["log"],
        ["log", "--oneline", "main"],
        ["log", "--json", "main~1..main"],
        ["log", "--stat"],
        ["log", "--all", "--graph"],
        ["diff", "main~1", "main"],
        ["diff", "main~1..main"],
        ["diff", "main~1", "main", "etc/motd", "--json"],
        ["diff", "-p", "main~1", "main"],
        ["diff", "--name-only", "main~1"],
        ["branch"],
        ["branch", "--json"],
        ["tag"],
    ],
    ids=" ".join,
)
def test_a_command_prints_the_same_both_ways(
    repository: Repository, words: list[str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    said = ["--repo", str(repository.path), *words]

    assert answer(said)
    quickly = capsysbinary.readouterr().out
    proper = CliRunner().invoke(app, ["image", *said])

    assert proper.exit_code == 0
    assert quickly == proper.stdout_bytes
    assert words in (["tag"], ["branch"]) or quickly


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["log", "--help"],
        ["log", "-n", "1"],
        ["log", "--", "etc"],
        ["diff"],
        ["branch", "a", "main", "x"],
        ["branch", "--bogus"],
        ["commit", "-b", "main", "tree"],
        ["commit", "-b", "main", "-m"],
        ["commit", "-b", "main", "-m", "why", "tree", "tree"],
        ["fsck"],
        ["lgo"],
    ],
    ids=" ".join,
)
def test_whatever_else_is_said_is_left_to_the_command_line_proper_and_nothing_is_done(
    repository: Repository, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not answer(["--repo", str(repository.path), *words])
    assert capsys.readouterr().out == ""


def test_a_directory_is_committed_to_the_branch_of_head_unless_another_is_named(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree", {"etc/motd": "three\n"})

    assert answer(["--repo", str(repository.path), "commit", "-m", "third", "--author", "cat", str(tree)])

    head = Repository.open(repository.path).resolve("main")
    assert (head.message, head.author) == ("third", "cat")
    assert capsys.readouterr().out.splitlines()[-1] == head.id


def test_who_stands_in_a_repository_means_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KOGUMA_REPO", raising=False)
    monkeypatch.chdir(repository.path)

    assert answer(["log", "--oneline"])
    quickly = capsys.readouterr().out
    assert "second" in quickly
    assert CliRunner().invoke(app, ["image", "log", "--oneline", "-n", "2"]).output == quickly


def test_a_repository_that_somebody_else_left_is_not_meant(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.path)
    if os.geteuid() == 0:
        os.chown("koguma-repository", 4711, 4711)
    else:
        monkeypatch.setattr("koguma.places.os.geteuid", lambda: 4711)

    assert places.repository_here() is None


@pytest.mark.parametrize("variable", ["KOGUMA_REPO", "KOGUMA_IMAGES_REPOSITORY", "KOGUMA_STATE_DIR"])
def test_a_repository_that_nobody_named_is_the_one_of_the_site(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    for other in ("KOGUMA_REPO", "KOGUMA_IMAGES_REPOSITORY", "KOGUMA_STATE_DIR"):
        monkeypatch.delenv(other, raising=False)
    place = repository.path.parent if variable == "KOGUMA_STATE_DIR" else repository.path
    monkeypatch.setenv(variable, str(place))
    assert answer(["log"])
    assert "second" in capsys.readouterr().out


def test_a_configuration_with_a_mistake_is_for_the_whole_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOGUMA_REPO", raising=False)
    monkeypatch.setenv("KOGUMA_STATE_DIR", "relative")
    assert not answer(["log"])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_answers_does_not_load_libraries_that_take_longer_than_the_answer(name: str) -> None:
    module = f"koguma.cli.image.{COMMANDS[name].module}"
    assert hasattr(import_module(module), name)
    # Named tuples are there at once; dataclasses bring `inspect`, and take a tenth of a diff.
    slow = {typer.__name__, *(["dataclasses"] if name in ("branch", "diff", "log") else [])}
    modules = f"sys, koguma.cli, koguma.cli.image.quick, koguma.images.repository, {module}"
    check = f"import {modules}; sys.exit(not {slow!r}.isdisjoint(sys.modules))"

    done = subprocess.run([sys.executable, "-c", check], check=False, env=os.environ)

    assert done.returncode == 0
