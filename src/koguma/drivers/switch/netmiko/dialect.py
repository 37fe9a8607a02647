"""What a vendor's folder provides, and what it may use: pure functions from configuration to values and from wishes to
commands. Nothing here speaks with a switch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from koguma.contracts.switches import Bond, Observed, PortVlans, ranges

Ask = Callable[[str], str]
"""Runs one command and returns what the switch says to it."""


@dataclass(frozen=True)
class State:
    """A switch as it was read, with what a dialect needs to write to it."""

    observed: Observed
    vlans: Mapping[int, str] = field(default_factory=dict)
    """The VLANs that exist, and their names."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """A dialect's own."""


class Dialect(Protocol):
    """One vendor's command line. `enter`, the commands of a change, `commit` are run in this order; `abandon` when one
    of them is refused. `shell` says that commands are programs, whose exit status tells whether they were refused.
    """

    device_type: str
    """netmiko's."""
    shell: bool
    refusal: re.Pattern[str]
    """In what a switch says to a command it refuses."""
    commit: tuple[str, ...]
    abandon: tuple[str, ...]

    def enter(self) -> tuple[str, ...]: ...

    def read(self, ask: Ask) -> State: ...

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]: ...

    def bond_commands(self, state: State, bond: Bond) -> list[str]: ...

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]: ...


def parse_ranges(text: str) -> Iterator[int]:
    """The VLANs of `1-3,7`."""
    for part in re.split(r"[,\s]+", text.strip()):
        if part:
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)


def chunked(vlans: tuple[int, ...], characters_max: int) -> list[str]:
    """Ranges in as few texts as fit: command lines have an end."""
    texts = [""]
    for part in ranges(vlans).split(","):
        if texts[-1] and len(texts[-1]) + len(part) >= characters_max:
            texts.append("")
        texts[-1] += f",{part}" if texts[-1] else part
    return texts


def bond_number(text: str) -> int | None:
    """The number in a bond's name; None for one that is not ours to name."""
    return int(text) if re.fullmatch(r"0*[1-9][0-9]{0,2}", text) else None
