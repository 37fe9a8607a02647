"""The graph of commits: ancestors, merge bases, and an order in which no commit comes before one made of it.

Everything here is pure but for `commit_of`, which reads a commit by its id. Nothing here looks into trees; `pathlog`
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush

from koguma.images.commits import Commit

CommitOf = Callable[[str], Commit]


def merge_base(commit_of: CommitOf, a: str, b: str) -> str | None:
    """The best common ancestor of two commits, the newest where there are several; None for unrelated histories."""
    return next(iter(merge_bases(commit_of, a, b)), None)


def merge_bases(commit_of: CommitOf, a: str, b: str) -> list[str]:
    """All best common ancestors, newest first: those that are no ancestor of another one. Several: a criss-cross."""
    of_a = ancestors(commit_of, [a])
    candidates: dict[str, Commit] = {}
    waiting, seen = [b], {b}
    while waiting:
        commit_id = waiting.pop()
        if commit_id in of_a:
            candidates[commit_id] = commit_of(commit_id)  # whatever is behind it cannot be better
            continue
        for parent in commit_of(commit_id).parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    if len(candidates) > 1:
        for commit_id in list(candidates):
            if commit_id in candidates:
                for other in ancestors(commit_of, candidates[commit_id].parents):
                    candidates.pop(other, None)
    return sorted(candidates, key=lambda commit_id: (-candidates[commit_id].time, commit_id))


def ancestors(commit_of: CommitOf, starts: Iterable[str], *, without: Iterable[str] = ()) -> dict[str, Commit]:
    """These commits and everything they were made of, but for the ids `without`, behind which nobody looks."""
    excluded = set(without)
    found: dict[str, Commit] = {}
    waiting = [start for start in starts if start not in excluded]
    while waiting:
        commit_id = waiting.pop()
        if commit_id in found:
            continue
        found[commit_id] = commit = commit_of(commit_id)
        waiting += [parent for parent in commit.parents if parent not in excluded]
    return found


def is_ancestor(commit_of: CommitOf, old: str, new: str) -> bool:
    """Whether `new` is `old` or was made of it."""
    waiting, seen = [new], {new}
    while waiting:
        commit_id = waiting.pop()
        if commit_id == old:
            return True
        for parent in commit_of(commit_id).parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return False


def in_order(
    commit_of: CommitOf, starts: Iterable[str], *, without: Iterable[str] = (), by_line: bool = False
) -> Iterator[Commit]:
    """Commits and their ancestors, none before all that were made of it, whatever their clocks said.

    Among those that may come next the newest does; with `by_line` a line of history is followed to its end before the
    next one begins, so that a drawing has few columns. `without` must be closed: with a commit, all its ancestors.

    While one commit alone is in sight, everything else is behind it, and it can be told without looking further: the
    beginning of a long history comes at once.
    """
    excluded = set(without)
    heads = sorted({start for start in starts if start not in excluded}, key=lambda start: commit_of(start).time)
    while len(heads) == 1:
        commit = commit_of(heads[0])
        yield commit
        heads = list(dict.fromkeys(parent for parent in commit.parents if parent not in excluded))
    if heads:
        yield from sort_topologically(ancestors(commit_of, heads, without=excluded), heads, by_line=by_line)


def sort_topologically(
    commits: Mapping[str, Commit], heads: Iterable[str], *, by_line: bool = False
) -> Iterator[Commit]:
    """The given commits in the order `in_order` describes; parents that are not among them are left out.

    By line, the last of `heads` comes first, as the last parent of a merge does.
    """
    children = dict.fromkeys(commits, 0)
    for commit in commits.values():
        for parent in commit.parents:
            if parent in children:
                children[parent] += 1
    first = [commit_id for commit_id in heads if not children[commit_id]]
    ready = [(-commits[commit_id].time, number, commit_id) for number, commit_id in enumerate(first)]
    if not by_line:
        heapify(ready)
    order = len(ready)
    while ready:
        commit_id = (ready.pop() if by_line else heappop(ready))[2]
        commit = commits[commit_id]
        yield commit
        for parent in commit.parents:
            if parent not in children:
                continue
            children[parent] -= 1
            if children[parent] == 0:
                order += 1
                item = (-commits[parent].time, order, parent)
                if by_line:
                    ready.append(item)
                else:
                    heappush(ready, item)
