"""Empties every disk of the machine: nothing of its last use is left for the next one."""

from __future__ import annotations

from koguma_node.console import say

from koguma_stage1.context import Context
from koguma_stage1.disk import layout, seen

OUTCOME = "the disks are empty"
PHASE = "clean"
TIMEOUT_S = 3600.0


def run(context: Context) -> None:
    for disk in seen.disks(context):
        layout.empty(layout.Disk(disk["name"]))
        say(f"{disk['name']} is empty")
