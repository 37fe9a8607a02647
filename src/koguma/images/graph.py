"""Draws a history beside its log, as `git log --graph` does: a column for each line of history.

```
*   merge          a commit; a merge opens a column to its right
|\\
| * other line
* | one line
|/                 lines that lead to the same commit become one, one step a row
* fork
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of one commit. A text beside it goes on with `padding` when it is longer than `below`."""

    first: str
    below: tuple[str, ...]
    padding: str


class Graph:
    """Fed with commits in an order in which none comes after a commit it was made of."""

    def __init__(self) -> None:
        self._edges: list[str] = []
        """The commit that each column leads to."""

    def draw(self, commit: str, parents: Sequence[str]) -> Drawn:
        """The rows of one commit; columns move as its parents ask for."""
        edges = self._edges
        if commit not in edges:
            edges.append(commit)
        at = edges.index(commit)
        first = "".join("* " if number == at else "| " for number in range(len(edges)))
        # Where the column to the left leads to a merge's first parent, the merge joins it and needs no new column.
        joins_left = len(parents) > 1 and at > 0 and edges[at - 1] == parents[0]
        opened = list(parents[1:] if joins_left else parents)
        right = len(edges) - at - 1
        rows = ["| " * (at - 1) + "|/" + "| " * (right + 1)] if joins_left else []
        rows += ["| " * (at + step) + "|" + "\\ " * (right + 1) for step in range(len(opened) - 1)]
        width = 2 * (len(edges) + max(0, len(opened) - 1))
        new_edges = [*edges[:at], *opened, *edges[at + 1 :]]
        places = [2 * number for number in range(len(new_edges))]
        if not parents:  # the column ends here; those to the right are still where they were
            places = [place + 2 * (number >= at) for number, place in enumerate(places)]
        self._edges = list(dict.fromkeys(new_edges))
        rows += self._collapse(dict(zip(places, new_edges, strict=True)))
        return Drawn(first.ljust(width), tuple(row.rstrip() for row in rows), "| " * len(self._edges))

    def _collapse(self, edges: dict[int, str]) -> list[str]:
        """Rows in which every edge moves to its column, at most two places a row and never over another's column.

        1. From the left, an edge that is not where its column is moves one place left when that place is free.
        2. When an edge to the same commit is there already, the two are one from now on.
        3. When another edge is there, it is crossed: the edge moves two places.
        """
        column = {commit: 2 * number for number, commit in enumerate(self._edges)}
        rows = []
        while any(place // 2 != column[commit] // 2 for place, commit in edges.items()):
            moved: dict[int, str] = {}
            for place, commit in sorted(edges.items()):
                if place == column[commit]:
                    moved[place] = commit
                elif place - 1 not in moved:
                    moved[place - 1] = commit
                elif moved[place - 1] != commit:
                    moved[place - 2] = commit
            last = max(moved)
            rows.append(
                "".join(
                    " " if place not in moved else "|" if place == column[moved[place]] else "/"
                    for place in range(last + 1)
                )
            )
            edges = moved
        return rows
