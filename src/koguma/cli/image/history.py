# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that look at commits and at what lies between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from koguma.cli.errors import UsageFault, one_line
from koguma.cli.image import looking
from koguma.cli.image.common import Json, local_time, message_lines, names_by_commit, open_repository, print_json
from koguma.cli.image.paths import WithCount, WithPaths, paths_said
from koguma.cli.image.showing import Form, commit_document, diff_document, print_diff, write_bytes

if TYPE_CHECKING:
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
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", "--max-count", min=1, max=2**31, help="At most so many commits.")
    ] = None,
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
    no_merges: Annotated[bool, typer.Option("--no-merges", help="Leave out commits of two parents.")] = False,
    merges: Annotated[bool, typer.Option("--merges", help="Only commits of two parents.")] = False,
    decorate: Annotated[bool, typer.Option("--decorate", hidden=True, help="As always.")] = False,  # noqa: ARG001 - git's
    patch: Patch = False,
    stat: Stat = False,
    name_only: NameOnly = False,
    json: Json = False,
) -> None:
    """Show commits and their ancestors, newest first; with paths, only those that changed them."""
    looking.log(
        open_repository(context),
        *(revisions or ()),
        paths=paths_said(context),
        limit=limit,
        oneline=oneline,
        graph=graph,
        everything=everything,
        author=author,
        since=since,
        until=until,
        grep=grep,
        reverse=reverse,
        parents_max=1 if no_merges else None,
        parents_min=2 if merges else 0,
        patch=patch,
        stat=stat,
        name_only=name_only,
        json=json,
    )


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
    changes = looking.against_parent(repository, found.id, None) if found.parents else None
    if json:
        document = commit_document(found, names_by_commit(repository))
        document["diff"] = diff_document(changes) if changes else None
        print_json(document)
        return
    print(f"commit {found.id}\ntree   {found.tree}")
    for parent in found.parents:
        print(f"parent {parent}")
    print(f"Author: {one_line(found.author)}\nDate:   {local_time(found.time)}\n")
    print("".join(f"{line}\n" for line in message_lines(found.message)))
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
    looking.diff(
        open_repository(context),
        old,
        new,
        *(more or ()),
        dashed=paths_said(context),
        patch=patch,
        stat=stat,
        shortstat=shortstat,
        name_only=name_only,
        changelogs=changelogs,
        reboot=reboot,
        json=json,
    )


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
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]", help="A branch or tag; HEAD's branch otherwise.")
    ] = None,
    json: Json = False,
) -> None:
    """Show where a branch has been, newest first; `branch@{1}` names the commit before the last change."""
    repository = open_repository(context)
    names = words or ["HEAD"]
    if names[0] == "show" and not repository.refs.find("show"):
        names = names[1:] or ["HEAD"]  # as git has it
    if len(names) > 1:
        raise UsageFault(f"one branch or tag is told of, got {names[1]!r} too")
    name = names[0]
    name = repository.refs.head() if name == "HEAD" else name
    changes = repository.reflog(name)
    if json:
        print_json(
            [{"old": c.old, "new": c.new, "time": c.time, "author": c.author, "reason": c.reason} for c in changes]
        )
        return
    for number, change in enumerate(changes):
        print(f"{change.new[:12]} {name}@{{{number}}} {local_time(change.time)} {one_line(change.reason)}")
