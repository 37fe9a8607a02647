"""Arista EOS: changes are made in a configuration session, so they take effect together or not at all."""

from __future__ import annotations

import re
import secrets

from koguma.contracts.switches import Bond, PortVlans
from koguma.drivers.switch.netmiko import industry
from koguma.drivers.switch.netmiko.dialect import Ask, State, parse_ranges

_NAMES = industry.Names(bond="Port-Channel", channel_group="channel-group {} mode active")


class Eos:
    device_type = "arista_eos"
    shell = False
    refusal = re.compile(r"^% ", re.MULTILINE)
    commit: tuple[str, ...] = ("commit", "write memory")
    abandon: tuple[str, ...] = ("abort",)

    def enter(self) -> tuple[str, ...]:
        return ("enable", f"configure session koguma-{secrets.token_hex(4)}")

    def read(self, ask: Ask) -> State:
        ask("enable")
        interfaces = industry.sections(ask("show running-config section interface"))
        vlans = re.findall(r"^vlan ([\d,-]+)\s*$", ask("show running-config section vlan"), re.MULTILINE)
        known = {1, *(vlan for text in vlans for vlan in parse_ranges(text))}
        return industry.state_of(interfaces, known, _NAMES, "Ethernet")

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]:
        return industry.port_commands(state, port, vlans)

    def bond_commands(self, state: State, bond: Bond) -> list[str]:
        return industry.bond_commands(state, bond, _NAMES)

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]:
        return industry.unbond_commands(state, bond, vlans, _NAMES)
