"""Waits for the lease of the boot NIC, which /init's `bring-up` gets beside Python's start."""

from __future__ import annotations

import time
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage1.context import Context, Lease

OUTCOME = "the boot NIC has an address"
PHASE = "stage1"
TIMEOUT_S = 90.0
"""A switch port without portfast forwards after 30 to 50 seconds."""
POLL_S = 0.02
MTU_MIN, MTU_MAX = 576, 9216


def run(context: Context) -> None:
    path = context.work / "lease"
    while not path.exists():
        if time.monotonic() >= context.deadline:
            raise NodeError(f"the boot NIC must get a DHCP lease within {TIMEOUT_S:g} s ({_state(context)})")
        time.sleep(POLL_S)
    context.lease = parse_lease(path.read_text(encoding="ascii"))


def parse_lease(text: str) -> Lease:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if not values.get("interface") or "/" not in values.get("address", ""):
        raise NodeError(f"a lease must have an interface and an address, got {text[:200]!r}")
    mtu = values.get("mtu", "")
    if mtu and not (mtu.isdecimal() and MTU_MIN <= int(mtu) <= MTU_MAX):
        raise NodeError(f"a lease's MTU must be {MTU_MIN} to {MTU_MAX}, got {mtu[:20]!r}")
    return Lease(values["interface"], values["address"], values.get("gateway", ""), mtu)


def _state(context: Context) -> str:
    """The NICs and their links, for the console of a machine that gets no lease."""
    nics = []
    for nic in sorted(Path("/sys/class/net").glob("*/device")):
        try:
            carrier = (nic.parent / "carrier").read_text(encoding="ascii").strip()
        except OSError:
            carrier = "0"
        nics.append(f"{nic.parent.name}: link {'up' if carrier == '1' else 'down'}")
    return f"koguma.mac={context.arguments.mac}; {', '.join(nics) or 'no NIC has a driver'}"
