"""Finds the commit that broke something by trying as few as possible. Owns `bisect.json` of a repository.

The question is always: which is the first bad commit among those that the bad one was made of and no good one was?
A trial at the right place halves them, in a history with merges as in a line. The state is one small file, replaced as
a whole, so that a search goes on after anything that interrupts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from koguma.images.commits import Commit, is_id
from koguma.images.errors import ImageError, StorageError
from koguma.images.files import locked, write_atomically
from koguma.images.history import CommitOf, ancestors, is_ancestor, merge_bases, sort_topologically
from koguma.images.refs import RefKind

if TYPE_CHECKING:
    from koguma.images.repository import Repository

TRIAL_TAGS = "bisect/"
"""Tags of commits that have no label of their own, while a machine tries them."""
_SKIP, _STOP_ABOVE = 125, 127
"""As `git bisect run` reads exit statuses: 0 is good, 125 cannot be tried, up to 127 is bad, more ends the search."""


class BisectError(ImageError):
    """A search is not begun, or what it is told contradicts itself."""


class Verdict(Enum):
    """What a trial says of a commit."""

    GOOD = "good"
    """It works."""
    BAD = "bad"
    """It is broken."""
    SKIP = "skip"
    """It cannot be tried."""


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the search's log."""

    verdict: str
    commit: str
    subject: str


@dataclass(frozen=True, slots=True)
class State:
    """What is known. Commits are whole ids."""

    bad: str
    good: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    log: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: try a commit, or know the answer."""

    trial: Commit | None
    """The commit to try; None when there is nothing left to try."""
    suspects: tuple[Commit, ...]
    """The commits that may be the first bad one; one of them: that is the answer. Newest first."""

    @property
    def found(self) -> Commit | None:
        return self.suspects[0] if self.trial is None and len(self.suspects) == 1 else None

    @property
    def trials_left(self) -> int:
        """About how many trials are needed yet."""
        return max(0, (len(self.suspects) - 1).bit_length())


def next_step(commit_of: CommitOf, state: State) -> Step:
    """Choose the next trial. Pure: the same state gives the same trial.

    1. A good commit that the bad one was not made of says nothing yet: where their histories parted comes first.
    2. Of the suspects, the one is tried whose verdict leaves the fewest in the worse case.
    3. A skipped one is not tried; the next best is, even when that leaves more.
    """
    for base in _untold_bases(commit_of, state):
        return Step(commit_of(base), tuple(_suspects(commit_of, state)))
    suspects = _suspects(commit_of, state)
    if len(suspects) == 1:
        return Step(None, tuple(suspects))
    behind = _counts_behind(suspects)
    usable = [item for item in suspects if item.id not in state.skipped and item.id != state.bad]
    if not usable:
        return Step(None, tuple(suspects))
    total = len(suspects)
    best = max(usable, key=lambda item: min(behind[item.id], total - behind[item.id]))
    return Step(best, tuple(suspects))


def tell(commit_of: CommitOf, state: State, commit: Commit, verdict: Verdict) -> State:
    """The state after a trial. Raises BisectError when the verdict contradicts what is known."""
    told = (*state.log, Told(verdict.value, commit.id, commit.subject))
    if verdict is Verdict.SKIP:
        return replace(state, skipped=tuple(dict.fromkeys((*state.skipped, commit.id))), log=told)
    if verdict is Verdict.GOOD:
        if is_ancestor(commit_of, state.bad, commit.id):
            raise BisectError(
                f"a good commit may not be made of the bad one, got {commit.short_id} and bad {state.bad[:12]};"
                f" if the two are the wrong way round, begin again with: koguma image bisect start"
            )
        return replace(state, good=tuple(dict.fromkeys((*state.good, commit.id))), log=told)
    if any(is_ancestor(commit_of, commit.id, good) for good in state.good):
        raise BisectError(
            f"what a good commit was made of may not be bad, got {commit.short_id}: the fault was mended since;"
            f" to find where it was mended, begin again with good and bad the other way round"
        )
    return replace(state, bad=commit.id, log=told)


def verdict_of_status(status: int) -> Verdict | None:
    """What a command's exit status says; None: the search must stop."""
    if status == 0:
        return Verdict.GOOD
    if status == _SKIP:
        return Verdict.SKIP
    return Verdict.BAD if 0 < status <= _STOP_ABOVE else None


