# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that keep a repository sound and small."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from koguma.cli.errors import one_line
from koguma.cli.image.common import Json, open_repository, print_json, print_table, progress, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from koguma.images.du import CommitCost, Cost, Usage
    from koguma.images.fsck import Report
    from koguma.images.repository import Repository

app = typer.Typer()


@app.command()
def fsck(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what the repository itself can tell.")] = False,
    repair_from: Annotated[
        str | None, typer.Option("--repair-from", help="Repair, with objects of this repository or remote.")
    ] = None,
    json: Json = False,
) -> None:
    """Check every stored byte and that everything referred to is there; exit status 1 when something is wrong."""
    from koguma.images.fsck import fsck as check

    repository = open_repository(context)
    with progress("checking") as told:
        report = _repair(repository, repair_from, told) if repair or repair_from else check(repository, told)
    if json:
        print_json(_report_document(report))
    else:
        for problem in report.problems:
            print(one_line(problem))
        print(f"{report.packs} packs, {report.objects} objects, {len(report.problems)} problems")
    if report.problems:
        print("koguma: the repository is damaged; the problems are listed on standard output", file=sys.stderr)
        raise typer.Exit(1)


def _repair(repository: Repository, text: str | None, told: Callable[[int], None] | None) -> Report:
    from contextlib import closing

    from koguma.images.repair import repair
    from koguma.images.sources import open_source

    if text is None:
        done = repair(repository, say=say, progress=told)
    else:
        with closing(open_source(repository, text)) as source:
            done = repair(repository, source, say=say, progress=told)
    say(f"{done.restored} objects restored, {done.indexes} indexes and {done.artifacts} boot artifacts made again")
    return done.after


def _report_document(report: Report) -> dict[str, object]:
    return {
        "objects": report.objects,
        "packs": report.packs,
        "problems": list(report.problems),
        "damage": [
            {
                "object": item.object.hex(),
                "why": item.why,
                "lost": item.lost,
                "paths": item.affects.paths,
                "commits": item.affects.commits,
                "refs": item.affects.refs,
                "labels": item.affects.labels,
            }
            for item in report.damage
        ],
    }


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
    if not number.isdecimal():
        raise typer.BadParameter(f"a time is a number and one of {' '.join(units)}, got {text!r}")
    return int(number) * unit


@app.command()
def du(
    context: typer.Context,
    revisions: Annotated[list[str] | None, typer.Argument(help="Commits or ranges; otherwise all refs.")] = None,
    json: Json = False,
) -> None:
    """Show what refs cost in bytes, or what single commits cost and added."""
    from dataclasses import asdict

    from koguma.images.du import commit_costs, usage

    repository = open_repository(context)
    if revisions:
        costs = commit_costs(repository, revisions)
        print_json([asdict(cost) for cost in costs]) if json else _print_commits(costs)
    else:
        found = usage(repository)
        print_json(asdict(found)) if json else _print_usage(found)


def _print_commits(costs: list[CommitCost]) -> None:
    rows: list[tuple[str, ...]] = [("commit", "raw", "stored", "added raw", "added stored")]
    rows += [(cost.commit[:12], *_columns(cost.tree), *_columns(cost.added)) for cost in costs]
    print_table(rows)


def _print_usage(found: Usage) -> None:
    rows: list[tuple[str, ...]] = [("ref", "raw", "stored", "unique raw", "unique stored")]
    rows += [(f"{ref.kind} {ref.name}", *_columns(ref.total), *_columns(ref.unique)) for ref in found.refs]
    for name, cost in (("shared", found.shared), ("unreachable", found.unreachable), ("all", found.all)):
        rows.append((name, *_columns(cost), "", ""))
    print_table(rows)
    print(f"\n{found.all.objects} objects in {found.packs} packs\n")
    areas: list[tuple[str, ...]] = [("directory", "on disk", "inodes")]
    print_table(areas + [(area.name, _megabytes(area.size_bytes), str(area.inodes)) for area in found.areas])


def _columns(cost: Cost) -> tuple[str, str]:
    return _megabytes(cost.raw_bytes), _megabytes(cost.stored_bytes)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
