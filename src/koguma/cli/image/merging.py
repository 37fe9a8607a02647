# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that combine histories, and those that tell and settle what is pending."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.image.common import Json, open_repository, print_json, printable, say, update_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koguma.images.diff import Diff
    from koguma.images.merge import Outcome
    from koguma.images.merging import Conflict
    from koguma.images.repository import Repository
    from koguma.images.sessions import Operation
    from koguma.images.status import Status

app = typer.Typer()

Into = Annotated[str | None, typer.Option("--branch", "-b", help="The branch to change; HEAD's otherwise.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="Otherwise one that says what was done.")]
NoCommit = Annotated[bool, typer.Option("--no-commit", help="Leave the result as a pending edit.")]
NoRebuild = Annotated[
    bool, typer.Option("--no-rebuild", help="Run nothing in the image; stale caches are conflicts then.")
]
Mainline = Annotated[
    int | None, typer.Option("--mainline", min=1, help="Of a merge commit: the parent to compare it with.")
]
Abort = Annotated[bool, typer.Option("--abort", help="Give up: the branch is as it was before.")]
Continue = Annotated[bool, typer.Option("--continue", help="Commit what was resolved and go on.")]
Skip = Annotated[bool, typer.Option("--skip", help="Leave out the commit that conflicts and go on.")]


@app.command()
def merge(
    context: typer.Context,
    revision: Annotated[str | None, typer.Argument(help="What to merge: a branch, tag, commit or expression.")] = None,
    branch: Into = None,
    message: Message = None,
    no_ff: Annotated[bool, typer.Option("--no-ff", help="Make a commit where moving the branch would do.")] = False,
    ff_only: Annotated[bool, typer.Option("--ff-only", help="Only ever move the branch.")] = False,
    no_commit: NoCommit = False,
    no_rebuild: NoRebuild = False,
    allow_unrelated: Annotated[
        bool, typer.Option("--allow-unrelated", help="Merge although nothing is known of a common past.")
    ] = False,
    abort: Abort = False,
    continue_: Continue = False,
    json: Json = False,
) -> None:
    """Merge a commit into a branch; prints the branch's commit last.

    Conflicts are listed, with exit status 1, and left in the branch's pending edit: settle them with `edit` and
    `resolved`, see them with `status`, then `commit -b BRANCH`. Files that a program of the image makes from others are
    made again by it.
    """
    from koguma.images.merge import FastForward
    from koguma.images.merge import merge as merge_commits

    repository = open_repository(context)
    if abort or continue_:
        _end_merge(repository, branch, message, abort=abort, json=json)
        return
    if revision is None:
        raise typer.BadParameter("say what to merge", param_hint="REVISION")
    if no_ff and ff_only:
        raise typer.BadParameter("--no-ff and --ff-only exclude each other")
    outcome = merge_commits(
        repository,
        revision,
        branch,
        message=message,
        fast_forward=FastForward.NEVER if no_ff else FastForward.ONLY if ff_only else FastForward.ALLOWED,
        commit=not no_commit,
        rebuild=not no_rebuild,
        unrelated=allow_unrelated,
        say=say,
    )
    _finish(repository, branch, [outcome], "merge", json=json)


@app.command("cherry-pick")
def cherry_pick(
    context: typer.Context,
    revisions: Annotated[list[str] | None, typer.Argument(help="Commits, or ranges `a..b`.")] = None,
    branch: Into = None,
    message: Message = None,
    mainline: Mainline = None,
    no_commit: NoCommit = False,
    no_rebuild: NoRebuild = False,
    abort: Abort = False,
    continue_: Continue = False,
    skip: Skip = False,
    json: Json = False,
) -> None:
    """Make the changes of other commits on a branch; prints the branch's commit last."""
    from koguma.images import replay

    repository = open_repository(context)
    if abort or continue_ or skip:
        _go_on(repository, "cherry-pick", branch, message, abort=abort, skip=skip, json=json)
        return
    if not revisions:
        raise typer.BadParameter("say which commits", param_hint="REVISIONS")
    outcomes = replay.cherry_pick(
        repository,
        revisions,
        branch,
        message=message,
        mainline=mainline,
        commit=not no_commit,
        rebuild=not no_rebuild,
        say=say,
    )
    _finish(repository, branch, outcomes, "cherry-pick", json=json)


@app.command()
def revert(
    context: typer.Context,
    revisions: Annotated[list[str] | None, typer.Argument(help="Commits, or ranges `a..b`.")] = None,
    branch: Into = None,
    message: Message = None,
    mainline: Mainline = None,
    no_commit: NoCommit = False,
    no_rebuild: NoRebuild = False,
    abort: Abort = False,
    continue_: Continue = False,
    skip: Skip = False,
    json: Json = False,
) -> None:
    """Undo what commits did, as a new commit; prints the branch's commit last."""
    from koguma.images import replay

    repository = open_repository(context)
    if abort or continue_ or skip:
        _go_on(repository, "revert", branch, message, abort=abort, skip=skip, json=json)
        return
    if not revisions:
        raise typer.BadParameter("say which commits", param_hint="REVISIONS")
    outcomes = replay.revert(
        repository,
        revisions,
        branch,
        message=message,
        mainline=mainline,
        commit=not no_commit,
        rebuild=not no_rebuild,
        say=say,
    )
    _finish(repository, branch, outcomes, "revert", json=json)


@app.command()
def resolved(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(help="Paths in the image; a directory means all below it.")],
    branch: Into = None,
    ours: Annotated[bool, typer.Option("--ours", help="Take the whole path from the branch.")] = False,
    theirs: Annotated[bool, typer.Option("--theirs", help="Take the whole path from what is merged.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Take the whole path from what both came from.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even with conflict markers in it.")] = False,
) -> None:
    """Say that the conflicts of these paths are settled, or settle them by taking one side."""
    from koguma.images.resolving import open_conflicts, resolve

    sides = [name for name, chosen in (("ours", ours), ("theirs", theirs), ("base", base)) if chosen]
    if len(sides) > 1:
        raise typer.BadParameter("--ours, --theirs and --base exclude each other")
    repository = open_repository(context)
    branch = branch or repository.refs.head()
    settled = resolve(
        repository, branch, [os.fsencode(path) for path in paths], take=next(iter(sides), None), force=force
    )
    for conflict in settled:
        print(f"settled {_place(conflict)}")
    left = len(open_conflicts(repository, branch))
    say(f"{left} conflicts are open" if left else f"all is settled; commit it with: koguma image commit -b {branch}")


@app.command()
def status(
    context: typer.Context,
    branch: Annotated[str | None, typer.Option("--branch", "-b", help="The branch; HEAD's otherwise.")] = None,
    json: Json = False,
) -> None:
    """Show a branch's pending edit: what it changed, by package and by file, and what is to be settled."""
    from koguma.images.status import status as status_of

    found = status_of(open_repository(context), branch)
    if json:
        print_json(_status_document(found))
    else:
        _print_status(found)


@app.command()
def switch(
    context: typer.Context,
    branch: Annotated[str, typer.Argument(help="The branch that commands mean when none is named.")],
) -> None:
    """Make a branch HEAD: the one that commands mean when none is named. Pending edits stay with their branches."""
    from koguma.images.refs import RefKind
    from koguma.images.sessions import head_of

    repository = open_repository(context)
    if repository.refs.get(RefKind.TAG, branch):
        raise typer.BadParameter(f"HEAD is a branch, {branch!r} is a tag; koguma image branch NAME {branch} makes one")
    head = head_of(repository, branch)
    repository.refs.set_head(branch)
    print(f"on branch {branch} at {head[:12]}")


def _end_merge(repository: Repository, branch: str | None, message: str | None, *, abort: bool, json: bool) -> None:
    from koguma.images.edit import commit_edit, discard
    from koguma.images.errors import EditError
    from koguma.images.merge import Outcome, Result
    from koguma.images.sessions import MERGE, read_session

    branch = branch or repository.refs.head()
    session = read_session(repository, branch)
    if session is None or session.operation is None or session.operation.kind != MERGE:
        raise EditError(f"no merge is pending on branch {branch!r}; koguma image status -b {branch} tells what is")
    if abort:
        discard(repository, branch)
        print(repository.resolve(branch).id)
        return
    done = commit_edit(repository, branch, message)
    _finish(repository, branch, [Outcome(Result.COMMITTED, done.commit)], MERGE, json=json)


def _go_on(
    repository: Repository, kind: str, branch: str | None, message: str | None, *, abort: bool, skip: bool, json: bool
) -> None:
    from koguma.images import replay

    if abort:
        print(replay.abort(repository, kind, branch).id)
        update_labels(repository)
        return
    outcomes = replay.go_on(repository, kind, branch, message=message, skip=skip, say=say)
    if outcomes:
        _finish(repository, branch, outcomes, kind, json=json)
    else:
        print(repository.resolve(branch or "HEAD").id)


def _finish(repository: Repository, branch: str | None, outcomes: Sequence[Outcome], kind: str, *, json: bool) -> None:
    """Tell how it ended; labels follow, the branch's commit comes last."""
    from koguma.images.merge import Result

    branch = branch or repository.refs.head()
    last = outcomes[-1]
    if any(item.result in (Result.COMMITTED, Result.FAST_FORWARD) for item in outcomes):
        state = update_labels(repository)
        for missing in state.unlabelled:
            if missing.commit == last.commit.id:
                say(f"no label: {missing.reason}")
    if json:
        print_json(_outcome_document(branch, last))
    else:
        for conflict in last.conflicts:
            print(_conflict_line(conflict))
        _say_result(branch, last, kind)
    if last.result is Result.CONFLICTS:
        raise typer.Exit(1)
    if not json:
        print(last.commit.id)


def _say_result(branch: str, last: Outcome, kind: str) -> None:
    from koguma.images.merge import Result

    decided = f"; rules decided {len(last.notes)} files (--json names them)" if last.notes else ""
    if last.result is Result.CONFLICTS:
        say(
            f"koguma: {len(last.conflicts)} conflicts are open in the edit of {branch}; settle them with koguma image"
            f" edit {branch} and koguma image resolved -b {branch} PATH…, then koguma image commit -b {branch}"
        )
    elif last.result is Result.PREPARED:
        say(
            f"nothing is committed yet; koguma image status -b {branch} shows it, koguma image commit -b {branch} keeps it"
        )
    elif last.result is Result.UNCHANGED:
        say(f"nothing changed, so there is no new commit: the {kind}'s changes are there already")
    elif last.result is not Result.COMMITTED:
        say(last.result.value)
    elif decided:
        say(f"merged{decided}")


def _outcome_document(branch: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "result": outcome.result.value,
        "branch": branch,
        "commit": outcome.commit.id,
        "conflicts": [_conflict_document(item) for item in outcome.conflicts],
        "notes": [{"path": "/" + printable(item.path), "text": item.text} for item in outcome.notes],
    }


def _conflict_document(conflict: Conflict) -> dict[str, Any]:
    return conflict.to_json() | {"path": "/" + printable(conflict.path)}


def _status_document(found: Status) -> dict[str, Any]:
    from koguma.cli.image.history import diff_document

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
        "conflicts": [_conflict_document(item) for item in found.open_conflicts],
        "settled": [_conflict_document(item) for item in found.settled_conflicts],
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
    at = f"at {found.commit.short_id} {found.commit.subject}" if found.commit else "without a commit yet"
    print(f"on branch {found.branch}{'' if found.branch == found.head else ' (not HEAD)'} {at}")
    if found.session is None:
        print("no pending edit")
    else:
        _print_session(found)
    if found.others:
        print(f"\nother branches with a pending edit: {', '.join(found.others)}")


def _print_session(found: Status) -> None:
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
        _print_changes(found.changes)
    else:
        print("\nnothing changed so far")
    if found.open_conflicts:
        print(f"\nsettle with koguma image edit {found.branch} and koguma image resolved -b {found.branch} PATH…")
    elif not found.moved:
        print(f"\nkeep it with koguma image commit -b {found.branch}{'' if operation else ' -m MESSAGE'}")


def _print_changes(changes: Diff) -> None:
    from koguma.cli.image.history import print_diff

    print_diff(changes)


def _print_conflicts(title: str, conflicts: Sequence[Conflict]) -> None:
    if conflicts:
        print(f"\n{title}:")
        for conflict in conflicts:
            print(f"  {_conflict_line(conflict)}")


def _conflict_line(conflict: Conflict) -> str:
    command = f"; settle with: {conflict.command}" if conflict.command else ""
    return f"{conflict.problem.value:8} {_place(conflict)}: ours {conflict.ours}; theirs {conflict.theirs}{command}"


def _place(conflict: Conflict) -> str:
    subject = f" ({conflict.subject})" if conflict.subject else ""
    return f"/{printable(conflict.path)}{subject}"
