"""A harness that kills operations on a repository with SIGKILL at random moments and looks at what is left.

An operation runs in a forked process, so that a kill lands in its work and not in the start of an interpreter. The
sequence of operations and of delays follows from a seed alone: `Crashes(path, seed)` replays a run. Other operations
join by a function of their own in `operations`. A second repository beside the first is what it pushes to and pulls
from; it is looked at as closely.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from koguma.errors import KogumaError
from koguma.images.errors import ImageError
from koguma.images.fsck import fsck
from koguma.images.gc import collect
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.transfer.fetching import pull
from koguma.images.transfer.pushing import push
from koguma.images.transfer.remotes import add_remote, find_remote
from tests.unit.images.making import make_bootable_tree, make_tree

_FILES = 20
_FIRST_GUESS_S = 0.1
_ROUNDS_MAX = 2000


@dataclass(slots=True)
class Round:
    """What happened in a round, for the message when something is wrong."""

    number: int
    operation: str
    delay_s: float
    outcome: str = "?"
    """done, refused, killed."""
    error: str = ""


Operation = Callable[[Repository], None]


class Crashes:
    """A repository, another one that is its remote `site`, a tree to commit, and a seed."""

    def __init__(self, path: Path, tree: Path, seed: int) -> None:
        self.path = path
        self.site = path.with_name("site")
        self.tree = tree
        self.their_tree = tree.with_name("their-tree")
        self.seed = seed
        self.rounds: list[Round] = []
        self._chance = random.Random(seed)
        self._usual_s: dict[str, float] = {}
        self.operations: Mapping[str, Callable[[], Operation]] = {
            "commit": self._commit,
            "commit to another branch": self._commit_elsewhere,
            "gc": self._gc,
            "pull": self._pull,
            "push": self._push,
            "ref update": self._ref_update,
            "labels": lambda: lambda repository: repository.update_labels() and None,
        }

    def start(self) -> None:
        make_bootable_tree(self.tree)
        with Repository.init(self.path) as repository:
            repository.commit_tree(self.tree, "main", "start", remember=False)
            add_remote(self.path, "site", str(self.site))
        make_bootable_tree(self.their_tree)
        with Repository.init(self.site) as site:
            site.commit_tree(self.their_tree, "theirs", "start", remember=False)

    def run(self, rounds: int) -> None:
        """Kill (or now and then let finish) so many operations; raises AssertionError with the story."""
        for _ in range(rounds):
            name = self._chance.choice(sorted(self.operations))
            self.round(name, self.operations[name](), finish=self._chance.random() < 0.15)

    def run_until(self, kills: int, *, full: bool = False) -> None:
        """Go on until so many operations were killed at work, and one found the disk `full`."""
        while self.killed().total() < kills or (full and not self._met_a_full_disk()):
            assert len(self.rounds) < _ROUNDS_MAX, "the machine is too fast to be killed, or its disk too large"
            self.run(10)

    def _met_a_full_disk(self) -> bool:
        return any(item.outcome == "refused" and "No space left" in item.error for item in self.rounds)

    def killed(self) -> Counter[str]:
        """How many of each operation were killed at work."""
        return Counter(item.operation for item in self.rounds if item.outcome == "killed")

    def round(self, name: str, operation: Operation, *, finish: bool) -> Round:
        """One operation, killed unless `finish`, and the checks after it."""
        usual = self._usual_s.get(name, _FIRST_GUESS_S)
        this = Round(len(self.rounds), name, 600 if finish else self._chance.uniform(0, 1.1 * usual))
        self.rounds.append(this)
        before = self._refs()
        began = time.monotonic()
        self._fork(operation, this)
        if this.outcome == "done":
            self._usual_s[name] = time.monotonic() - began
        self._check(before, this)
        return this

    def _fork(self, operation: Operation, this: Round) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        words = self.tree.with_name("words")  # not on a disk that may be full
        words.write_bytes(b"")
        child = os.fork()
        if child == 0:
            os._exit(_run(operation, self.path, words))
        deadline = time.monotonic() + this.delay_s
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() >= deadline:
                os.killpg(child, signal.SIGKILL) if _leads_group(child) else os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
            time.sleep(0.0005)
        this.error = words.read_text()
        code = os.waitstatus_to_exitcode(status)
        this.outcome = {0: "done", 1: "refused", -signal.SIGKILL: "killed"}.get(code, f"failed ({code})")

    def _check(self, before: dict[str, str], this: Round) -> None:
        try:
            assert this.outcome in ("done", "refused", "killed"), this.error
            after = self._refs()
            moved = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
            assert len(moved) <= 1, f"one operation moves one ref, these moved: {moved}"
            assert this.outcome != "refused" or not moved, "an operation that failed moved a ref"
            for path in (self.path, self.site):
                with Repository.open(path) as repository:
                    problems = fsck(repository).problems
                    assert problems == (), problems
                    for ref in repository.refs.all():
                        assert repository.reflog(ref.name)[0].new == ref.commit
        except (AssertionError, KogumaError) as error:
            story = "\n".join(map(str, self.rounds[-5:]))
            raise AssertionError(f"seed {self.seed}, the last rounds:\n{story}\n{error}") from error

    def _refs(self) -> dict[str, str]:
        """Where every branch and tag of both repositories is."""
        found = {}
        for path in (self.path, self.site):
            with Repository.open(path) as repository:
                for ref in repository.refs.all():
                    found[f"{path.name}: {ref.kind.word} {ref.name}"] = ref.commit
        return found

    # Operations: what is random is decided here, in this process, so that the seed alone tells what happens.

    def _grow(self, tree: Path) -> None:
        for number in range(_FILES):
            content = self._chance.randbytes(self._chance.choice([10, 3_000, 60_000]))
            make_tree(tree, {f"usr/share/d{number % 5}/f{self._chance.randrange(60)}": content})

    def _commit(self) -> Operation:
        self._grow(self.tree)
        return lambda repository: repository.commit_tree(self.tree, "main", "a commit") and None

    def _commit_elsewhere(self) -> Operation:
        self._grow(self.tree)
        branch = self._chance.choice(["a", "b"])
        return lambda repository: repository.commit_tree(self.tree, branch, "a commit", remember=False) and None

    def _gc(self) -> Operation:
        keep_s = self._chance.choice([0.0, 90 * 86400.0])
        if self._chance.random() < 0.3:
            return lambda _: collect(Repository.open(self.site), grace_s=0, reflog_keep_s=keep_s) and None
        return lambda repository: collect(repository, grace_s=0, reflog_keep_s=keep_s) and None

    def _push(self) -> Operation:
        return lambda repository: push(repository, find_remote(self.path, "site"), ["main"]) and None

    def _pull(self) -> Operation:
        """There is something to pull unless the disk had no room for it."""
        self._grow(self.their_tree)
        with Repository.open(self.site) as site, suppress(ImageError):
            site.commit_tree(self.their_tree, "theirs", "a commit", remember=False)
        return lambda repository: pull(repository, find_remote(self.path, "site"), "theirs") and None

    def _ref_update(self) -> Operation:
        what = self._chance.choice(["branch", "tag", "remove", "remove", "move"])
        name, number = self._chance.choice(["a", "b", "t1", "t2"]), self._chance.randrange(1, 4)

        def update(repository: Repository) -> None:
            found = repository.refs.find(name)
            if what == "remove" and found and name != repository.refs.head():
                repository.remove(name)
            elif what == "move" and found and found.kind is RefKind.BRANCH:
                history = list(repository.log(name))
                repository.move_branch(name, history[min(number, len(history) - 1)].id)
            elif not found and name.startswith("t"):
                repository.create_tag(name, "main")
            elif not found:
                repository.create_branch(name, "main")

        return update


def _run(operation: Operation, path: Path, words: Path) -> int:
    """In the child: its exit status. Never returns into pytest."""
    try:
        os.setsid()
        operation(Repository.open(path))
    except KogumaError as error:
        words.write_text(str(error))
        return 1
    except BaseException:
        words.write_text(traceback.format_exc())
        return 3
    return 0


def _leads_group(child: int) -> bool:
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False
