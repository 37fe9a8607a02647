"""Which commits a set of refs holds wholly: their tips and all ancestors, looked up no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from koguma.images.commits import Commit, history
from koguma.images.errors import ObjectMissingError


class Complete:
    """Answers whether a commit is among the ancestors of these tips. A question walks on where the last one ended."""

    def __init__(self, read: Callable[[str], Commit], has: Callable[[bytes], bool], tips: Iterable[str]) -> None:
        self._has = has
        self._tips = [tip for tip in dict.fromkeys(tips) if has(bytes.fromhex(tip))]
        self._found = set(self._tips)
        self._rest = self._walk(read)

    def __call__(self, commit: str) -> bool:
        if commit in self._found:
            return True
        if not self._has(bytes.fromhex(commit)):
            return False
        for found in self._rest:
            self._found.add(found)
            if found == commit:
                return True
        return False

    @property
    def tips(self) -> list[str]:
        return self._tips

    def _walk(self, read: Callable[[str], Commit]) -> Iterator[str]:
        """Each commit once, however many tips lead to it; of one tip the newest first."""
        seen: set[str] = set()
        queue: list[tuple[int, str, tuple[str, ...]]] = []

        def look(commit_id: str) -> None:
            if commit_id in seen:
                return
            seen.add(commit_id)
            try:
                commit = read(commit_id)
            except ObjectMissingError:
                return  # a damaged history; what was not seen counts as absent and is brought again
            heappush(queue, (-commit.time, commit_id, commit.parents))

        for tip in self._tips:
            look(tip)
            while queue:
                _, commit_id, parents = heappop(queue)
                yield commit_id
                for parent in parents:
                    look(parent)


def is_ancestor(read: Callable[[str], Commit], old: str, new: str) -> bool:
    """Whether `new` contains all that `old` does."""
    if old == new:
        return True
    try:
        return any(commit.id == old for commit in history(read, new))
    except ObjectMissingError:
        return False
