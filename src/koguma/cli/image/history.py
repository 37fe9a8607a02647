# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that look at commits and at what lies between them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.image.common import Json, local_time, names_by_commit, open_repository, print_json, printable

if TYPE_CHECKING:
    from koguma.images.commits import Commit
    from koguma.images.diff import Diff

app = typer.Typer()


@app.command()
def log(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit, `branch~2`, or a range `a..b`.")] = "HEAD",
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="At most so many commits.")] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line per commit.")] = False,
    json: Json = False,
) -> None:
    """Show a commit and its ancestors, newest first."""
    from itertools import islice

    repository = open_repository(context)
    names = names_by_commit(repository)
    commits = islice(repository.log(revision), limit)
    if json:
        print_json([commit_document(item, names) for item in commits])
        return
    for item in commits:
        decoration = f" ({', '.join(names[item.id])})" if item.id in names else ""
        if oneline:
            print(f"{item.short_id}{decoration} {item.subject}")
        else:
            print(f"commit {item.id}{decoration}\nAuthor: {item.author}\nDate:   {local_time(item.time)}\n")
            print("".join(f"    {line}\n" for line in item.message.splitlines()))


@app.command()
def show(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")] = "HEAD",
    json: Json = False,
) -> None:
    """Show one commit and what it changed against its parent."""
    repository = open_repository(context)
    found = repository.resolve(revision)
    changes = repository.diff(found.parents[0], found.id) if found.parents else None
    if json:
        document = commit_document(found, names_by_commit(repository))
        document["diff"] = diff_document(changes) if changes else None
        print_json(document)
        return
    print(f"commit {found.id}\ntree   {found.tree}")
    for parent in found.parents:
        print(f"parent {parent}")
    print(f"Author: {found.author}\nDate:   {local_time(found.time)}\n")
    print("".join(f"    {line}\n" for line in found.message.splitlines()))
    if changes:
        print_diff(changes)


@app.command()
def diff(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="A revision, or a range `a..b`.")],
    new: Annotated[str | None, typer.Argument(help="A revision; HEAD otherwise.")] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Only packages and the numbers of files.")] = False,
    json: Json = False,
) -> None:
    """Show what changed between two commits, by package and by file."""
    from koguma.images.revisions import split_range

    ends = split_range(old) if new is None else None
    left, right = ends or (old, new or "HEAD")
    changes = open_repository(context).diff(left, right)
    if json:
        print_json(diff_document(changes))
    else:
        print_diff(changes, stat=stat)


@app.command()
def reflog(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A branch or tag.")] = "HEAD",
    json: Json = False,
) -> None:
    """Show where a branch has been, newest first; `branch@{1}` names the commit before the last change."""
    repository = open_repository(context)
    name = repository.refs.head() if name == "HEAD" else name
    changes = repository.reflog(name)
    if json:
        print_json(
            [{"old": c.old, "new": c.new, "time": c.time, "author": c.author, "reason": c.reason} for c in changes]
        )
        return
    for number, change in enumerate(changes):
        print(f"{change.new[:12]} {name}@{{{number}}} {local_time(change.time)} {change.reason}")


def commit_document(commit: Commit, names: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "commit": commit.id,
        "tree": commit.tree,
        "parents": list(commit.parents),
        "author": commit.author,
        "time": datetime.fromtimestamp(commit.time, UTC).isoformat(),
        "message": commit.message,
        "notes": dict(commit.notes),
        "refs": [name.removeprefix("tag: ") for name in names.get(commit.id, [])],
    }


def diff_document(diff: Diff) -> dict[str, Any]:
    """Paths that are not UTF-8 are given with surrogate escapes turned into `\\xNN`."""
    return {
        "packages": [
            {
                "name": item.name,
                "architecture": item.architecture,
                "change": item.change,
                "old_version": item.old_version,
                "new_version": item.new_version,
            }
            for item in diff.packages
        ],
        "files": [
            {
                "path": "/" + printable(item.path),
                "change": item.change,
                "kind": item.kind,
                "aspects": list(item.aspects),
                "old_size_bytes": item.old_size,
                "new_size_bytes": item.new_size,
            }
            for item in diff.files
        ],
    }


def print_diff(diff: Diff, *, stat: bool = False) -> None:
    for package in diff.packages:
        versions = " -> ".join(version for version in (package.old_version, package.new_version) if version)
        print(f"{package.change:10} {package.name}:{package.architecture} {versions}")
    if diff.packages:
        print()
    if not stat:
        for file in diff.files:
            aspects = f" ({', '.join(file.aspects)})" if file.aspects else ""
            print(f"{ {'added': 'A', 'removed': 'D', 'changed': 'M'}[file.change] } /{printable(file.path)}{aspects}")
        if diff.files:
            print()
    counts = [
        f"{sum(item.change == change for item in diff.files)} {change}" for change in ("added", "removed", "changed")
    ]
    grown = sum(item.new_size - item.old_size for item in diff.files)
    print(f"{len(diff.packages)} packages; files: {', '.join(counts)}; {grown:+,d} bytes")
