"""Reboots: the boot service sends a machine whose disk is written on to that disk."""

from __future__ import annotations

from koguma_node.console import say

from koguma_stage1 import power
from koguma_stage1.context import Context

OUTCOME = "the machine restarts"
PHASE = "restart"
TIMEOUT_S = 60.0


def run(context: Context) -> None:
    if context.profile["disk"]["image"] is not None:
        # Nothing of Koguma is in a foreign image: that it was written is all that anybody will ever hear.
        context.service.post("installed", {"uptime_s": None, "memory": {}}, context.deadline)
    say("rebooting into the disk")
    context.watchdog.disarm()
    power.reboot()
