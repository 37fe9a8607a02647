"""Running one program to its end, with a deadline and an error that says what the program said."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from koguma.lab.errors import CommandError, DeadlineError
from koguma.lab.packages import SBIN

PATH = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), *SBIN])


def run(
    argv: Sequence[str], *, timeout_s: float = 30, stdin: str | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Run a program and return its standard output; CommandError when it fails, takes too long or is not there."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(environ or {}), "PATH": PATH},
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"a command must end within {timeout_s:g} s, still running: {' '.join(argv)}") from None
    except FileNotFoundError:
        raise CommandError(f"a program is not installed: {argv[0]}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise CommandError(f"{' '.join(argv)} failed with status {done.returncode}: {' / '.join(said[-3:])}")
    return done.stdout


def wait_until(what: str, question: Callable[[], bool], *, timeout_s: float, every_s: float = 0.05) -> None:
    """Ask until the answer is yes; DeadlineError names what was awaited."""
    deadline = time.monotonic() + timeout_s
    while not question():
        if time.monotonic() >= deadline:
            raise DeadlineError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(every_s)
