"""Tells the boot service what the machine is; it decides whether the machine becomes a node."""

from __future__ import annotations

from koguma_node.console import say

from koguma_stage1.context import Context

OUTCOME = "the boot service knows the machine"
PHASE = "register"
TIMEOUT_S = 600.0
"""The server behind the boot service may be away; a machine that waits longer had better be seen to reboot."""


def run(context: Context) -> None:
    answer = context.service.post("register", context.inventory, context.deadline)
    say(f"this machine is node {answer.get('name', '(without a name)')}")
