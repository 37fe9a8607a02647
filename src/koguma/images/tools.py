"""External tools (mmdebstrap, mkfs.erofs …): run to their end, with their last words in the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from koguma.images.errors import ToolError


def run_tool(
    command: Sequence[str], *, timeout_s: float = 3600, cwd: Path | None = None, pass_fds: Sequence[int] = ()
) -> str:
    """Run a tool to its end, with these descriptors beside the standard ones, and return its standard output.

    Raises ToolError with the tool's last words when it is missing, fails or exceeds its time.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            cwd=cwd,
            pass_fds=pass_fds,
        )
    except FileNotFoundError:
        raise ToolError(f"{command[0]} must be installed, it was not found on PATH") from None
    except subprocess.TimeoutExpired:
        raise ToolError(f"{command[0]} did not end within {timeout_s:g} s") from None
    if done.returncode != 0:
        raise ToolError(f"{command[0]} failed with status {done.returncode}: {last_words(done.stderr or done.stdout)}")
    return done.stdout.decode(errors="replace")


def with_own_mounts(command: Sequence[str]) -> list[str]:
    """The command in mount and process namespaces of its own: what it mounts and starts ends with it, however it ends.

    A tool that is killed with /dev bound into its work tree would otherwise leave a trap for whoever removes the tree.
    """
    own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    return [*(own if os.geteuid() == 0 else []), *command]


def last_words(output: bytes) -> str:
    """The end of a tool's output on one line, for an error message."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it said nothing"
