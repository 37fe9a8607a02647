"""Three-way merges of ordered tables: the one core that stanzas, accounts, lists and alternatives share.

The result does not depend on which side is ours, but for conflicts, which keep ours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Decide = Callable[[K, V | None, V | None, V | None], V | None]
"""(key, base, ours, theirs) -> the merged value, or None; called only when both sides changed it, and differently."""


def merge_tables(
    base: Mapping[K, V],
    ours: Mapping[K, V],
    theirs: Mapping[K, V],
    decide: Decide[K, V],
    sort_key: Callable[[K], Any] | None = None,
) -> dict[K, V]:
    """Merge tables key by key, in an order that follows both sides."""
    merged: dict[K, V] = {}
    for key in merge_orders(list(base), list(ours), list(theirs), sort_key):
        before, left, right = base.get(key), ours.get(key), theirs.get(key)
        value = decide(key, before, left, right) if differ(before, left, right) else pick(before, left, right)
        if value is not None:
            merged[key] = value
    return merged


def differ(base: V, ours: V, theirs: V) -> bool:
    """Whether both sides changed a value, and not to the same."""
    return base not in (ours, theirs) and ours != theirs


def pick(base: V, ours: V, theirs: V) -> V:
    """The value of whoever changed it; ours where both did."""
    return theirs if ours == base else ours


def merge_orders(
    base: Sequence[K], ours: Sequence[K], theirs: Sequence[K], sort_key: Callable[[K], Any] | None = None
) -> list[K]:
    """All keys of the three, once.

    Keys of the base stay in its order, or in that of the side that reordered them. New keys follow the key they stood
    behind; where both sides have new ones at one place these are sorted, so that swapping the sides changes nothing.
    """
    known = set(base)
    left, right = set(ours), set(theirs)
    common = [key for key in base if key in left and key in right]
    shared = set(common)
    our_order = [key for key in ours if key in shared]
    spine = list(base)
    if our_order != common or [key for key in theirs if key in shared] != common:
        reordered = our_order if our_order != common else [key for key in theirs if key in shared]
        spine = reordered + [key for key in base if key not in shared]
    ours_new, theirs_new = dict(_runs(ours, known)), dict(_runs(theirs, known))
    merged: list[K] = []
    for anchor in (None, *spine):
        if anchor is not None:
            merged.append(anchor)
        merged += _weave(ours_new.get(anchor, []), theirs_new.get(anchor, []), sort_key)
    return list(dict.fromkeys(merged))


def _runs(keys: Iterable[K], known: set[K]) -> Iterator[tuple[K | None, list[K]]]:
    """The new keys after each known one (None: before all)."""
    anchor: K | None = None
    run: list[K] = []
    for key in keys:
        if key in known:
            if run:
                yield anchor, run
            anchor, run = key, []
        else:
            run.append(key)
    if run:
        yield anchor, run


def _weave(ours: list[K], theirs: list[K], sort_key: Callable[[K], Any] | None) -> list[K]:
    if not theirs or ours == theirs:
        return ours
    if not ours:
        return theirs
    return sorted({*ours, *theirs}, key=sort_key or repr)
