"""The command line that Arista and Cisco share: sections of a running configuration, and `switchport` lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from koguma.contracts.switches import VLAN_MAX, Bond, Observed, PortVlans
from koguma.drivers.switch.netmiko.dialect import State, bond_number, chunked, parse_ranges

LINE_MAX = 200
DEFAULT_VLAN = 1
_ALL = tuple(range(1, VLAN_MAX + 1))


@dataclass(frozen=True)
class Names:
    """How a vendor spells it."""

    bond: str
    """Before the number."""
    channel_group: str
    """With `{}` for the number."""


def sections(text: str) -> dict[str, list[str]]:
    """Interface -> its lines, stripped."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if match := re.fullmatch(r"interface (\S+)\s*", line):
            lines = found.setdefault(match[1], [])
        elif lines is not None and line[:1].isspace() and line.strip():
            lines.append(line.strip())
        elif line.strip() not in {"", "!"}:
            lines = None
    return found


def state_of(interfaces: dict[str, list[str]], vlans: Iterable[int], names: Names, physical: str) -> State:
    """`physical` begins the names of ports."""
    ports: dict[str, PortVlans | None] = {}
    members: dict[int, list[str]] = {}
    foreign = set()
    for name, lines in interfaces.items():
        if not re.fullmatch(rf"{physical}[0-9/]+", name):
            continue
        group = next((line for line in lines if line.startswith("channel-group ")), None)
        ports[name] = None if group else vlans_of(lines)
        if group is None:
            continue
        match = re.fullmatch(r"channel-group (\d+)(?: force)? mode active", group)
        number = bond_number(match[1]) if match else None
        if number is None:
            foreign.add(name)
        else:
            members.setdefault(number, []).append(name)
    bonds = {}
    for number, ours in members.items():
        what = vlans_of(interfaces.get(f"{names.bond}{number}", ["no switchport"]))
        if what is None:
            foreign.update(ours)
        else:
            bonds[number] = Bond(number, tuple(ours), what)
    return State(Observed(ports, bonds, frozenset(foreign)), {vlan: str(vlan) for vlan in vlans})


def vlans_of(lines: list[str]) -> PortVlans | None:
    """What an interface does with frames; what its section leaves out is the default."""
    values = {"mode": "access", "access vlan": "1", "trunk native vlan": "1"}
    allowed: set[int] | None = None
    for line in lines:
        if line == "no switchport":
            return None
        for key in values:
            if line.startswith(f"switchport {key} "):
                values[key] = line.removeprefix(f"switchport {key} ")
        if match := re.fullmatch(r"switchport trunk allowed vlan (add )?(\S+)", line):
            allowed = _allowed(match[2]) | (allowed or set() if match[1] else set())
    if values["mode"] == "access":
        return PortVlans.access(int(values["access vlan"]))
    if values["mode"] != "trunk":
        return None
    tagged = set(_ALL) if allowed is None else allowed
    native = int(values["trunk native vlan"]) if values["trunk native vlan"].isdigit() else None
    if native not in tagged:
        return PortVlans.trunk(tagged) if tagged else None
    return PortVlans.trunk(tagged - {native}, native)


def port_lines(vlans: PortVlans) -> list[str]:
    """Lines of an interface, in an order in which the port is never in a VLAN that it should not be in: what is
    allowed comes before the mode that makes it count. A trunk without native VLAN has one that it does not allow.
    """
    if not vlans.tagged:
        return ["switchport", f"switchport access vlan {vlans.untagged}", "switchport mode access"]
    first, *rest = chunked(vlans.every, LINE_MAX)
    native = vlans.untagged or next(vlan for vlan in (DEFAULT_VLAN, *reversed(_ALL)) if vlan not in vlans.tagged)
    return [
        "switchport",
        f"switchport trunk allowed vlan {first}",
        *(f"switchport trunk allowed vlan add {more}" for more in rest),
        f"switchport trunk native vlan {native}",
        "switchport mode trunk",
    ]


def vlan_lines(state: State, vlans: PortVlans) -> list[str]:
    """Make the VLANs that are missing."""
    missing = tuple(vlan for vlan in vlans.every if vlan not in state.vlans)
    return [line for chunk in (chunked(missing, LINE_MAX) if missing else []) for line in (f"vlan {chunk}", "exit")]


def port_commands(state: State, port: str, vlans: PortVlans) -> list[str]:
    routed = state.observed.ports[port] is None
    lines = port_lines(vlans)
    # A routed port that becomes a switched one is in the default VLAN for a moment: it is shut meanwhile.
    lines = ["shutdown", *lines, "no shutdown"] if routed else lines
    return [*vlan_lines(state, vlans), f"interface {port}", *lines, "exit"]


def bond_commands(state: State, bond: Bond, names: Names) -> list[str]:
    """The bond's VLANs first: members bring frames only when they are right."""
    before = state.observed.bonds.get(bond.number)
    commands = [*vlan_lines(state, bond.vlans), f"interface {names.bond}{bond.number}", *port_lines(bond.vlans), "exit"]
    for port in bond.members:
        if before is None or port not in before.members:
            group = names.channel_group.format(bond.number)
            commands += [f"interface {port}", "shutdown", "switchport", group, "no shutdown", "exit"]
    return commands


def unbond_commands(state: State, bond: Bond, vlans: PortVlans, names: Names) -> list[str]:
    """A port that leaves a bond is shut until it is where it should be."""
    commands = vlan_lines(state, vlans)
    for port in bond.members:
        commands += [f"interface {port}", "shutdown", "no channel-group", *port_lines(vlans), "no shutdown", "exit"]
    return [*commands, f"no interface {names.bond}{bond.number}"]


def _allowed(text: str) -> set[int]:
    if text.lower() in {"none", "all"}:
        return set(_ALL) if text.lower() == "all" else set()
    return set(parse_ranges(text))
