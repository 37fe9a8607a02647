"""The same history in git, as the judge of what git people expect."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "TZ": "UTC"}


class Git:
    """A bare repository with commits named by letters, each a second newer than the one before."""

    def __init__(self, path: Path, parents: dict[str, str], files: dict[str, dict[str, str]] | None = None) -> None:
        self.path = path
        self._run("init", "-q", "--bare", str(path))
        lines: list[str] = []
        marks = {name: number for number, name in enumerate(parents, 1)}
        for name, line in parents.items():
            lines += [f"commit refs/heads/at-{name}", f"mark :{marks[name]}"]
            lines += [
                f"committer me <me@example.org> {1_790_000_000 + marks[name] - 1} +0000",
                f"data {len(name)}",
                name,
            ]
            lines += [f"{'from' if number == 0 else 'merge'} :{marks[parent]}" for number, parent in enumerate(line)]
            lines.append("deleteall")
            for path_, content in ((files or {}).get(name, {"name": name})).items():
                lines += [f"M 100644 inline {path_}", f"data {len(content)}", content]
        self._run("fast-import", "--quiet", stdin="\n".join(lines) + "\n")

    def __call__(self, *arguments: str) -> list[str]:
        """Lines of a command's output, without spaces at their ends."""
        return [line.rstrip() for line in self._run("--git-dir", str(self.path), *arguments).splitlines()]

    def _run(self, *arguments: str, stdin: str = "") -> str:
        where = {"GIT_DIR": str(self.path)} if arguments[0] == "fast-import" else {}
        return subprocess.run(
            ["git", *arguments], input=stdin, capture_output=True, text=True, check=True, env={**ENVIRONMENT, **where}
        ).stdout
