# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that look at commits and at what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from koguma.cli.errors import UsageFault
from koguma.cli.image.common import Json, decorations, local_time, names_by_commit, open_repository, print_json
from koguma.cli.image.paths import WithCount, WithPaths, paths_said
from koguma.cli.image.showing import (
    Form,
    commit_document,
    diff_document,
    print_diff,
    print_reboot,
    write_bytes,
)

if TYPE_CHECKING:
    from koguma.images.commits import Commit
    from koguma.images.diff import Diff
    from koguma.images.pathspec import PathSpec
    from koguma.images.repository import Repository

app = typer.Typer()

Patch = Annotated[bool, typer.Option("--patch", "-p", help="The changes of text files, line by line.")]
Stat = Annotated[bool, typer.Option("--stat", help="How many lines or bytes of each file changed.")]
NameOnly = Annotated[bool, typer.Option("--name-only", help="Only the paths that changed.")]


@app.command(cls=WithCount)
def log(
    context: typer.Context,
    revisions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REVISION]...", help="`compute`, `v1~2`, `a..b`, `a...b`, `^a`; HEAD otherwise."),
    ] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="At most so many commits.")] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line per commit.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the lines of history beside the commits.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="From every branch and tag.")] = False,
    author: Annotated[str | None, typer.Option(help="Only commits whose author matches this expression.")] = None,
    since: Annotated[str | None, typer.Option("--since", "--after", help="Only commits of this time or later.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", "--before", help="Only commits of this time or earlier.")
    ] = None,
    grep: Annotated[str | None, typer.Option(help="Only commits whose message matches this expression.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Oldest first.")] = False,
    patch: Patch = False,
    stat: Stat = False,
    name_only: NameOnly = False,
    json: Json = False,
) -> None:
    """Show commits and their ancestors, newest first; with paths, only those that changed them."""
    repository = open_repository(context)
    paths = _paths(context)
    texts = list(revisions or [])
    if everything:
        texts += [ref.commit for ref in repository.refs.all()]
    commits = _wanted(repository.log(texts, paths, by_line=graph), author, since, until, grep)
    commits = islice(commits, limit)
    if reverse:
        commits = iter(list(commits)[::-1])
    if json:
        names = names_by_commit(repository)
        print_json([commit_document(item, names) for item in commits])
        return
    names = decorations(repository)
    form = Form(patch=patch, stat=stat, name_only=name_only)
    if graph and (reverse or not form.plain):
        raise UsageFault(
            "--graph draws commits alone and newest first: say it without --patch, --stat, --name-only, --reverse"
        )
    if graph:
        _draw(list(commits), names, oneline=oneline)
        return
    for item in commits:
        print("\n".join(_lines(item, names, oneline=oneline)))
        if not form.plain:
            print_diff(_against_parent(repository, item.id, paths), repository.objects.read, form)
            print()


def _paths(context: typer.Context, more: Iterable[str] = ()) -> PathSpec | None:
    said = [*more, *paths_said(context)]
    if not said:
        return None
    from koguma.images.pathspec import PathSpec

    return PathSpec(said)


def _wanted(
    commits: Iterator[Commit], author: str | None, since: str | None, until: str | None, grep: str | None
) -> Iterator[Commit]:
    if not any((author, since, until, grep)):
        return commits
    import re
    import time

    from koguma.images.dates import parse_time
    from koguma.images.errors import RevisionError

    try:
        by, says = re.compile(author or ""), re.compile(grep or "", re.MULTILINE)
    except re.error as error:
        raise RevisionError(f"--author and --grep take regular expressions: {error}, got {author or grep!r}") from None
    first = parse_time(since, time.time()) if since else 0
    last = parse_time(until, time.time()) if until else None
    return (
        item
        for item in commits
        if item.time >= first
        and (last is None or item.time <= last)
        and by.search(item.author)
        and says.search(item.message)
    )


def _lines(item: Commit, names: dict[str, list[str]], *, oneline: bool) -> list[str]:
    decoration = f" ({', '.join(names[item.id])})" if item.id in names else ""
    if oneline:
        return [f"{item.short_id}{decoration} {item.subject}"]
    merge = [f"Merge:  {' '.join(parent[:12] for parent in item.parents)}"] if len(item.parents) > 1 else []
    return [
        f"commit {item.id}{decoration}",
        *merge,
        f"Author: {item.author}",
        f"Date:   {local_time(item.time)}",
        "",
        *(f"    {line}" for line in item.message.splitlines()),
        "",
    ]


def _draw(commits: list[Commit], names: dict[str, list[str]], *, oneline: bool) -> None:
    """Print commits with the graph to their left; lines to commits that are not shown end."""
    from koguma.images.graph import Graph

    shown = {item.id for item in commits}
    graph = Graph()
    for item in commits:
        drawn = graph.draw(item.id, [parent for parent in item.parents if parent in shown])
        below = list(drawn.below)
        for number, line in enumerate(_lines(item, names, oneline=oneline)):
            left = drawn.first if number == 0 else below.pop(0) if below else drawn.padding
            print(f"{left.ljust(len(drawn.first))}{line}".rstrip())
        for left in below:
            print(left)


