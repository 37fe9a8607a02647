# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""How commands of `koguma image` speak: results go to standard output and nothing else does, progress to terminals."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from koguma.cli.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koguma.images.labels import LabelState
    from koguma.images.repository import Committed, Repository


def finish(repository: Repository, done: Committed, *, wait: bool) -> None:
    """Let the label follow the commit, then print the id, last."""
    if not done.created:
        say("nothing changed, so there is no new commit")
    if done.created or not repository.is_labelled(done.commit.id):
        _let_label_follow(repository, done.commit.id, wait=wait)
    print(done.commit.id)


def _let_label_follow(repository: Repository, commit: str, *, wait: bool) -> None:
    if not wait:
        labels_later(repository)
        return
    for missing in update_labels(repository).unlabelled:
        if missing.commit == commit:
            say(f"no label: {missing.reason}")


def labels_later(repository: Repository) -> None:
    """Start a process of its own that makes the artifact; should it die, the next command that needs labels does it."""
    import subprocess

    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "labels"]
    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)


def update_labels(repository: Repository) -> LabelState:
    with progress("making the boot artifact") as told:
        return repository.update_labels((lambda _, size: told(size)) if told else None)


def names_by_commit(repository: Repository) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for ref in repository.refs.every():
        names.setdefault(ref.commit, []).append(f"tag: {ref.name}" if ref.kind.word == "tag" else ref.name)
    return names


def decorations(repository: Repository) -> dict[str, list[str]]:
    """The names of commits as a log shows them: HEAD's branch comes first, with an arrow."""
    names, head = names_by_commit(repository), repository.refs.head()
    for found in names.values():
        if head in found:
            found.remove(head)
            found.insert(0, f"HEAD -> {head}")
    return names


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))


def printable(path: bytes) -> str:
    """A path fit for printing: bytes that are not UTF-8 and control characters appear as `\\xNN`."""
    return one_line(path.decode("utf-8", errors="backslashreplace"))


def message_lines(message: str) -> list[str]:
    """A commit's message as it is shown, a line each, fit for printing: whoever made the commit is not trusted."""
    return [f"    {one_line(line.expandtabs())}" for line in message.splitlines()]


def local_time(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def say(text: str) -> None:
    """Words for a person: never on standard output, which carries results. Lost where nobody can take them."""
    with suppress(OSError):
        print("\n".join(one_line(line) for line in text.split("\n")), file=sys.stderr)


class progress:  # noqa: N801 - used like a function
    """Shows the bytes worked through after a second, on a terminal only; gives None elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._done = 0
        self._task: Any = None
        self._from = 0.0

    def __enter__(self) -> Callable[[int], None] | None:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return None
        import time

        self._from = time.monotonic() + 1
        return self._tell

    def _tell(self, size: int) -> None:
        import time

        self._done += size
        if self._bar is None and time.monotonic() >= self._from:
            from rich.console import Console
            from rich.progress import DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn, TransferSpeedColumn

            columns = ("{task.description}", DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
            self._bar = Progress(SpinnerColumn(), *columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._what, total=None)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
