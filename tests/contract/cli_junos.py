"""Junos for tests: a candidate configuration of `set` lines, checked and taken whole by a commit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SWITCHING = "unit 0 family ethernet-switching"
GRAMMAR = re.compile(
    r"vlans \S+ vlan-id \d+"
    rf"|interfaces \S+ {SWITCHING} (interface-mode (access|trunk)|vlan members \S+)"
    r"|interfaces \S+ (native-vlan-id \d+|ether-options 802\.3ad ae\d+|aggregated-ether-options lacp active)"
    r"|chassis aggregated-devices ethernet device-count \d+"
)
SINGLE = re.compile(r"(.* (?:vlan-id|interface-mode|native-vlan-id|802\.3ad|device-count)) \S+")


@dataclass
class Session:
    candidate: list[str] | None = None


@dataclass
class Junos:
    ports: tuple[str, ...]
    running: list[str] = field(default_factory=list)
    locked: bool = False

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.running = ["vlans default vlan-id 1"]
        self.running += [f"interfaces {port} {SWITCHING} vlan members default" for port in self.ports]

    def open(self) -> Session:
        return Session()

    def prompt(self, session: object) -> str:
        assert isinstance(session, Session)
        return "koguma@leaf1> " if session.candidate is None else "\n[edit]\nkoguma@leaf1# "

    def run(self, session: object, line: str) -> str:
        assert isinstance(session, Session)
        if session.candidate is None:
            return self._operate(session, line)
        if match := re.fullmatch(r"set (.+)", line):
            return self._set(session.candidate, match[1])
        if match := re.fullmatch(r"delete (.+)", line):
            kept = [each for each in session.candidate if not f"{each} ".startswith(f"{match[1]} ")]
            said = "" if len(kept) < len(session.candidate) else "warning: statement not found\n"
            session.candidate = kept
            return said
        if line == "rollback 0":
            session.candidate = list(self.running)
            return "load complete\n"
        if line == "exit configuration-mode":
            session.candidate = None
            return "Exiting configuration mode\n"
        if line == "commit and-quit":
            if reason := self._reason_not_valid(session.candidate):
                return f"error: {reason}\nerror: configuration check-out failed\n"
            self.running, session.candidate = session.candidate, None
            return "commit complete\nExiting configuration mode\n"
        return "                   ^\nunknown command.\n"

    def _operate(self, session: Session, line: str) -> str:
        fixed = {
            "set cli screen-width 511": "Screen width set to 511\n",
            "set cli complete-on-space off": "Disabling complete-on-space\n",
            "set cli screen-length 0": "Screen length set to 0\n",
        }
        if line in fixed:
            return fixed[line]
        if line == "show interfaces terse":
            rows = "".join(f"{port:24}up    up\n{port + '.0':24}up    up   eth-switch\n" for port in self.ports)
            return f"Interface               Admin Link Proto    Local                 Remote\n{rows}vme  up  up\n"
        if match := re.fullmatch(r"show configuration (interfaces|vlans|chassis) \| display set", line):
            return "".join(f"set {each}\n" for each in self.running if each.startswith(match[1]))
        if line == "configure exclusive":
            if self.locked:
                return "error: configuration database locked by:\n  root terminal p0 (pid 1) on since now\n"
            session.candidate = list(self.running)
            return "warning: uncommitted changes will be discarded on exit\nEntering configuration mode\n"
        return "                   ^\nunknown command.\n"

    def _set(self, candidate: list[str], text: str) -> str:
        match = re.fullmatch(r"(.*) \[ (.*) \]", text)
        for line in [f"{match[1]} {word}" for word in match[2].split()] if match else [text]:
            if not GRAMMAR.fullmatch(line):
                return "                   ^\nsyntax error.\n"
            if single := SINGLE.fullmatch(line):
                candidate[:] = [each for each in candidate if not each.startswith(f"{single[1]} ")]
            if line not in candidate:
                candidate.append(line)
        return ""

    def _reason_not_valid(self, candidate: list[str]) -> str | None:
        names = {line.split()[1] for line in candidate if line.startswith("vlans ")}
        ids = [line.split()[-1] for line in candidate if line.startswith("vlans ")]
        if len(ids) != len(set(ids)):
            return "duplicate vlan-id"
        bundled = {line.split()[1] for line in candidate if " 802.3ad " in line}
        count = next((int(line.split()[-1]) for line in candidate if "device-count" in line), 0)
        for line in candidate:
            words = line.split()
            if "members" in words and words[-1] not in names:
                return f"vlan {words[-1]} is not configured"
            if words[1] in bundled and "unit" in words:
                return f"{words[1]}: a logical interface on a bundle's link"
            if words[1].startswith("ae") and int(words[1][2:]) >= count:
                return f"{words[1]}: no such aggregated device"
        return None
