"""Collects what the machine is: DMI, CPUs, memory, disks, NICs with their LLDP neighbours, BMC with Koguma's user."""

from __future__ import annotations

import time
from pathlib import Path

from koguma_node.console import say

from koguma_stage1 import bmc, hardware, lldp
from koguma_stage1.context import Context

OUTCOME = "the machine is described and its BMC has Koguma's user"
PHASE = "register"
TIMEOUT_S = 150.0
DRIVERS_WAIT_S = 20.0
LLDP_WAIT_S = 8.0
POLL_S = 0.05


def run(context: Context) -> None:
    _wait_for_drivers(context)
    ports = hardware.ports(context.arguments.mac)
    listener = lldp.Listener({port["name"]: port["mac"] for port in ports})
    try:
        context.inventory = {
            "uuid": context.arguments.uuid,
            **hardware.identity(),
            "cpu": hardware.cpu(),
            "memory_bytes": hardware.memory_bytes(),
            "disks": hardware.disks(),
            "ports": ports,
            "bmc": bmc.ensure_user(),
        }
        # The NICs' links came up meanwhile, and their neighbours have spoken.
        neighbours = listener.collect(LLDP_WAIT_S)
    finally:
        listener.close()
    context.inventory["ports"] = [
        {**port, "lldp": neighbours.get(port["name"])} for port in hardware.ports(context.arguments.mac)
    ]
    say(f"{len(ports)} NICs, {len(neighbours)} with an LLDP neighbour")


def _wait_for_drivers(context: Context) -> None:
    """Until bring-up has loaded every driver; what has not appeared by then is left out of the inventory."""
    end = time.monotonic() + DRIVERS_WAIT_S
    done = Path(context.work / "drivers-loaded")
    while not done.exists() and time.monotonic() < end:
        time.sleep(POLL_S)
