"""The commands of `koguma image`, in the order of the work they belong to.

A command's module is loaded when the command is said: `koguma image log` must be there within a quarter of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from koguma.cli.image.habits import OPTIONS_ELSEWHERE, refuse_empty
from koguma.cli.lazy import Command, LazyGroup


class ImageGroup(LazyGroup):
    """The commands in the order of the work they belong to, as git's own help has them."""

    sections = {
        "Start a repository": {
            "init": Command("koguma.cli.image.making", "Make a repository and its signing key."),
        },
        "Make commits": {
            "build": Command("koguma.cli.image.making", "Build a Debian root from a recipe and commit it."),
            "import": Command("koguma.cli.image.importing", "Commit a root file system made elsewhere."),
            "edit": Command("koguma.cli.image.making", "Change a branch's head in a work tree of its own."),
            "commit": Command("koguma.cli.image.making", "Commit a directory, or what `edit` changed."),
            "status": Command(
                "koguma.cli.image.pending", "Show what a pending edit changed and what is to be settled."
            ),
        },
        "Combine histories": {
            "merge": Command("koguma.cli.image.merging", "Merge a commit into a branch."),
            "cherry-pick": Command("koguma.cli.image.merging", "Make the changes of other commits on a branch."),
            "revert": Command("koguma.cli.image.merging", "Undo what commits did, as a new commit."),
            "resolved": Command("koguma.cli.image.pending", "Settle conflicts of a merge, cherry-pick or revert."),
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
            "switch": Command("koguma.cli.image.pending", "Choose the branch that commands mean when none is named."),
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
        "Share commits": {
            "clone": Command("koguma.cli.image.transfer", "Make a repository of another one."),
            "fetch": Command("koguma.cli.image.transfer", "Bring a remote's branches, move none of yours."),
            "pull": Command("koguma.cli.image.transfer", "Fetch a branch and move yours forward to it."),
            "push": Command("koguma.cli.image.transfer", "Send branches and tags to a remote."),
            "remote": Command("koguma.cli.image.transfer", "Name other repositories: add, remove, list, show."),
            "serve": Command("koguma.cli.image.transfer", "Offer this repository to other sites over HTTP."),
        },
        "Trust commits": {
            "sign": Command("koguma.cli.image.trust", "Sign commits with this repository's key."),
            "verify": Command("koguma.cli.image.trust", "Say who signed commits."),
            "keys": Command("koguma.cli.image.trust", "List, add, rotate, revoke and export keys."),
        },
        "Keep a repository": {
            "gc": Command("koguma.cli.image.keeping", "Remove what nothing refers to and merge packs."),
            "du": Command("koguma.cli.image.keeping", "Show what commits cost in bytes."),
            "fsck": Command("koguma.cli.image.keeping", "Check every stored byte and every reference."),
        },
    }

    elsewhere = {
        "add": "a commit takes everything that `koguma image edit` changed: koguma image commit -m MESSAGE",
        "archive": "an image or a tar of a commit is made by: koguma image export REV --format tar -o FILE",
        "cat-file": "a file or a directory of a commit is shown by: koguma image show REV:PATH",
        "config": "policy.toml in the repository says how long labels stay and which branches are signed",
        "describe": "the names of commits are shown by: koguma image log --oneline",
        "for-each-ref": "branches and tags are listed by: koguma image branch --json; koguma image tag --json",
        "ls-files": "a directory of a commit is listed by: koguma image show REV:DIR",
        "ls-remote": "the refs of a remote are shown by: koguma image remote show NAME",
        "ls-tree": "a directory of a commit is listed by: koguma image show REV:DIR",
        "prune": "what nothing refers to is removed by: koguma image gc",
        "rebase": "commits are made again on a branch by: koguma image cherry-pick a..b -b BRANCH",
        "repack": "packs are merged by: koguma image gc",
        "reset": "a branch is moved by: koguma image branch -f BRANCH REV; koguma image reflog tells where it was",
        "restore": "a pending edit is thrown away by: koguma image edit BRANCH --discard",
        "rev-list": "commits are listed by: koguma image log",
        "rev-parse": "the id of a commit is shown by: koguma image log -1 REV",
        "show-ref": "branches and tags are listed by: koguma image branch --json; koguma image tag --json",
        "stash": "every branch has a pending edit of its own, which may wait; see: koguma image status",
        "version": "the version is printed by: koguma --version",
        "worktree": "a commit is shown at a directory by: koguma image mount REV DIR",
    }

    options_elsewhere = OPTIONS_ELSEWHERE

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parent's, after a look at what an unset variable of a shell leaves."""
        refuse_empty(args)
        rest: list[str] = super().parse_args(ctx, args)
        return rest


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
