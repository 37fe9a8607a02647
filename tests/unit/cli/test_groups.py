"""Groups of commands: found late, helped in sections, wrong words answered by one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from koguma.cli import main
from koguma.cli.image.group import ImageGroup
from koguma.cli.image.group import app as image_app
from koguma.cli.program import Nouns, app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imag"], "did you mean 'image'?"),
        (["image", "lgo"], "did you mean 'log'?"),
        (["image", "help", "lgo"], "koguma image help lists them"),
        (["image", "log", "--foo"], "see: koguma image log --help"),
        (["image", "edit"], "Missing argument"),
    ],
)
def test_a_mistyped_command_line_is_answered_by_one_line_that_says_what_to_do(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["koguma", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


@pytest.mark.parametrize(("group", "typed"), [(Nouns, app), (ImageGroup, image_app)])
def test_every_command_of_a_table_is_where_the_table_says(group: Any, typed: typer.Typer) -> None:
    loaded: Any = typer.main.get_command(typed)
    for name in (name for section in group.sections.values() for name in section):
        found = loaded.get_command(None, name)
        assert found is not None
        assert found.help, f"{name} has no help of its own"


def test_help_of_a_command_is_what_its_option_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["koguma", "image", "help", "reflog"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert "where a branch has been" in capsys.readouterr().out


def _all_commands(command: Any, context: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    for name in names if path[:1] != ("help",) else ():
        below = command.get_command(context, name)
        yield from _all_commands(below, type(context)(below, info_name=name, parent=context), (*path, name))


def test_every_command_has_a_help_that_can_be_printed() -> None:
    command: Any = get_command(app)
    context = command.make_context("koguma", ["--version"], resilient_parsing=True)

    paths = list(_all_commands(command, context, ()))

    assert len(paths) > 80
    for path in paths:
        done = CliRunner().invoke(app, [*path, "--help"])
        assert done.exit_code == 0, (path, done.exception)
