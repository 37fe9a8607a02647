"""`koguma image`: works on a repository directory, without any server, as git does.

A command's module is loaded when the command is said: `koguma image log` must be there within a quarter of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koguma.cli.lazy import Command, LazyGroup


class ImageGroup(LazyGroup):
    """The commands in the order of the work they belong to, as git's own help has them."""

    sections = {
        "Start a repository": {
            "init": Command("koguma.cli.image.making", "Make a repository and its signing key."),
        },
        "Make commits": {
            "build": Command("koguma.cli.image.making", "Build a Debian root from a recipe and commit it."),
            "import": Command("koguma.cli.image.making", "Commit a root file system made elsewhere."),
            "edit": Command("koguma.cli.image.making", "Change a branch's head in a work tree of its own."),
            "commit": Command("koguma.cli.image.making", "Commit a directory, or what `edit` changed."),
        },
        "Examine history": {
            "log": Command("koguma.cli.image.history", "Show commits, newest first; --graph draws them."),
            "show": Command("koguma.cli.image.history", "Show a commit, or a file of one."),
            "diff": Command(
                "koguma.cli.image.history", "Show what changed between two commits, and what a reboot means."
            ),
            "blame": Command("koguma.cli.image.searching", "Show which commit last changed each line of a file."),
            "grep": Command("koguma.cli.image.searching", "Search the files of a commit."),
            "bisect": Command("koguma.cli.image.bisect", "Find the commit that broke something."),
            "merge-base": Command("koguma.cli.image.history", "Show the best common ancestor of two commits."),
            "reflog": Command("koguma.cli.image.history", "Show where a branch has been."),
        },
        "Name commits": {
            "branch": Command("koguma.cli.image.refs", "Make a branch, or list branches."),
            "tag": Command("koguma.cli.image.refs", "Make a tag, or list tags."),
            "rm": Command("koguma.cli.image.refs", "Remove branches and tags."),
            "labels": Command("koguma.cli.image.refs", "Show what machines can boot, and why others cannot."),
        },
        "Use a commit": {
            "checkout": Command("koguma.cli.image.writing", "Write a commit's tree to a directory."),
            "export": Command("koguma.cli.image.writing", "Write a commit's tree as an image."),
            "mount": Command("koguma.cli.image.views", "Show a commit's tree at a directory, at once."),
            "umount": Command("koguma.cli.image.views", "Take away what mount showed."),
            "build-stage1": Command("koguma.cli.image.making", "Build the small system that boots commits."),
        },
        "Keep a repository": {
            "fsck": Command("koguma.cli.image.keeping", "Check every stored byte and every reference."),
        },
    }


app = typer.Typer(
    cls=ImageGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image repositories: commit, branch, diff, edit and export root file systems.",
)


@app.callback()
def _image(
    context: typer.Context,
    repo: Annotated[
        Path | None,
        typer.Option("--repo", envvar="KOGUMA_REPO", help="The repository; otherwise the one of the configuration."),
    ] = None,
) -> None:
    context.obj = repo
