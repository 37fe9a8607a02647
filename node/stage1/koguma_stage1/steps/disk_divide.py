"""Chooses the root's disk, or two that mirror each other, by the profile's hints; makes partitions and file systems."""

from __future__ import annotations

from typing import Any

from koguma_node.console import say

from koguma_stage1.context import Context
from koguma_stage1.disk import hints, layout, seen

OUTCOME = "the root's disk is divided"
PHASE = "disk"
TIMEOUT_S = 900.0


def run(context: Context) -> None:
    asked = context.profile["disk"]
    for disk in choose(seen.disks(context), asked):
        context.disks.append(layout.Disk(disk["name"]))
        size = f"{disk['size_bytes'] // 10**9} GB"
        say(f"the root goes to {disk['name']}, {size}, {disk['model'] or 'no model'}")
        layout.empty(context.disks[-1])
    if asked["image"] is None:
        context.root = layout.divide(context.disks)


def choose(disks: list[dict[str, Any]], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """One disk, or two that are not the same. Raises NodeError, before any disk was touched."""
    first = hints.choose(disks, asked["hints"])
    if asked["mirror"] is None:
        return [first]
    return [first, hints.choose([disk for disk in disks if disk is not first], asked["mirror"])]
