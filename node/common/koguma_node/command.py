"""Runs the distribution's tools, each with a deadline."""

from __future__ import annotations

import subprocess

from koguma_node.errors import NodeError

Result = subprocess.CompletedProcess


def run(
    arguments: list[str], timeout_s: float, environment: dict[str, str] | None = None, text: str | None = None
) -> Result[str]:
    """Run a tool to its end; its result, whatever its status. `text` is its standard input.

    Raises NodeError when it hangs or is missing.
    """
    try:
        return subprocess.run(
            arguments,
            **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{arguments[0]} must end within {timeout_s:g} s ({' '.join(arguments[:4])} …)") from error
    except OSError as error:
        raise NodeError(f"{arguments[0]} cannot be run: {error.strerror}") from error
