"""Running commands on a booted node over SSH, from the controller's namespace, with the operator's key.

Host keys are checked strictly against those Koguma knows: the lab never accepts a key it meets.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koguma.lab import netns
from koguma.lab.errors import LabError
from koguma.lab.processes import write_atomically

CONNECT_S = 10


@dataclass(frozen=True)
class Target:
    """Where a node answers and which keys prove that it is the node."""

    name: str
    address: str
    host_keys: tuple[str, ...]
    """Lines like `ssh-ed25519 AAAA…`."""


def ssh_command(namespace: str, target: Target, key: Path, known_hosts: Path, command: Sequence[str] = ()) -> list[str]:
    """The command line. One word is a shell command as it stands; several are one program with its arguments."""
    remote = [command[0]] if len(command) == 1 else [shlex.join(command)] if command else []
    options = {
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": target.name,
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": "15",
        "LogLevel": "ERROR",
        "PasswordAuthentication": "no",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return netns.argv_in(namespace, ["ssh", "-F", "none", "-i", str(key), *words, f"root@{target.address}", *remote])


def run_on(namespace: str, target: Target, key: Path, run_dir: Path, command: Sequence[str]) -> int:
    """Run a command, or a login shell, on this terminal; its exit status, or ssh's 255."""
    if not key.is_file():
        raise LabError(f"the operator's key does not exist, so Koguma was never started here ({key})")
    if not target.host_keys:
        raise LabError(f"no SSH host key of {target.name} is known yet, and an unknown one is not accepted")
    known_hosts = run_dir / f"known_hosts.{target.name}"
    write_atomically(known_hosts, "".join(f"{target.name} {line.strip()}\n" for line in target.host_keys))
    return subprocess.call(ssh_command(namespace, target, key, known_hosts, command))
