# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that combine histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.image.common import (
    Json,
    Message,
    become_root,
    open_repository,
    print_json,
    printable,
    say,
    update_labels,
    whole_message,
)
from koguma.cli.image.pending import conflict_document, conflict_line, conflicts_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koguma.images.merge import Outcome
    from koguma.images.repository import Repository

app = typer.Typer()

Into = Annotated[str | None, typer.Option("--branch", "-b", help="The branch to change; HEAD's otherwise.")]
NoCommit = Annotated[bool, typer.Option("--no-commit", "-n", help="Leave the result as a pending edit.")]
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
    become_root(context, needed=False)
    if abort or continue_:
        _end_merge(repository, branch, whole_message(message), abort=abort, json=json)
        return
    if revision is None:
        raise typer.BadParameter("say what to merge", param_hint="REVISION")
    if no_ff and ff_only:
        raise typer.BadParameter("--no-ff and --ff-only exclude each other")
    outcome = merge_commits(
        repository,
        revision,
        branch,
        message=whole_message(message),
        fast_forward=FastForward.NEVER if no_ff else FastForward.ONLY if ff_only else FastForward.ALLOWED,
        commit=not no_commit,
        rebuild=not no_rebuild,
        unrelated=allow_unrelated,
        say=say,
    )
    _finish(repository, branch, [outcome], "merge", json=json)


def _replaying(kind: str, told: str) -> None:
    """Make the command of a kind of replay. cherry-pick and revert take the same words and end the same ways."""

    @app.command(kind, help=told)
    def replay_commits(
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
        from koguma.images.replay import cherry_pick, revert
        from koguma.images.sessions import CHERRY_PICK, REVERT

        said = whole_message(message)
        if said and said.isdecimal():
            raise typer.BadParameter(f"-m is the message; the parent of a merge is said by: --mainline {said}")
        repository = open_repository(context)
        become_root(context, needed=False)
        if abort or continue_ or skip:
            _go_on(repository, kind, branch, said, abort=abort, skip=skip, json=json)
            return
        if not revisions:
            raise typer.BadParameter("say which commits", param_hint="REVISIONS")
        begin = {CHERRY_PICK: cherry_pick, REVERT: revert}[kind]
        outcomes = begin(
            repository,
            revisions,
            branch,
            message=said,
            mainline=mainline,
            commit=not no_commit,
            rebuild=not no_rebuild,
            say=say,
        )
        _finish(repository, branch, outcomes, kind, json=json)


_replaying("cherry-pick", "Make the changes of other commits on a branch; prints the branch's commit last.")
_replaying("revert", "Undo what commits did, as a new commit; prints the branch's commit last.")


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
        _print_end("aborted", repository, branch, json=json)
        return
    done = commit_edit(repository, branch, message)
    _finish(repository, branch, [Outcome(Result.COMMITTED, done.commit)], MERGE, json=json)


def _go_on(
    repository: Repository, kind: str, branch: str | None, message: str | None, *, abort: bool, skip: bool, json: bool
) -> None:
    from koguma.images import replay

    if abort:
        replay.abort(repository, kind, branch)
        update_labels(repository)
        _print_end("aborted", repository, branch, json=json)
        return
    outcomes = replay.go_on(repository, kind, branch, message=message, skip=skip, say=say)
    if outcomes:
        _finish(repository, branch, outcomes, kind, json=json)
    else:
        _print_end("skipped", repository, branch, json=json)


def _print_end(result: str, repository: Repository, branch: str | None, *, json: bool) -> None:
    branch = branch or repository.refs.head()
    commit = repository.resolve(branch).id
    print_json({"result": result, "branch": branch, "commit": commit}) if json else print(commit)


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
            print(conflict_line(conflict))
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
            f"koguma: {conflicts_open(len(last.conflicts))} in the edit of {branch}; settle with koguma image"
            f" edit {branch} and koguma image resolved -b {branch} PATH…, then koguma image commit -b {branch}"
        )
    elif last.result is Result.PREPARED:
        say(
            f"nothing is committed yet; koguma image status -b {branch} shows it,"
            f" koguma image commit -b {branch} keeps it"
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
        "conflicts": [conflict_document(item) for item in outcome.conflicts],
        "notes": [{"path": "/" + printable(item.path), "text": item.text} for item in outcome.notes],
    }