class Bisection:
    """The search of one repository, kept on disk."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._path = repository.path / "bisect.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time changes the search; a second one is told at once."""
        lock = self._repository.path / "locks" / "bisect"
        try:
            with locked(lock, timeout_s=0, what="the search"):
                yield
        except ImageError as error:
            if str(lock) in str(error) and not isinstance(error, StorageError):
                raise BisectError("a search of this repository is being worked on by another process") from None
            raise

    def start(self, bad: str, good: Iterable[str]) -> Step:
        """Begin a search between revisions; one that is under way is dropped. Raises BisectError."""
        first = self._repository.resolve(bad)
        state = State(first.id, (), (), (Told("bad", first.id, first.subject),))
        for revision in good:
            state = tell(self._commit_of, state, self._repository.resolve(revision), Verdict.GOOD)
        if not state.good:
            raise BisectError("a search needs a bad and a good commit: koguma image bisect start BAD GOOD")
        step = next_step(self._commit_of, state)
        self._write(state)
        return step

    def state(self) -> State:
        """What is known. Raises BisectError when no search is under way."""
        try:
            return _decode(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            raise BisectError("no search is under way; begin one with: koguma image bisect start BAD GOOD") from None
        except (ValueError, TypeError, KeyError) as error:
            raise BisectError(
                f"bisect.json must have the form FORMAT.md draws: {error} ({self._path});"
                f" begin again with: koguma image bisect reset"
            ) from None

    def step(self) -> Step:
        return next_step(self._commit_of, self.state())

    def tell(self, verdict: Verdict, revision: str | None = None) -> Step:
        """Take a verdict on a commit, the one to be tried unless another is named; gives the next step."""
        state = self.state()
        if revision is not None:
            commit = self._repository.resolve(revision)
        else:
            trial = next_step(self._commit_of, state).trial
            if trial is None:
                raise BisectError("the search is over, nothing is left to try; end it with: koguma image bisect reset")
            commit = trial
        told = tell(self._commit_of, state, commit, verdict)
        step = next_step(self._commit_of, told)
        self._write(told)
        return step

    def run(self, trial: Callable[[Commit], int], say: Callable[[str], None]) -> Step:
        """Try commit after commit; `trial` gives an exit status. Raises BisectError when a trial ends the search."""
        step = self.step()
        while step.trial is not None:
            say(f"trying {step.trial.short_id} {step.trial.subject} ({describe(step)})")
            status = trial(step.trial)
            verdict = verdict_of_status(status)
            if verdict is None:
                raise BisectError(
                    f"a trial ends with status 0 (good), 125 (cannot be tried) or 1 to 127 (bad), got {status}"
                    f" (commit {step.trial.short_id}); the search is kept, go on with: koguma image bisect run"
                )
            say(f"{step.trial.short_id} is {verdict.value if verdict is not Verdict.SKIP else 'skipped'}")
            step = self.tell(verdict, step.trial.id)
        return step

    def reset(self) -> bool:
        """End the search; whether there was one."""
        there = self._path.exists()
        remove_trial_tags(self._repository)
        self._path.unlink(missing_ok=True)
        return there

    def _commit_of(self, commit_id: str) -> Commit:
        return self._repository.commit(commit_id)

    def _write(self, state: State) -> None:
        write_atomically(self._path, json.dumps(asdict(state), indent=1).encode() + b"\n")


def remove_trial_tags(repository: Repository) -> None:
    """Remove the tags that a search made, also those of one that was cut short."""
    for ref in repository.refs.all():
        if ref.kind is RefKind.TAG and ref.name.startswith(TRIAL_TAGS):
            repository.remove(ref.name)


def describe(step: Step) -> str:
    """How far the search is, in words."""
    trials = step.trials_left
    return f"{len(step.suspects)} suspects, about {trials} trial{'' if trials == 1 else 's'} left"


def _untold_bases(commit_of: CommitOf, state: State) -> Iterator[str]:
    for good in state.good:
        if is_ancestor(commit_of, good, state.bad):
            continue
        bases = merge_bases(commit_of, good, state.bad)
        if not bases:
            raise BisectError(f"good and bad must have a history in common, got {good[:12]} and {state.bad[:12]}")
        for base in bases:
            if base not in state.skipped and not any(
                is_ancestor(commit_of, base, other) for other in state.good if other != good
            ):
                yield base


def _suspects(commit_of: CommitOf, state: State) -> list[Commit]:
    known_good = ancestors(commit_of, state.good)
    found = ancestors(commit_of, [state.bad], without=known_good)
    return list(sort_topologically(found, [state.bad]))


def _counts_behind(suspects: list[Commit]) -> Mapping[str, int]:
    """Of each suspect, how many suspects it is or was made of: so many are left when it turns out bad."""
    position = {commit.id: number for number, commit in enumerate(suspects)}
    behind: dict[str, int] = {}
    for commit in reversed(suspects):
        bits = 1 << position[commit.id]
        for parent in commit.parents:
            bits |= behind.get(parent, 0)
        behind[commit.id] = bits
    return {commit_id: bits.bit_count() for commit_id, bits in behind.items()}


def _decode(document: Any) -> State:
    state = State(
        bad=document["bad"],
        good=tuple(document["good"]),
        skipped=tuple(document["skipped"]),
        log=tuple(Told(**item) for item in document["log"]),
    )
    if not all(is_id(item) for item in (state.bad, *state.good, *state.skipped)):
        raise ValueError("its commits are ids of 64 hex digits")
    return state
