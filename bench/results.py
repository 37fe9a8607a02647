"""What every benchmark writes: a table on the terminal and `bench/results/NAME.json`.

The file is a list: first the machine, once, then the rows.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure: a median of `runs`, what it should be, and what it was held against."""

    name: str
    value: float
    unit: str
    aim: str
    met: bool | None
    peer: str
    runs: list[float]
    note: str = ""


def row(
    name: str, runs: list[float], unit: str, *, at_most: float | None = None, peer: str = "", note: str = ""
) -> Row:
    """The median of the runs; `at_most` None: a figure without an aim of its own, such as a peer's or a phase's."""
    value = round(statistics.median(runs), 3)
    aim = "" if at_most is None else f"at most {at_most:g} {unit}".strip()
    met = None if at_most is None else value <= at_most
    return Row(name, value, unit, aim, met, peer, [round(run, 3) for run in runs], note)


def publish(name: str, rows: list[Row], *, write: bool = True, keep: bool = False, note: str = "") -> None:
    """Print the table and write the file; `keep` the figures in it that are not measured again, as of another part.

    `note` tells of the circumstances, such as other work on the machine.
    """
    top = {"machine": machine(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    if note:
        top["note"] = note
    if write:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{name}.json"
        measured = {item.name for item in rows}
        others = json.loads(file.read_text(encoding="utf-8"))[1:] if keep and file.exists() else []
        kept = [item for item in others if item["name"] not in measured]
        text = json.dumps([top, *kept, *(asdict(item) for item in rows)], indent=1)
        file.write_text(text + "\n", encoding="utf-8")
    print(f"\n{name}: {top['machine']}")
    widths = [max(len(text) for text in column) for column in zip(*map(_cells, rows), strict=True)]
    for item in rows:
        print("  ".join(text.ljust(width) for text, width in zip(_cells(item), widths, strict=True)).rstrip())


def machine() -> str:
    """Processor, cores, memory and kernel, in one line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    gib = int(memory[1]) / 1024**2 if memory else 0
    processor = model[1] if model else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release()}"


def _cells(item: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "NOT met", None: ""}[item.met]
    spread = f"({min(item.runs):g} to {max(item.runs):g}, {len(item.runs)} runs)"
    return item.name, f"{item.value:g} {item.unit}", spread, item.aim, verdict, item.note
