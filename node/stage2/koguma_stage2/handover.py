"""The hand-over: a machine that has said `installed` leaves the provisioning network for the networks of its use.

Its switch ports follow within moments, moved by Koguma; until then, and after it, it has no address of the provisioning
network any more.

1. Write the networkd files of `detail`'s `handover`, /etc/hosts and resolv.conf; remove what only the boot had.
2. Take away the addresses of the boot, which networkd would keep.
3. Let networkd take the new files.
4. Mark the machine: a reboot of it has to power it off, because it cannot boot from where it is (`system-shutdown`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from koguma_stage2 import files, identity, network, places

COMMAND_S = 30.0
Run = Callable[[list[str]], str]
"""Runs a command and says what was wrong, or nothing."""


def take_networks(root: Path, detail: dict[str, Any], run: Run | None = None) -> list[str]:
    """What went wrong, if anything. Harmless when repeated."""
    handover = detail.get("handover")
    if not handover:
        return []
    wanted = network.networkd_files(handover)
    directory = files.inside(root, places.NETWORKD)
    for path in directory.glob("10-koguma-*"):
        if f"{places.NETWORKD}/{path.name}" not in wanted:
            path.unlink()
    # The site's other machines are none of a tenant's business.
    after = {**detail, **handover, "members": []}
    wanted |= {places.HOSTS: identity.hosts(after), places.RESOLV_CONF: identity.resolv_conf(after)}
    for path_in_root, content in wanted.items():
        files.write(root, path_in_root, content)
    files.write(root, places.HANDED_OVER, "")
    left = [
        link["name"] for kind in ("interfaces", "bonds") for link in detail.get(kind) or () if link.get("addresses")
    ]
    commands = [["ip", "address", "flush", "dev", name, "scope", "global"] for name in left]
    problems = [(run or _run)(command) for command in [*commands, ["networkctl", "reload"]]]
    return [problem for problem in problems if problem]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}"
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr.strip()}"
