"""Runs ssh to a node: with the operator's key, the host keys that Koguma made, in the worker's network namespace."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from koguma import config as configuration
from koguma.cli.errors import UsageFault

CONNECT_TIMEOUT_S = 10


def run(node: dict[str, Any], user: str, command: list[str]) -> int:
    """ssh's exit status. Raises UsageFault when the node has no address or the key is missing."""
    if not node["addresses"]:
        raise UsageFault(f"a node needs an address to be logged in to, it has none (node {node['name']})")
    config = configuration.load()
    key = config.secrets_dir / "operator"
    if not key.is_file():
        raise UsageFault(f"the operator's key must be there to log in ({key})")
    with tempfile.TemporaryDirectory(prefix="koguma-ssh-") as directory:
        known = Path(directory) / "known_hosts"
        known.write_text("".join(f"{node['name']} {line}\n" for line in node["ssh_host_public_keys"]), encoding="utf-8")
        enter = ["ip", "netns", "exec", config.worker.namespace] if config.worker.namespace else []
        options = {
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            # The keys are the node's, whatever address it has now.
            "HostKeyAlias": node["name"],
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        target = f"{user}@{node['addresses'][0]}"
        return subprocess.run(
            [*enter, "ssh", "-F", "none", "-i", str(key), *words, target, *(["--", *command] if command else [])],
            check=False,
        ).returncode
