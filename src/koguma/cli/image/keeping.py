# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that keep a repository sound and small."""

from __future__ import annotations

import sys

import typer

from koguma.cli.image.common import Json, open_repository, print_json, progress

app = typer.Typer()


@app.command()
def fsck(context: typer.Context, json: Json = False) -> None:
    """Check every stored byte and that everything referred to is there; exit status 1 when something is wrong."""
    from koguma.images.fsck import fsck as check

    repository = open_repository(context)
    with progress("checking") as told:
        report = check(repository, told)
    if json:
        print_json({"objects": report.objects, "packs": report.packs, "problems": list(report.problems)})
    else:
        for problem in report.problems:
            print(problem)
        print(f"{report.packs} packs, {report.objects} objects, {len(report.problems)} problems")
    if report.problems:
        print("koguma: the repository is damaged; the problems are listed on standard output", file=sys.stderr)
        raise typer.Exit(1)
