# ruff: noqa: PLC0415 - Rich is slow to import, and most commands print little
"""What commands print: JSON or tables on standard output, progress on standard error. Rich is imported when it is
needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """Empty values are a dash; `empty` is said when there is no row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not markup: a machine's own words are in here.
        table.add_row(*(Text(_plain(value)) for value in row))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 240)
    console.print(table)


def print_pairs(pairs: Sequence[tuple[str, Any]]) -> None:
    """One value a line, names aligned."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {_plain(value)}")


def duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def short_time(text: str | None) -> str:
    """`2026-01-02 03:04:05` of an RFC 3339 time, UTC."""
    return (text or "")[:19].replace("T", " ")


class Progress(Protocol):
    def __call__(self, message: str) -> None: ...


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show what is waited for: a moving line on a terminal, a line for each change elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(title)) as status:
        yield lambda message: status.update(escape(f"{title}: {message}"))


def _lines(title: str) -> Progress:
    last = ""

    def tell(message: str) -> None:
        nonlocal last
        if message != last:
            print(f"{title}: {message}", file=sys.stderr, flush=True)
            last = message

    return tell


def _plain(value: Any) -> str:
    """One line that cannot steer a terminal."""
    if value is None or value in ("", [], {}):
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "".join(char if char.isprintable() else " " for char in text)
