"""Limits of the whole fleet and of one rack: how many deployments and cleanings at once, how many power actions a
second. Pure: `koguma.db.admission` counts and remembers.

What counts is the operation itself: it is admitted once, before its first step, and counts until it ends, however it
ends. So nothing has to be given back, and nothing outlives a worker that dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEPLOY = "deploy"
CLEAN = "clean"

KINDS: Mapping[str, str] = {
    "deploy": DEPLOY,
    "deploy by steps": DEPLOY,
    "clean": CLEAN,
    "clean by steps": CLEAN,
    "undeploy": CLEAN,
}
"""What a flow counts as; other flows are not limited."""


@dataclass(frozen=True)
class Limits:
    """0: no limit. A rack is what a node's property or variable `rack` says, else its chassis; a node without either
    is in none.
    """

    deploys: int = 0
    deploys_per_rack: int = 0
    cleans: int = 0
    cleans_per_rack: int = 0
    power_actions_per_s: float = 0.0
    power_actions_per_s_per_rack: float = 0.0

    def of(self, kind: str) -> tuple[int, int]:
        """At once in the fleet, and in one rack."""
        if kind == DEPLOY:
            return self.deploys, self.deploys_per_rack
        return self.cleans, self.cleans_per_rack

    def kind_of(self, flow: str) -> str:
        """What the flow counts as, where that has a limit; else nothing."""
        kind = KINDS.get(flow, "")
        return kind if kind and any(self.of(kind)) else ""

    def power_paces(self, rack: str) -> list[tuple[str, float]]:
        """The scopes whose pace a node's power keeps, and the seconds between two actions in each."""
        fleet = [("", 1 / self.power_actions_per_s)] if self.power_actions_per_s else []
        one_rack = [(rack, 1 / self.power_actions_per_s_per_rack)] if rack and self.power_actions_per_s_per_rack else []
        return fleet + one_rack


@dataclass(frozen=True)
class Waiting:
    """A node whose operation waits to be admitted."""

    node: int
    rack: str


def admitted(limits: Limits, kind: str, under_way: Mapping[str, int], waiting: Sequence[Waiting]) -> list[int]:
    """The nodes that may begin now. `under_way` counts what was admitted, by rack; `waiting` has the longest first. A
    rack that is full holds up nobody outside of it.
    """
    at_once, in_one_rack = limits.of(kind)
    room = at_once - sum(under_way.values()) if at_once else len(waiting)
    count = Counter(under_way)
    begins: list[int] = []
    for item in waiting:
        if len(begins) >= room:
            break
        if in_one_rack and item.rack and count[item.rack] >= in_one_rack:
            continue
        count[item.rack] += 1
        begins.append(item.node)
    return begins
