"""Arista EOS and Cisco NX-OS for tests: what their command lines take, keep and show. `exposed` remembers every VLAN
that each port was ever in while it was not shut.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field

from koguma.contracts.switches import ranges

ALL = frozenset(range(1, 4095))


@dataclass
class Interface:
    mode: str = "access"
    access: int = 1
    native: int = 1
    allowed: frozenset[int] = ALL
    group: int | None = None
    switchport: bool = True
    shut: bool = False

    def vlans(self) -> frozenset[int]:
        """Those whose frames pass."""
        if self.shut or not self.switchport:
            return frozenset()
        return frozenset({self.access}) if self.mode == "access" else self.allowed

    def lines(self) -> list[str]:
        lines = [] if self.switchport else ["no switchport"]
        if self.access != 1:
            lines.append(f"switchport access vlan {self.access}")
        if self.native != 1:
            lines.append(f"switchport trunk native vlan {self.native}")
        if self.allowed != ALL:
            words = re.findall(r".{1,60}(?:,|$)", ranges(self.allowed) or "none")
            lines += [
                f"switchport trunk allowed vlan {'add ' if place else ''}{text.strip(',')}"
                for place, text in enumerate(words)
            ]
        if self.mode != "access":
            lines.append(f"switchport mode {self.mode}")
        return lines


@dataclass
class Config:
    interfaces: dict[str, Interface] = field(default_factory=dict)
    vlans: set[int] = field(default_factory=lambda: {1})


@dataclass
class Session:
    where: str = "exec"
    """`exec`, `config`, `vlan`, or the name of an interface."""
    config: Config | None = None
    """What is being edited."""


class Industry:
    """What both have; the running configuration is `running`, what is saved is `saved`."""

    host = "leaf1"
    bond = ""
    group = ""

    def __init__(self, ports: tuple[str, ...]) -> None:
        self.ports = ports
        self.reset()

    def reset(self) -> None:
        self.running = Config({port: Interface() for port in self.ports})
        self.saved = copy.deepcopy(self.running)
        self.exposed: dict[str, set[int]] = {port: set() for port in self.ports}
        self.lacp = False

    def open(self) -> Session:
        return Session()

    def prompt(self, session: object) -> str:
        assert isinstance(session, Session)
        return f"{self.host}{'' if session.where == 'exec' else '(config-x)'}#"

    def run(self, session: object, line: str) -> str:
        assert isinstance(session, Session)
        said = self.exec_command(session, line) if session.where == "exec" else self.config_command(session, line)
        for port in self.ports:
            interface = self.running.interfaces[port]
            if interface.group is None:
                self.exposed[port] |= interface.vlans()
        return said

    def exec_command(self, session: Session, line: str) -> str:
        raise NotImplementedError

    def config_command(self, session: Session, line: str) -> str:
        config = session.config or self.running
        if line == "exit":
            session.where = "config"
            return ""
        if match := re.fullmatch(r"vlan ([\d,-]+)", line):
            config.vlans |= _parse(match[1])
            session.where = "vlan"
            return ""
        if match := re.fullmatch(rf"interface (Ethernet[\d/]+|{self.bond}\d+)", line):
            if match[1] not in config.interfaces:
                if match[1].startswith("Ethernet"):
                    return self.invalid()
                config.interfaces[match[1]] = Interface()
            session.where = match[1]
            return ""
        if match := re.fullmatch(rf"no interface ({self.bond}\d+)", line):
            if any(each.group == int(match[1].removeprefix(self.bond)) for each in config.interfaces.values()):
                return "% the interface has members\n"
            config.interfaces.pop(match[1], None)
            session.where = "config"
            return ""
        if session.where in {"config", "vlan"}:
            return self.invalid()
        return self.interface_command(config, config.interfaces[session.where], line)

    def interface_command(self, config: Config, interface: Interface, line: str) -> str:
        if match := re.fullmatch(r"switchport (access|trunk native) vlan (\d+)", line):
            setattr(interface, match[1].removeprefix("trunk "), int(match[2]))
        elif match := re.fullmatch(r"switchport trunk allowed vlan (add )?([\d,-]+)", line):
            if len(line) > 256:
                return "% Line too long\n"
            interface.allowed = frozenset(_parse(match[2])) | (interface.allowed if match[1] else frozenset())
        elif match := re.fullmatch(r"switchport mode (access|trunk)", line):
            interface.mode = match[1]
        elif line in {"shutdown", "no shutdown"}:
            interface.shut = line == "shutdown"
        elif line in {"switchport", "no switchport"}:
            interface.switchport = line == "switchport"
        elif match := re.fullmatch(self.group, line):
            if f"{self.bond}{match[1]}" not in config.interfaces:
                return "% no such port channel\n"
            interface.group = int(match[1])
        elif line == "no channel-group":
            interface.group = None
        else:
            return self.invalid()
        return ""

    def show_interfaces(self) -> str:
        text = ""
        for name, interface in self.running.interfaces.items():
            text += f"interface {name}\n"
            lines = interface.lines()
            if interface.group is not None:
                lines.append(f"channel-group {interface.group} mode active")
            lines += ["shutdown"] if interface.shut else []
            text += "".join(f"   {line}\n" for line in lines) + self.separator
        return text

    separator = "!\n"

    def invalid(self) -> str:
        return "% Invalid input\n"


class Eos(Industry):
    bond = "Port-Channel"
    group = r"channel-group (\d+) mode active"

    def exec_command(self, session: Session, line: str) -> str:
        if line == "enable":
            return ""
        if line == "terminal width 511":
            return "Width set to 511 columns.\n"
        if line == "terminal length 0":
            return "Pagination disabled.\n"
        if line == "show running-config section interface":
            return self.show_interfaces() + "management api http-commands\n   no shutdown\n!\n"
        if line == "show running-config section vlan":
            return f"vlan {ranges(self.running.vlans - {1})}\n!\n" if self.running.vlans - {1} else ""
        if re.fullmatch(r"configure session koguma-[0-9a-f]+", line):
            session.where, session.config = "config", copy.deepcopy(self.running)
            return ""
        if line == "write memory":
            self.saved = copy.deepcopy(self.running)
            return "Copy completed successfully.\n"
        return self.invalid()

    def config_command(self, session: Session, line: str) -> str:
        if line in {"commit", "abort"}:
            if line == "commit":
                assert session.config is not None
                self.running = session.config
            session.where, session.config = "exec", None
            return ""
        return super().config_command(session, line)


class Nxos(Industry):
    bond = "port-channel"
    group = r"channel-group (\d+) force mode active"
    separator = "\n"

    def exec_command(self, session: Session, line: str) -> str:
        if line in {"terminal width 511", "terminal length 0", "end"}:
            return ""
        if line == "show running-config interface":
            return (
                "\n!Command: show running-config interface\n\nversion 9.3(5) Bios:version\n\n" + self.show_interfaces()
            )
        if line == "show running-config vlan":
            return f"\n!Command: show running-config vlan\n\nversion 9.3(5)\nvlan {ranges(self.running.vlans)}\n\n"
        if line == "configure terminal":
            session.where = "config"
            return "Enter configuration commands, one per line. End with CNTL/Z.\n"
        if line == "copy running-config startup-config":
            self.saved = copy.deepcopy(self.running)
            return "[########################################] 100%\nCopy complete.\n"
        return self.invalid()

    def config_command(self, session: Session, line: str) -> str:
        if line == "end":
            session.where = "exec"
            return ""
        if line == "feature lacp":
            self.lacp = True
            session.where = "config"
            return ""
        if line.startswith("channel-group") and not self.lacp:
            return self.invalid()
        return super().config_command(session, line)

    def invalid(self) -> str:
        return "                  ^\n% Invalid command at '^' marker.\n"


def _parse(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
