# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that tell and settle what is pending on a branch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.errors import UsageFault, one_line
from koguma.cli.image.common import Json, become_root, open_repository, print_json, printable, say, update_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koguma.images.merging import Conflict
    from koguma.images.repository import Repository
    from koguma.images.sessions import Operation
    from koguma.images.status import Status

app = typer.Typer()

Into = Annotated[str | None, typer.Option("--branch", "-b", help="The branch; HEAD's otherwise.")]


@app.command()
def resolved(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(help="Paths in the image; a directory means all below it.")],
    branch: Into = None,
    ours: Annotated[
        bool, typer.Option("--ours", help="Take the path, or what is in conflict of it, from the branch.")
    ] = False,
    theirs: Annotated[bool, typer.Option("--theirs", help="Take it from what is merged.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Take it from what both came from.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even with conflict markers in it.")] = False,
) -> None:
    """Say that the conflicts of these paths are settled, or settle them by taking one side."""
    from koguma.images.resolving import open_conflicts, resolve

    sides = [name for name, chosen in (("ours", ours), ("theirs", theirs), ("base", base)) if chosen]
    if len(sides) > 1:
        raise typer.BadParameter("--ours, --theirs and --base exclude each other")
    repository = open_repository(context)
    become_root(context)
    branch = branch or repository.refs.head()
    settled = resolve(
        repository, branch, [os.fsencode(path) for path in paths], take=next(iter(sides), None), force=force
    )
    for conflict in settled:
        print(f"settled {_place(conflict)}")
    left = len(open_conflicts(repository, branch))
    say(conflicts_open(left) if left else f"all is settled; commit it with: koguma image commit -b {branch}")


@app.command()
def status(
    context: typer.Context,
    branch: Into = None,
    json: Json = False,
) -> None:
    """Show a branch's pending edit: what it changed, by package and by file, and what is to be settled."""
    from koguma.images.sessions import pending_edits
    from koguma.images.status import status as status_of

    repository = open_repository(context)
    if pending_edits(repository):
        become_root(context)
    found = status_of(repository, branch)
    if json:
        print_json(_status_document(found))
    else:
        _print_status(found)


@app.command()
def switch(
    context: typer.Context,
    branch: Annotated[str, typer.Argument(help="The branch that commands mean when none is named.")],
    start: Annotated[str | None, typer.Argument(help="With --create: the commit it starts from.")] = None,
    create: Annotated[bool, typer.Option("--create", "-c", help="Make the branch first.")] = False,
) -> None:
    """Make a branch HEAD: the one that commands mean when none is named. Pending edits stay with their branches.

    A branch that only one remote has is made from there.
    """
    from koguma.images.refs import RefKind

    repository = open_repository(context)
    if start is not None and not create:
        raise UsageFault(f"a branch that is there has its commit, got {start!r} too; -c makes a new one")
    if create:
        head = repository.create_branch(branch, start or "HEAD").commit
        update_labels(repository)
    elif found := repository.refs.get(RefKind.BRANCH, branch):
        head = found
    else:
        head = _from_remote(repository, branch)
    repository.refs.set_head(branch)
    print(f"on branch {branch} at {head[:12]}")


def _from_remote(repository: Repository, branch: str) -> str:
    """Make a branch that one remote has; the commit it is at. Raises RefError."""
    from koguma.images.errors import RefError
    from koguma.images.refs import RefKind

    if repository.refs.get(RefKind.TAG, branch):
        raise RefError(f"HEAD is a branch, {branch!r} is a tag; koguma image branch NAME {branch} makes one")
    there = [ref for ref in repository.refs.remotes() if ref.name.partition("/")[2] == branch]
    if len(there) > 1:
        names = " or ".join(ref.name for ref in there)
        raise RefError(f"one remote must have branch {branch!r}; say which: koguma image switch -c {branch} {names}")
    if not there:
        raise RefError(
            f"HEAD is a branch, there is none named {branch!r}; koguma image branch lists them,"
            f" koguma image switch -c {branch} makes one"
        )
    head = repository.create_branch(branch, there[0].name).commit
    say(f"branch {branch} is made of {there[0].name}")
    update_labels(repository)
    return head


def conflict_document(conflict: Conflict) -> dict[str, Any]:
    return conflict.to_json() | {"path": "/" + printable(conflict.path)}


def conflicts_open(count: int) -> str:
    return "1 conflict is open" if count == 1 else f"{count} conflicts are open"


def conflict_line(conflict: Conflict) -> str:
    command = f"; settle with: {conflict.command}" if conflict.command else ""
    return f"{conflict.problem.value:8} {_place(conflict)}: ours {conflict.ours}; theirs {conflict.theirs}{command}"


def _place(conflict: Conflict) -> str:
    subject = f" ({conflict.subject})" if conflict.subject else ""
    return f"/{printable(conflict.path)}{subject}"


def _status_document(found: Status) -> dict[str, Any]:
    from koguma.cli.image.showing import diff_document

    operation = found.session.operation if found.session else None
    return {
        "branch": found.branch,
        "head": found.head,
        "commit": found.commit.id if found.commit else None,
        "pending": found.session is not None,
        "open": found.is_open,
        "base": found.session.base if found.session else None,
        "moved": found.moved,
        "operation": _operation_document(operation) if operation else None,
        "changes": diff_document(found.changes) if found.changes else None,
        "conflicts": [conflict_document(item) for item in found.open_conflicts],
        "settled": [conflict_document(item) for item in found.settled_conflicts],
        "other_pending": list(found.others),
    }


def _operation_document(operation: Operation) -> dict[str, Any]:
    return {
        "kind": operation.kind,
        "commit": operation.commit,
        "name": operation.name,
        "message": operation.message,
        "rest": list(operation.rest),
    }


def _print_status(found: Status) -> None:
    at = f"at {found.commit.short_id} {one_line(found.commit.subject)}" if found.commit else "without a commit yet"
    print(f"on branch {found.branch}{'' if found.branch == found.head else ' (not HEAD)'} {at}")
    if found.session is None:
        print("no pending edit")
    else:
        _print_session(found)
    if found.others:
        print(f"\nother branches with a pending edit: {', '.join(found.others)}")


def _print_session(found: Status) -> None:
    from koguma.cli.image.showing import print_diff

    session = found.session
    operation = session.operation if session else None
    if operation:
        rest = f", {len(operation.rest)} commits to follow" if operation.rest else ""
        print(f"pending {operation.kind} of {operation.name} ({operation.commit[:12]}){rest}")
    else:
        print("pending edit")
    if found.is_open:
        print("  it is open in another process")
    if found.moved:
        print(
            f"  the branch has moved since; the edit can only be discarded: koguma image edit {found.branch} --discard"
        )
    _print_conflicts("open conflicts", found.open_conflicts)
    _print_conflicts("settled conflicts", found.settled_conflicts)
    if found.changes is None:
        print("\nwhat it changed cannot be read while it is being changed")
    elif found.changes.files:
        print("\nchanged so far:")
        print_diff(found.changes)
    else:
        print("\nnothing changed so far")
    if found.open_conflicts:
        print(f"\nsettle with koguma image edit {found.branch} and koguma image resolved -b {found.branch} PATH…")
    elif not found.moved:
        print(f"\nkeep it with koguma image commit -b {found.branch}{'' if operation else ' -m MESSAGE'}")


def _print_conflicts(title: str, conflicts: Sequence[Conflict]) -> None:
    if conflicts:
        print(f"\n{title}:")
        for conflict in conflicts:
            print(f"  {conflict_line(conflict)}")
