# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that make commits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koguma.cli.image import recording
from koguma.cli.image.common import Branch, Message, become_root, finish, open_repository, path_of, say, whole_message

app = typer.Typer()


@app.command()
def init(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Argument(help="The new repository; --repo's otherwise.")] = None,
) -> None:
    """Make a repository and its signing key; one that is there stays as it is."""
    from koguma.images.repository import Repository

    print(Repository.init(directory or path_of(context)).path)


@app.command()
def commit(
    context: typer.Context,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="Made when there is none; HEAD's branch otherwise.")
    ] = None,
    message: Message = None,
    tree: Annotated[Path | None, typer.Argument(help="A directory; otherwise the branch's pending edit.")] = None,
    author: Annotated[str | None, typer.Option(help="Otherwise KOGUMA_AUTHOR, else user@host.")] = None,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Record modification times; they are normalised otherwise.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the label to be bootable.")] = True,
    everything: Annotated[bool, typer.Option("--all", "-a", hidden=True, help="As always.")] = False,  # noqa: ARG001 - git's
) -> None:
    """Commit a directory, or what `edit` changed; prints the commit's id last. What a merge began has a message."""
    if tree is not None and not message:
        raise typer.BadParameter("a commit needs a message that says why", param_hint="--message")
    recording.commit(
        open_repository(context),
        tree,
        branch=branch,
        message=whole_message(message),
        author=author,
        keep_times=keep_times,
        wait=wait,
    )


@app.command()
def build(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    branch: Branch,
    message: Message = None,
    force: Annotated[bool, typer.Option("--force", help="Build again although the recipe did not change.")] = False,
) -> None:
    """Build a Debian root from a recipe and commit it; prints the commit's id last."""
    from koguma.images.build import build as build_image

    repository = open_repository(context)
    done = build_image(repository, recipe, branch, whole_message(message), force=force, say=say)
    finish(repository, done, wait=True)


@app.command()
def edit(
    context: typer.Context,
    branch: Annotated[str, typer.Argument(help="The branch whose head to change.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run in it; a shell otherwise.")] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Throw the pending edit away first.")] = False,
) -> None:
    """Change a branch's head in a work tree of its own; `commit -b BRANCH -m MESSAGE` keeps the changes.

    Packages can be installed, the host's network works, services do not start. Say `edit BRANCH -- COMMAND…`; the exit
    status is the command's. A pending edit is continued.
    """
    from koguma.images import edit as editing

    repository = open_repository(context)
    become_root(context)
    if discard:
        editing.discard(repository, branch)
        if not command:
            return
    status = editing.edit(repository, branch, command or [], say=say)
    raise typer.Exit(status)


@app.command("build-stage1")
def build_stage1(
    context: typer.Context,
    suite: Annotated[str, typer.Option(help="The Debian suite stage 1 is made of.")] = "bookworm",
) -> None:
    """Build stage 1, the small system that registers machines and boots commits; prints its id last."""
    from koguma.images.stage1 import build_stage1 as build_it

    print(build_it(open_repository(context).path, suite=suite, progress=say))
