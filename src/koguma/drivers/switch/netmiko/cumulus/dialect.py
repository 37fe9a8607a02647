"""NVIDIA Cumulus Linux 5: NVUE commands change a pending revision, which is applied whole. The VLAN-aware bridge is
`br_default`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from koguma.contracts.switches import Bond, Observed, PortVlans, ranges
from koguma.drivers.switch.netmiko.dialect import Ask, State, bond_number, parse_ranges

BRIDGE = "br_default"
_DOMAIN = f"bridge domain {BRIDGE}"


class Cumulus:
    device_type = "linux"
    shell = True
    refusal = re.compile(r"(?!)")  # the exit status tells
    commit: tuple[str, ...] = ("nv config apply -y", "nv config save")
    abandon: tuple[str, ...] = ("nv config detach",)

    def enter(self) -> tuple[str, ...]:
        return ()

    def read(self, ask: Ask) -> State:
        ports = [name for name in json.loads(ask("nv show interface -o json")) if re.fullmatch(r"swp\d+(s\d+)?", name)]
        (config,) = [part["set"] for part in json.loads(ask("nv config show -o json")) if "set" in part]
        bridge = config.get("bridge", {}).get("domain", {}).get(BRIDGE, {})
        vlans = {vlan: str(vlan) for key in bridge.get("vlan", {}) for vlan in parse_ranges(key)} or {1: "1"}
        interfaces: dict[str, Mapping[str, Any]] = {}
        for key, value in config.get("interface", {}).items():
            for name in _names(key):
                interfaces[name] = {**interfaces.get(name, {}), **value}
        placed: dict[str, PortVlans | None] = {name: _vlans_of(interfaces.get(name, {}), vlans) for name in ports}
        bonds = {}
        foreign = set()
        for name, interface in interfaces.items():
            members = [port for key in interface.get("bond", {}).get("member", {}) for port in _names(key)]
            placed.update(dict.fromkeys(members))
            number = bond_number(name.removeprefix("bond"))
            what = _vlans_of(interface, vlans)
            lacp = interface.get("bond", {}).get("mode", "lacp") == "lacp"
            if members and number is not None and what is not None and lacp:
                bonds[number] = Bond(number, tuple(members), what)
            else:
                foreign.update(members)
        return State(Observed(placed, bonds, frozenset(foreign)), vlans, {"interfaces": interfaces})

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]:
        return [*_make_vlans(state, vlans), *_place(state, port, vlans)]

    def bond_commands(self, state: State, bond: Bond) -> list[str]:
        name = f"bond{bond.number}"
        before = state.observed.bonds.get(bond.number)
        new = [port for port in bond.members if before is None or port not in before.members]
        return [
            *_make_vlans(state, bond.vlans),
            *(f"nv unset interface {port} bridge" for port in new if _in_bridge(state, port)),
            *([f"nv set interface {name} bond member {','.join(new)}"] if new else []),
            f"nv set interface {name} bond mode lacp",
            *_place(state, name, bond.vlans),
        ]

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]:
        commands = [*_make_vlans(state, vlans), f"nv unset interface bond{bond.number}"]
        return [*commands, *(line for port in bond.members for line in _place(state, port, vlans))]


def _names(key: str) -> Iterator[str]:
    """The interfaces of a key: NVUE shows equal ones together, as `swp1-3,swp7` or `swp1-3,7`."""
    prefix = ""
    for part in key.split(","):
        match = re.fullmatch(r"(.*?)(\d+)(?:-(\d+))?", part)
        if match is None:
            yield part
            continue
        prefix = match[1] or prefix
        for number in range(int(match[2]), int(match[3] or match[2]) + 1):
            yield f"{prefix}{number}"


def _vlans_of(interface: Mapping[str, Any], known: Mapping[int, str]) -> PortVlans | None:
    """A port of the bridge that names no VLAN passes all of the bridge's."""
    domain = interface.get("bridge", {}).get("domain", {}).get(BRIDGE)
    if domain is None:
        return None
    if "access" in domain:
        return PortVlans.access(int(domain["access"]))
    untagged = None if domain.get("untagged") == "none" else int(domain.get("untagged", 1))
    listed = {vlan for key in domain.get("vlan", {}) if key != "all" for vlan in parse_ranges(key)}
    tagged = (listed or set(known)) - {untagged}
    return PortVlans(untagged, tuple(tagged)) if tagged or untagged else None


def _make_vlans(state: State, vlans: PortVlans) -> list[str]:
    missing = [vlan for vlan in vlans.every if vlan not in state.vlans]
    return [f"nv set {_DOMAIN} vlan {ranges(missing)}"] if missing else []


def _place(state: State, name: str, vlans: PortVlans) -> list[str]:
    commands = [f"nv unset interface {name} bridge"] if _in_bridge(state, name) else []
    if not vlans.tagged:
        return [*commands, f"nv set interface {name} {_DOMAIN} access {vlans.untagged}"]
    untagged = "none" if vlans.untagged is None else str(vlans.untagged)
    return [
        *commands,
        f"nv set interface {name} {_DOMAIN} vlan {ranges(vlans.tagged)}",
        f"nv set interface {name} {_DOMAIN} untagged {untagged}",
    ]


def _in_bridge(state: State, name: str) -> bool:
    return "bridge" in state.details["interfaces"].get(name, {})
