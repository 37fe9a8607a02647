# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that show a commit as a mounted directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koguma.cli.image.common import Json, open_repository, print_json, print_table

app = typer.Typer()


@app.command()
def mount(
    context: typer.Context,
    revision: Annotated[str | None, typer.Argument(help="A branch, tag, commit or expression.")] = None,
    directory: Annotated[Path | None, typer.Argument(help="An empty directory.")] = None,
    rw: Annotated[bool, typer.Option("--rw", help="Writable; what is written is thrown away by umount.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List what is mounted, dead mounts too.")] = False,
    json: Json = False,
) -> None:
    """Show a commit's tree at a directory, at once and whatever its size; `umount` ends it."""
    from koguma.images import views

    repository = open_repository(context)
    if list_:
        found = views.mounted_views(repository)
        if json:
            print_json(
                [
                    {"place": item.place, "commit": item.commit, "writable": item.writable, "alive": item.alive}
                    for item in found
                ]
            )
            return
        words = {True: "", False: "dead: take it away with umount"}
        print_table(
            [(item.place, item.commit[:12], "rw" if item.writable else "ro", words[item.alive]) for item in found]
        )
        return
    if revision is None or directory is None:
        raise typer.BadParameter("say a revision and an empty directory, or --list")
    print(views.mount_view(repository, revision, directory, writable=rw).commit)


@app.command()
def umount(
    context: typer.Context, directory: Annotated[Path, typer.Argument(help="Where a commit is mounted.")]
) -> None:
    """Take away what `mount` showed, in use or not; prints the commit's id."""
    from koguma.images import views

    print(views.unmount_view(open_repository(context), directory).commit)
