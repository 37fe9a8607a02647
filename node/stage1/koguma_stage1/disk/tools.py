"""Calls of the tools that work on disks, each with a deadline; a failure is a NodeError with the tool's own words."""

from __future__ import annotations

from koguma_node import command
from koguma_node.errors import NodeError


def run(arguments: list[str], timeout_s: float, text: str | None = None) -> str:
    """What the tool wrote to standard output. `text` is its standard input."""
    result = command.run(arguments, timeout_s, text=text)
    if result.returncode != 0:
        said = " / ".join(line.strip() for line in result.stderr.splitlines()[-3:] if line.strip())
        raise NodeError(f"`{' '.join(arguments[:6])}` must succeed: {said or f'status {result.returncode}'}")
    return result.stdout


def mount(kind: str, device: str, folder: str, options: str) -> None:
    run(["mount", "-t", kind, "-o", options, device, folder], 60.0)


def unmount(folder: str) -> None:
    run(["umount", folder], 300.0)
