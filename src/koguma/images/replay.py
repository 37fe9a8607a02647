"""Does again what a commit did, or undoes it, on another commit: cherry-pick and revert.

Both are merges with a base of their own: what lies between a commit and its parent is what is merged in, forwards or
backwards. Several commits are replayed one after the other, each as a commit; a conflict stops the row, and the session
remembers the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from koguma.images.commits import Commit
from koguma.images.edit import commit_session
from koguma.images.errors import EditError, MergeError
from koguma.images.merge import Outcome, Result, Sides, combine, unedited_head
from koguma.images.refs import RefKind
from koguma.images.repository import Repository, default_author
from koguma.images.revisions import split_range
from koguma.images.sessions import CHERRY_PICK, REVERT, Operation, Session, alone, end, pending

Say = Callable[[str], None]


def cherry_pick(
    repository: Repository,
    revisions: Sequence[str],
    branch: str | None = None,
    *,
    message: str | None = None,
    mainline: int | None = None,
    commit: bool = True,
    rebuild: bool = True,
    say: Say = lambda _: None,
) -> list[Outcome]:
    """Make the changes of these commits (or ranges `a..b`) on a branch; the last outcome tells how it ended.

    `mainline` is the number of the parent that a merge commit is compared with. Author and message are the commit's.
    """
    chosen = [item for revision in revisions for item in _commits(repository, revision)]
    return _start(
        repository,
        CHERRY_PICK,
        chosen,
        branch,
        message=message,
        mainline=mainline,
        commit=commit,
        rebuild=rebuild,
        say=say,
    )


def revert(
    repository: Repository,
    revisions: Sequence[str],
    branch: str | None = None,
    *,
    message: str | None = None,
    mainline: int | None = None,
    commit: bool = True,
    rebuild: bool = True,
    say: Say = lambda _: None,
) -> list[Outcome]:
    """Undo on a branch what these commits (or ranges) did, the newest of a range first."""
    chosen = [item for revision in revisions for item in reversed(_commits(repository, revision))]
    return _start(
        repository, REVERT, chosen, branch, message=message, mainline=mainline, commit=commit, rebuild=rebuild, say=say
    )


def go_on(
    repository: Repository,
    kind: str,
    branch: str | None = None,
    *,
    message: str | None = None,
    skip: bool = False,
    rebuild: bool = True,
    say: Say = lambda _: None,
) -> list[Outcome]:
    """Commit the session that a conflict left (or throw it away, with `skip`), then replay the rest."""
    branch = branch or repository.refs.head()
    with alone(repository, branch):
        operation, session = _interrupted(repository, kind, branch)
        outcomes = []
        if skip:
            end(repository, branch)
        else:
            done = commit_session(repository, branch, session, message)
            outcomes.append(Outcome(Result.COMMITTED if done.created else Result.UNCHANGED, done.commit))
        rest = [repository.commit(item) for item in operation.rest]
        mainline = int(operation.notes["parent"]) if "parent" in operation.notes else None
        outcomes += _replay(
            repository, kind, rest, branch, operation.start, None, mainline, commit=True, rebuild=rebuild, say=say
        )
        return outcomes


def abort(repository: Repository, kind: str, branch: str | None = None) -> Commit:
    """Throw the session away and lead the branch back to where it was before the first of the row; returns that."""
    branch = branch or repository.refs.head()
    with alone(repository, branch):
        operation, session = _interrupted(repository, kind, branch)
        if operation.start and operation.start != session.base:
            repository.refs.update(
                RefKind.BRANCH,
                branch,
                operation.start,
                old=session.base,
                author=default_author(),
                reason=f"{kind}: aborted",
            )
        end(repository, branch)
        return repository.commit(operation.start or session.base)


def _commits(repository: Repository, revision: str) -> list[Commit]:
    """What a revision names, oldest first."""
    if split_range(revision) is None:
        return [repository.resolve(revision)]
    found = list(repository.log(revision))[::-1]
    if not found:
        raise MergeError(f"a range must have commits in it, got {revision!r}")
    return found


def _start(
    repository: Repository,
    kind: str,
    chosen: Sequence[Commit],
    branch: str | None,
    *,
    message: str | None,
    mainline: int | None,
    commit: bool,
    rebuild: bool,
    say: Say,
) -> list[Outcome]:
    branch = branch or repository.refs.head()
    if len(chosen) > 1 and not commit:
        raise MergeError(f"without a commit only one can be replayed at a time, got {len(chosen)}")
    with alone(repository, branch):
        start = unedited_head(repository, branch).id
        return _replay(
            repository, kind, chosen, branch, start, message, mainline, commit=commit, rebuild=rebuild, say=say
        )


def _replay(
    repository: Repository,
    kind: str,
    chosen: Sequence[Commit],
    branch: str,
    start: str,
    message: str | None,
    mainline: int | None,
    *,
    commit: bool,
    rebuild: bool,
    say: Say,
) -> list[Outcome]:
    outcomes = []
    for number, item in enumerate(chosen):
        rest = tuple(later.id for later in chosen[number + 1 :])
        operation, sides = _plan(repository, kind, item, branch, mainline)
        operation = replace(operation, message=message or operation.message, rest=rest, start=start)
        ours = unedited_head(repository, branch)
        outcome = combine(repository, branch, ours, sides, operation, commit=commit, rebuild=rebuild, say=say)
        outcomes.append(outcome)
        if outcome.result is Result.CONFLICTS:
            break
    return outcomes


def _plan(
    repository: Repository, kind: str, item: Commit, branch: str, mainline: int | None
) -> tuple[Operation, Sides]:
    """What to merge for one commit."""
    parent = _parent(kind, item, mainline)
    changed, before = repository.root(item), repository.root(repository.commit(parent)) if parent else None
    notes = {kind: item.id} | ({"mainline": parent, "parent": str(mainline)} if parent and mainline else {})
    here = f"ours ({branch})"
    read = repository.objects.read
    if kind == CHERRY_PICK:
        operation = Operation(kind, item.id, item.short_id, item.message, author=item.author, notes=notes)
        return operation, Sides(before, changed, (here, f"theirs ({item.short_id} {item.subject})"), read)
    if before is None:
        raise MergeError(f"a commit without a parent cannot be undone, got {item.short_id} ({item.subject})")
    message = f'Revert "{item.subject}"\n\nThis undoes commit {item.id}.'
    operation = Operation(kind, item.id, item.short_id, message, notes=notes)
    return operation, Sides(changed, before, (here, f"theirs (before {item.short_id} {item.subject})"), read)


def _parent(kind: str, item: Commit, mainline: int | None) -> str | None:
    if mainline is not None:
        if not 1 <= mainline <= len(item.parents):
            raise MergeError(f"--mainline must be 1 to {len(item.parents)} for commit {item.short_id}, got {mainline}")
        return item.parents[mainline - 1]
    if len(item.parents) > 1:
        raise MergeError(
            f"{item.short_id} is a merge; say with --mainline 1 or 2 against which of its parents the {kind} is meant"
        )
    return item.parents[0] if item.parents else None


def _interrupted(repository: Repository, kind: str, branch: str) -> tuple[Operation, Session]:
    session = pending(repository, branch)
    if session is None or session.operation is None or session.operation.kind != kind:
        raise EditError(f"no {kind} is pending on branch {branch!r}; koguma image status -b {branch} tells what is")
    return session.operation, session
