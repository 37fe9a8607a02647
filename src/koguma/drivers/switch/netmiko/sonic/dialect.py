"""SONiC: shell commands that each take effect at once. A port leaves the VLANs it should not be in before it enters
others; in between it is in none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from koguma.contracts.switches import Bond, Observed, PortVlans
from koguma.drivers.switch.netmiko.dialect import Ask, State, bond_number

_CONFIG = "sudo -n config"


class Sonic:
    device_type = "linux"
    shell = True
    refusal = re.compile(r"(?!)")  # the exit status tells
    commit: tuple[str, ...] = (f"{_CONFIG} save -y",)
    abandon: tuple[str, ...] = ()

    def enter(self) -> tuple[str, ...]:
        return ()

    def read(self, ask: Ask) -> State:
        tables: dict[str, dict[str, Any]] = json.loads(ask("show runningconfiguration all"))
        vlans = {int(name.removeprefix("Vlan")): name for name in tables.get("VLAN", {})}
        memberships = _memberships(tables)
        bundles: dict[str, list[str]] = {}
        for key in tables.get("PORTCHANNEL_MEMBER", {}):
            bundle, _, port = key.partition("|")
            bundles.setdefault(bundle, []).append(port)
        ports: dict[str, PortVlans | None] = {port: _vlans_of(memberships.get(port, {})) for port in tables["PORT"]}
        bonds, names = {}, {}
        foreign = set()
        for bundle, members in bundles.items():
            ports.update(dict.fromkeys(members))
            number = bond_number(bundle.removeprefix("PortChannel"))
            what = _vlans_of(memberships.get(bundle, {}))
            if number is None or what is None or number in bonds:
                foreign.update(members)
            else:
                bonds[number] = Bond(number, tuple(members), what)
                names[number] = bundle
        existing = frozenset(tables.get("PORTCHANNEL", {}))
        modes = {
            name: row["mode"]
            for table in ("PORT", "PORTCHANNEL")
            for name, row in tables.get(table, {}).items()
            if "mode" in row
        }
        details = {"memberships": memberships, "names": names, "existing": existing, "modes": modes}
        return State(Observed(ports, bonds, frozenset(foreign)), vlans, details)

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]:
        return _place(state, port, vlans)

    def bond_commands(self, state: State, bond: Bond) -> list[str]:
        """VLANs of the bond come last: SONiC takes only ports without VLANs as members."""
        name = _name(state, bond.number)
        before = state.observed.bonds.get(bond.number)
        commands = [] if name in state.details["existing"] else [f"{_CONFIG} portchannel add {name}"]
        for port in bond.members:
            if before is None or port not in before.members:
                commands += [*_leave(state, port), f"{_CONFIG} portchannel member add {name} {port}"]
        return [*commands, *_place(state, name, bond.vlans)]

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]:
        name = _name(state, bond.number)
        commands = _leave(state, name)
        commands += [f"{_CONFIG} portchannel member del {name} {port}" for port in bond.members]
        commands.append(f"{_CONFIG} portchannel del {name}")
        made: set[int] = set(state.vlans)
        for port in bond.members:
            commands += _place(state, port, vlans, made)
            made.update(vlans.every)
        return commands


def _memberships(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[int, str]]:
    """Port or bond -> VLAN -> `tagged` or `untagged`."""
    found: dict[str, dict[int, str]] = {}
    for key, row in tables.get("VLAN_MEMBER", {}).items():
        vlan, _, port = key.partition("|")
        found.setdefault(port, {})[int(vlan.removeprefix("Vlan"))] = row["tagging_mode"]
    return found


def _vlans_of(membership: Mapping[int, str]) -> PortVlans | None:
    untagged = [vlan for vlan, tagging in membership.items() if tagging == "untagged"]
    tagged = tuple(vlan for vlan, tagging in membership.items() if tagging == "tagged")
    if not membership or len(untagged) > 1:
        return None
    return PortVlans(untagged[0] if untagged else None, tagged)


def _place(state: State, port: str, vlans: PortVlans, made: set[int] | None = None) -> list[str]:
    now: Mapping[int, str] = state.details["memberships"].get(port, {})
    wanted = {vlan: "untagged" if vlan == vlans.untagged else "tagged" for vlan in vlans.every}
    commands = [
        f"{_CONFIG} vlan member del {vlan} {port}" for vlan, how in sorted(now.items()) if wanted.get(vlan) != how
    ]
    mode = "trunk" if vlans.tagged else "access"
    if state.details["modes"] and state.details["modes"].get(port) != mode:
        commands.append(f"{_CONFIG} switchport mode {mode} {port}")
    for vlan, how in sorted(wanted.items()):
        if vlan not in (state.vlans if made is None else made):
            commands.append(f"{_CONFIG} vlan add {vlan}")
        if now.get(vlan) != how:
            commands.append(f"{_CONFIG} vlan member add {'-u ' if how == 'untagged' else ''}{vlan} {port}")
    return commands


def _leave(state: State, port: str) -> list[str]:
    now: Mapping[int, str] = state.details["memberships"].get(port, {})
    return [f"{_CONFIG} vlan member del {vlan} {port}" for vlan in sorted(now)]


def _name(state: State, number: int) -> str:
    return str(state.details["names"].get(number, f"PortChannel{number:04d}"))
