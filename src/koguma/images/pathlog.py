"""The history of some paths: only the commits that changed them, with parents that are such commits too.

As git simplifies by default: where a merge has the paths as one of its parents has them, only that parent's line is
followed, because the other one did not matter for what is there now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256

from koguma.images.commits import Commit
from koguma.images.diff import differs
from koguma.images.history import CommitOf, sort_topologically
from koguma.images.pathspec import PathSpec
from koguma.images.trees import DIRECTORY, Entry, Read, encode

_EMPTY = encode([])
_EMPTY_ROOT = Entry(b"", DIRECTORY, 0o755, 0, 0, digest=sha256(_EMPTY).digest())


def path_history(
    commit_of: CommitOf,
    read: Read,
    root_of: Callable[[Commit], Entry],
    starts: Iterable[str],
    paths: PathSpec,
    *,
    without: Mapping[str, Commit] | None = None,
    unwanted: Iterable[str] = (),
    by_line: bool = False,
) -> Iterator[Commit]:
    """The commits among `starts` and their ancestors that changed the paths, in the order of `history.in_order`.

    `without` holds the `unwanted` commits and all their ancestors. A merge that has the paths as one of these ancestors
    has them is told all the same, unless that is an unwanted commit itself: git's rule.
    """
    excluded, named = without or {}, set(unwanted)

    def read_or_empty(object_id: bytes) -> bytes:
        return _EMPTY if object_id == _EMPTY_ROOT.digest else read(object_id)

    def same(one: Commit, other: Commit | None) -> bool:
        if other is not None and one.tree == other.tree:
            return True
        before = root_of(other) if other is not None else _EMPTY_ROOT
        return not differs(read_or_empty, before, root_of(one), paths)

    followed: dict[str, tuple[str, ...]] = {}
    changed: dict[str, Commit] = {}
    heads = [start for start in starts if start not in excluded]
    waiting = list(heads)
    while waiting:
        commit = commit_of(waiting.pop())
        if commit.id in followed:
            continue
        relevant = tuple(parent for parent in commit.parents if parent not in excluded or parent in named)
        like = next((parent for parent in relevant if same(commit, commit_of(parent))), None)
        followed[commit.id] = (like,) if like else relevant
        if like is None and (relevant or _differs_from_what_is_left_out(commit, commit_of, same)):
            changed[commit.id] = commit
        waiting += [parent for parent in followed[commit.id] if parent not in excluded]
    rewritten = {
        commit_id: commit._replace(parents=_nearest(commit.parents, followed, changed))
        for commit_id, commit in changed.items()
    }
    yield from sort_topologically(rewritten, _heads(rewritten), by_line=by_line)


def _differs_from_what_is_left_out(
    commit: Commit, commit_of: CommitOf, same: Callable[[Commit, Commit | None], bool]
) -> bool:
    """Whether a commit whose parents are all left out, or that has none, changed anything."""
    if not commit.parents:
        return not same(commit, None)
    return any(not same(commit, commit_of(parent)) for parent in commit.parents)


def _nearest(
    parents: Iterable[str], followed: dict[str, tuple[str, ...]], changed: dict[str, Commit]
) -> tuple[str, ...]:
    """The first commits behind these that changed something; what did not has one parent that is followed, or none."""
    found = []
    for parent in parents:
        here: str | None = parent
        while here is not None and here not in changed:
            here = next(iter(followed.get(here, ())), None)
        if here is not None and here not in found:
            found.append(here)
    return tuple(found)


def _heads(commits: dict[str, Commit]) -> list[str]:
    """Those that no other is made of, the newest last: that one is told first."""
    behind = {parent for commit in commits.values() for parent in commit.parents}
    return sorted((item for item in commits if item not in behind), key=lambda item: commits[item].time)
