# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""What the commands of `koguma image` share: options, opening the repository, and all of `printing`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koguma import places
from koguma.cli.image import recording
from koguma.cli.image.printing import (
    decorations,
    finish,
    labels_later,
    local_time,
    message_lines,
    names_by_commit,
    print_json,
    print_table,
    printable,
    progress,
    say,
    update_labels,
)

if TYPE_CHECKING:
    from koguma.images.repository import Repository

__all__ = [
    "Branch",
    "Json",
    "Message",
    "Revision",
    "become_root",
    "decorations",
    "finish",
    "labels_later",
    "local_time",
    "message_lines",
    "names_by_commit",
    "open_repository",
    "path_of",
    "print_json",
    "print_table",
    "printable",
    "progress",
    "say",
    "update_labels",
    "whole_message",
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Branch = Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to; made when there is none.")]
Message = Annotated[
    list[str] | None,
    typer.Option("--message", "-m", help="Why; the first line is the subject. Said again, another paragraph."),
]
Revision = Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")]


def whole_message(paragraphs: list[str] | None) -> str | None:
    """The message that several `-m` make; None when none was said."""
    return "\n\n".join(paragraphs) if paragraphs else None


def path_of(context: typer.Context) -> Path:
    given: Path | None = context.obj
    if given is not None:
        return given
    if found := places.repository_here() or places.repository():
        return found
    from koguma.config import load

    return load().repository


def open_repository(context: typer.Context) -> Repository:
    from koguma.images.repository import Repository

    return Repository.open(path_of(context))


def become_root(context: typer.Context, *, needed: bool = True) -> None:
    """As `recording.become_root`, for the repository that the command line names."""
    if os.geteuid() != 0:
        recording.become_root(path_of(context), needed=needed)
