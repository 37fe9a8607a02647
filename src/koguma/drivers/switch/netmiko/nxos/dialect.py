"""Cisco NX-OS: each line takes effect as it is given, so a change that is cut short leaves a port shut or unfinished,
never in a wrong VLAN; the next try finds that it reads back differently and writes it again.
"""

from __future__ import annotations

import re

from koguma.contracts.switches import Bond, PortVlans
from koguma.drivers.switch.netmiko import industry
from koguma.drivers.switch.netmiko.dialect import Ask, State, parse_ranges

_NAMES = industry.Names(bond="port-channel", channel_group="channel-group {} force mode active")


class Nxos:
    device_type = "cisco_nxos"
    shell = False
    refusal = re.compile(r"^\s*% |^ERROR:|^Error:|command failed", re.MULTILINE)
    commit: tuple[str, ...] = ("end", "copy running-config startup-config")
    abandon: tuple[str, ...] = ("end",)

    def enter(self) -> tuple[str, ...]:
        return ("configure terminal",)

    def read(self, ask: Ask) -> State:
        interfaces = industry.sections(ask("show running-config interface"))
        vlans = re.findall(r"^vlan ([\d,-]+)\s*$", ask("show running-config vlan"), re.MULTILINE)
        known = {1, *(vlan for text in vlans for vlan in parse_ranges(text))}
        return industry.state_of(interfaces, known, _NAMES, "Ethernet")

    def port_commands(self, state: State, port: str, vlans: PortVlans) -> list[str]:
        return industry.port_commands(state, port, vlans)

    def bond_commands(self, state: State, bond: Bond) -> list[str]:
        return ["feature lacp", *industry.bond_commands(state, bond, _NAMES)]

    def unbond_commands(self, state: State, bond: Bond, vlans: PortVlans) -> list[str]:
        return industry.unbond_commands(state, bond, vlans, _NAMES)