@app.command()
def show(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(help="A commit; `REVISION:PATH` prints a file or lists a directory.")
    ] = "HEAD",
    patch: Patch = False,
    stat: Stat = False,
    name_only: NameOnly = False,
    json: Json = False,
) -> None:
    """Show one commit and what it changed against its parent, or a file of a commit."""
    from koguma.images.revisions import split_path

    repository = open_repository(context)
    if named := split_path(revision):
        _show_path(repository, *named, json=json)
        return
    found = repository.resolve(revision)
    changes = _against_parent(repository, found.id, None) if found.parents else None
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
        print_diff(changes, repository.objects.read, Form(patch=patch, stat=stat, name_only=name_only))


def _show_path(repository: Repository, revision: str, path: str, *, json: bool) -> None:
    from koguma.cli.image.showing import entry_document, listing_line
    from koguma.images.lookup import find_path, list_directory
    from koguma.images.trees import FILE

    where, entry = find_path(repository, repository.resolve(revision), path)
    if entry.kind == FILE and json:
        print_json(entry_document(entry, where))
    elif entry.kind == FILE:
        for piece in repository.objects.chunks(entry.digest) if entry.size else ():
            write_bytes(piece)
    else:
        entries = list_directory(repository.objects.read, entry)
        below = where + b"/" if where else b""
        if json:
            print_json([entry_document(item, below + item.name) for item in entries])
        else:
            print("".join(f"{listing_line(item)}\n" for item in entries), end="")


def _against_parent(repository: Repository, commit_id: str, paths: PathSpec | None) -> Diff:
    """What a commit changed against its first parent; the first commit changed nothing but is all new."""
    from koguma.images.diff import Diff

    found = repository.commit(commit_id)
    return repository.diff(found.parents[0], found.id, paths) if found.parents else Diff((), ())


@app.command(cls=WithPaths)
def diff(
    context: typer.Context,
    old: Annotated[
        str | None, typer.Argument(help="A revision, or a range `a..b` (`a...b`: from where b left a).")
    ] = None,
    new: Annotated[str | None, typer.Argument(help="A revision; HEAD otherwise.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", help="Only these files.")] = None,
    patch: Patch = False,
    stat: Stat = False,
    shortstat: Annotated[bool, typer.Option("--shortstat", help="Only packages and the numbers of files.")] = False,
    name_only: NameOnly = False,
    changelogs: Annotated[bool, typer.Option("--changelogs", help="All that changelogs say of upgrades.")] = False,
    reboot: Annotated[bool, typer.Option("--reboot", help="Only what a reboot from one to the other means.")] = False,
    json: Json = False,
) -> None:
    """Show what changed between two commits: packages, files, and what a reboot from one to the other means."""
    if old is None:
        raise UsageFault(
            "diff compares commits: koguma image diff A B; what a pending edit changed is told by koguma image status"
        )
    repository = open_repository(context)
    left, right = _ends(repository, old, new)
    paths = _paths(context, more or ())
    changes = repository.diff(left, right, paths)
    form = Form(patch, stat, shortstat, name_only, changelogs)
    if json:
        print_json(diff_document(changes, None if paths else repository.reboot(left, right, changes)))
        return
    if not reboot:
        print_diff(changes, repository.objects.read, form)
    if reboot or (form.plain and not paths and changes.files):
        print() if not reboot else None
        print_reboot(repository.reboot(left, right, None if paths else changes))


def _ends(repository: Repository, old: str, new: str | None) -> tuple[str, str]:
    """The two commits to compare: two words, or one that is a range."""
    from koguma.images.errors import RevisionError
    from koguma.images.history import merge_base
    from koguma.images.revisions import is_symmetric, split_range

    ends = split_range(old) if new is None else None
    left, right = (repository.resolve(text).id for text in ends or (old, new or "HEAD"))
    if ends and is_symmetric(old):
        base = merge_base(repository.commit, left, right)
        if base is None:
            raise RevisionError(f"a...b needs commits with a history in common, got {old!r}")
        left = base
    return left, right


@app.command("merge-base")
def merge_base_(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="A revision.")],
    b: Annotated[str, typer.Argument(help="A revision.")],
    everything: Annotated[bool, typer.Option("--all", help="All of them, where histories crossed.")] = False,
    json: Json = False,
) -> None:
    """Show the best common ancestor of two commits; exit status 1 when there is none."""
    from koguma.images.history import merge_bases

    repository = open_repository(context)
    found = merge_bases(repository.commit, repository.resolve(a).id, repository.resolve(b).id)
    found = found if everything else found[:1]
    if json:
        print_json(found)
    else:
        print("".join(f"{item}\n" for item in found), end="")
    if not found:
        raise typer.Exit(1)


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
