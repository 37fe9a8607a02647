"""Juniper Junos with Enhanced Layer 2 Software: a candidate configuration, locked while it is edited, committed whole.

Configuration is read as `set` lines. VLANs keep the names they have; those made here are called `koguma-<id>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from koguma.contracts.switches import VLAN_MAX, Bond, Observed, PortVlans
from koguma.drivers.switch.netmiko.dialect import Ask, State, bond_number, parse_ranges

MEMBERS_IN_LINE = 20
_PORT = re.compile(r"^((?:ge|mge|xe|et)-\d+/\d+/\d+(?::\d+)?)\s", re.MULTILINE)
_SWITCHING = "unit 0 family ethernet-switching"


class Junos:
    device_type = "juniper_junos"
    shell = False
    refusal = re.compile(r"^\s*(error:|syntax error|unknown command|missing argument|invalid )", re.MULTILINE | re.I)
    commit: tuple[str, ...] = ("commit and-quit",)
    abandon: tuple[str, ...] = ("rollback 0", "exit configuration-mode")

    def enter(self) -> tuple[str, ...]:
        return ("configure exclusive",)

    def read(self, ask: Ask) -> State:
        names = _PORT.findall(ask("show interfaces terse"))
        lines = _by_interface(ask("show configuration interfaces | display set"))
        vlans = {
            int(number): name
            for name, number in re.findall(
                r"^set vlans (\S+) vlan-id (\d+)\s*$", ask("show configuration vlans | display set"), re.MULTILINE
            )
        }
        count = re.search(r"ethernet device-count (\d+)", ask("show configuration chassis | display set"))
        ids = {name: number for number, name in vlans.items()}
        ports: dict[str, PortVlans | None] = {}
        members: dict[int, list[str]] = {}
        foreign = set()
        for name in names:
            bundle = next((line.split()[-1] for line in lines.get(name, ()) if " 802.3ad " in f" {line} "), None)
            ports[name] = None if bundle else _vlans_of(lines.get(name, ()), ids)
            if bundle is None:
                continue
            number = bond_number(bundle.removeprefix("ae"))
            if number is None or "aggregated-ether-options lacp active" not in lines.get(bundle, ()):
                foreign.add(name)
            else:
                members.setdefault(number, []).append(name)
        bonds = {}
        for number, ours in members.items():
            what = _vlans_of(lines.get(f"ae{number}", ()), ids)
            if what is None:
                foreign.update(ours)
            else:
                bonds[number] = Bond(number, tuple(ours), what)
        details = {"lines": lines, "device_count": int(count[1]) if count else 0}
        return State(Observed(ports, bonds, frozenset(foreign)), vlans, details)

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]:
        return [*_make_vlans(state, vlans), *_switching(state, port, vlans)]

    def bond_commands(self, state: State, bond: Bond) -> list[str]:
        name = f"ae{bond.number}"
        before = state.observed.bonds.get(bond.number)
        commands = _make_vlans(state, bond.vlans)
        if state.details["device_count"] <= bond.number:
            commands.append(f"set chassis aggregated-devices ethernet device-count {bond.number + 1}")
        commands.append(f"set interfaces {name} aggregated-ether-options lacp active")
        commands += _switching(state, name, bond.vlans)
        for port in bond.members:
            if before is None or port not in before.members:
                commands += _cleared(state, port, whole_unit=True)
                commands.append(f"set interfaces {port} ether-options 802.3ad {name}")
        return commands

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]:
        commands = [*_make_vlans(state, vlans), f"delete interfaces ae{bond.number}"]
        for port in bond.members:
            options = "gigether-options" if _has(state, port, "gigether-options") else "ether-options"
            commands += [f"delete interfaces {port} {options} 802.3ad", *_switching(state, port, vlans)]
        return commands


def _by_interface(text: str) -> dict[str, tuple[str, ...]]:
    """Interface -> what follows its name in `set` lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"set interfaces (\S+) (.+?)\s*", line):
            found.setdefault(match[1], []).append(match[2])
    return {name: tuple(lines) for name, lines in found.items()}


def _vlans_of(lines: Iterable[str], ids: dict[str, int]) -> PortVlans | None:
    """A port without a VLAN that is not a trunk is in none."""
    mode, native, members = "access", None, set()
    for line in lines:
        if match := re.fullmatch(rf"{_SWITCHING} (?:interface-mode|port-mode) (\S+)", line):
            mode = match[1]
        elif match := re.fullmatch(rf"{_SWITCHING} vlan members (\S+)", line):
            members |= _ids(match[1], ids)
        elif match := re.fullmatch(r"native-vlan-id (\d+)", line):
            native = int(match[1])
    if not members:
        return None
    if mode == "access":
        return PortVlans.access(min(members)) if len(members) == 1 else None
    if native in members:
        return PortVlans.trunk(members - {native}, native)
    return PortVlans.trunk(members)


def _ids(member: str, ids: dict[str, int]) -> set[int]:
    if member == "all":
        return set(range(1, VLAN_MAX + 1))
    if member in ids:
        return {ids[member]}
    if re.fullmatch(r"\d+(-\d+)?", member):
        return set(parse_ranges(member))
    raise ValueError(f"no VLAN is called {member}")


def _make_vlans(state: State, vlans: PortVlans) -> list[str]:
    return [f"set vlans koguma-{vlan} vlan-id {vlan}" for vlan in vlans.every if vlan not in state.vlans]


def _switching(state: State, name: str, vlans: PortVlans) -> list[str]:
    """All that an interface does with frames, in place of what it did."""
    members = [state.vlans.get(vlan, f"koguma-{vlan}") for vlan in vlans.every]
    mode = "trunk" if vlans.tagged else "access"
    commands = [*_cleared(state, name), f"set interfaces {name} {_SWITCHING} interface-mode {mode}"]
    for start in range(0, len(members), MEMBERS_IN_LINE):
        some = " ".join(members[start : start + MEMBERS_IN_LINE])
        commands.append(f"set interfaces {name} {_SWITCHING} vlan members [ {some} ]")
    if vlans.tagged and vlans.untagged is not None:
        commands.append(f"set interfaces {name} native-vlan-id {vlans.untagged}")
    return commands


def _cleared(state: State, name: str, *, whole_unit: bool = False) -> list[str]:
    commands = []
    if whole_unit and _has(state, name, "unit 0"):
        commands.append(f"delete interfaces {name} unit 0")
    elif _has(state, name, _SWITCHING):
        commands.append(f"delete interfaces {name} {_SWITCHING}")
    if _has(state, name, "native-vlan-id"):
        commands.append(f"delete interfaces {name} native-vlan-id")
    return commands


def _has(state: State, name: str, beginning: str) -> bool:
    return any(line.startswith(beginning) for line in state.details["lines"].get(name, ()))
