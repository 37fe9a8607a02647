"""Runs ssh to a node: with the operator's key, the host keys that Koguma made, in the network namespace of nodes."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from koguma import config as configuration
from koguma.cli.errors import UsageFault

CONNECT_TIMEOUT_S = 10


def run(node: dict[str, Any], user: str, command: list[str]) -> int:
    """ssh's exit status. One word is a shell command as it stands; several are one program with its arguments.

    Raises UsageFault when the node has no address or the key is missing.
    """
    if not node["addresses"]:
        raise UsageFault(f"a node needs an address to be logged in to, it has none (node {node['name']})")
    config = configuration.load()
    key = config.secrets_dir / "operator"
    if not key.is_file():
        raise UsageFault(f"the operator's key must be there to log in ({key})")
    with tempfile.TemporaryDirectory(prefix="koguma-ssh-") as directory:
        known = Path(directory) / "known_hosts"
        known.write_text("".join(f"{node['name']} {line}\n" for line in node["ssh_host_public_keys"]), encoding="utf-8")
        namespace = _namespace(config)
        enter = ["ip", "netns", "exec", namespace] if namespace else []
        remote = [command[0]] if len(command) == 1 else [shlex.join(command)] if command else []
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
            [*enter, "ssh", "-F", "none", "-i", str(key), *words, target, *(["--", *remote] if remote else [])],
            check=False,
        ).returncode


def _namespace(config: configuration.Config) -> str | None:
    """Where nodes answer: the worker's network namespace. A lab gives its worker one that no configuration names."""
    lab = config.state_dir / "lab"
    if config.worker.namespace or not (lab / "lab.json").exists():
        return config.worker.namespace
    from koguma.lab import netns  # noqa: PLC0415 - sites without a lab need none of it
    from koguma.lab.lab import plan_of  # noqa: PLC0415

    controller = plan_of(config.lab.name, lab, 0).controller_namespace
    return controller if netns.exists(controller) else None
