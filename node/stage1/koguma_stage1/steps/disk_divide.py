"""Chooses the root's disk by the hints of the profile, and makes its partitions and file systems."""

from __future__ import annotations

from koguma_node.console import say

from koguma_stage1.context import Context
from koguma_stage1.disk import hints, layout, seen

OUTCOME = "the root's disk is divided"
PHASE = "disk"
TIMEOUT_S = 900.0


def run(context: Context) -> None:
    chosen = hints.choose(seen.disks(context), context.profile["disk"]["hints"])
    context.disk = layout.Disk(chosen["name"])
    say(f"the root goes to {chosen['name']}, {chosen['size_bytes'] // 10**9} GB, {chosen['model'] or 'no model'}")
    layout.empty(context.disk)
    if context.profile["disk"]["image"] is None:
        context.uuids = layout.divide(context.disk)
