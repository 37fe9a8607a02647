"""Overwrites every disk of the machine: nothing of its last use is left for the next one.

All disks together must be done within TIMEOUT_S and the site's `nodes.boot_timeout_s`, or cleaning has failed.
"""

from __future__ import annotations

import time

from koguma_node.console import say

from koguma_stage1.context import Context
from koguma_stage1.disk import layout, seen

OUTCOME = "the disks are empty"
PHASE = "clean"
TIMEOUT_S = 3600.0


def run(context: Context) -> None:
    for disk in seen.disks(context):
        layout.erase(layout.Disk(disk["name"]), context.deadline - time.monotonic())
        say(f"{disk['name']} is empty")
