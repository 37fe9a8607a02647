# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that keep a repository sound and small."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from koguma.cli.image.common import Json, open_repository, print_json, progress, say

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


@app.command()
def gc(
    context: typer.Context,
    grace: Annotated[
        str, typer.Option("--grace", help="Keep what is younger, for instance 2w, 3d, 12h, 90m or 0.")
    ] = "2w",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Remove what nothing refers to and merge packs; safe beside commits, pulls and readers."""
    from dataclasses import asdict

    from koguma.images.gc import collect

    done = collect(open_repository(context), grace_s=seconds(grace), dry_run=dry_run, say=say)
    if json:
        print_json(asdict(done))
        return
    would = "would be " if dry_run else ""
    print(
        f"{done.objects} objects {would}removed, {done.freed_bytes:,d} bytes {would}freed in packs,"
        f" {done.swept.size_bytes:,d} in {len(done.swept.paths)} caches and leftovers"
    )
    print(f"{done.packs_before} packs before, {done.packs_after} after; {done.kept_young} unused objects are too young")
    if done.waiting:
        print(f"{done.waiting} packs go with the next gc: a writer that began earlier is at work")


def seconds(text: str) -> float:
    """`2w`, `3d`, `12h`, `90m`, `30s` or plain seconds."""
    units = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not number.isdigit():
        raise typer.BadParameter(f"a time is a number and one of {' '.join(units)}, got {text!r}")
    return int(number) * unit
