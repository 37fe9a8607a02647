"""SONiC and Cumulus Linux for tests: shells that know the few programs that configure them."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from koguma.contracts.switches import ranges

MARK = "; echo koguma-exit=$?"


class Shell:
    host = ""

    def open(self) -> object:
        return self

    def prompt(self, session: object) -> str:
        return f"koguma@{self.host}:~$ "

    def run(self, session: object, line: str) -> str:
        said, status = self.program(line.removesuffix(MARK))
        said = f"{said}\n" if said and not said.endswith("\n") else said
        return f"{said}koguma-exit={status}\n" if line.endswith(MARK) else said

    def program(self, line: str) -> tuple[str, int]:
        raise NotImplementedError


class Sonic(Shell):
    """CONFIG_DB, and the rules of `config`. `exposed` remembers every VLAN that each port was ever in."""

    host = "sonic"

    def __init__(self, ports: tuple[str, ...], *, modes: bool = False) -> None:
        self.ports = ports
        self.modes = modes
        self.reset()

    def reset(self) -> None:
        row: dict[str, str] = {"mode": "routed"} if self.modes else {}
        self.tables: dict[str, dict[str, Any]] = {
            "DEVICE_METADATA": {"localhost": {"hostname": "sonic"}},
            "PORT": {port: {"admin_status": "up", **row} for port in self.ports},
            "VLAN": {},
            "VLAN_MEMBER": {},
            "PORTCHANNEL": {},
            "PORTCHANNEL_MEMBER": {},
        }
        self.saved: dict[str, Any] = {}
        self.exposed: dict[str, set[int]] = {port: set() for port in self.ports}

    def program(self, line: str) -> tuple[str, int]:
        if line == "show runningconfiguration all":
            return json.dumps({name: rows for name, rows in self.tables.items() if rows}, indent=4), 0
        if line == "sudo -n config save -y":
            self.saved = copy.deepcopy(self.tables)
            return "Running command: /usr/local/bin/sonic-cfggen -d --print-data > /etc/sonic/config_db.json", 0
        match = re.fullmatch(r"sudo -n config ([a-z]+(?: member)?) (add|del|mode) (.+)", line)
        if match is None:
            return f"bash: {line.split(maxsplit=1)[0]}: command not found", 127
        reason = self._config(match[1], match[2], match[3].split())
        for key in self.tables["VLAN_MEMBER"]:
            vlan, _, port = key.partition("|")
            self.exposed.setdefault(port, set()).add(int(vlan.removeprefix("Vlan")))
        return (f"Error: {reason}", 2) if reason else ("", 0)

    def _config(self, noun: str, verb: str, words: list[str]) -> str | None:
        if noun == "vlan":
            name = f"Vlan{words[0]}"
            if name in self.tables["VLAN"]:
                return f"{name} already exists!"
            self.tables["VLAN"][name] = {"vlanid": words[0]}
            return None
        if noun == "vlan member":
            return self._vlan_member(verb, words)
        if noun == "portchannel":
            rows = self.tables["PORTCHANNEL"]
            if (verb == "add") is (words[0] in rows):
                return f"{words[0]} exists or not"
            if verb == "del" and any(key.startswith(f"{words[0]}|") for key in self.tables["PORTCHANNEL_MEMBER"]):
                return f"{words[0]} has members"
            if verb == "add":
                rows[words[0]] = {"mode": "routed"} if self.modes else {}
            else:
                del rows[words[0]]
            return None
        if noun == "portchannel member":
            key = "|".join(words)
            if verb == "add":
                if any(each.endswith(f"|{words[1]}") for each in self.tables["VLAN_MEMBER"]):
                    return f"{words[1]} Interface configured as VLAN_MEMBER under vlan"
                self.tables["PORTCHANNEL_MEMBER"][key] = {}
            elif self.tables["PORTCHANNEL_MEMBER"].pop(key, None) is None:
                return f"{words[1]} is not a member"
            return None
        if noun == "switchport" and self.modes:
            self._row(words[1])["mode"] = words[0]
            return None
        return "No such command"

    def _vlan_member(self, verb: str, words: list[str]) -> str | None:
        untagged = words[0] == "-u"
        vlan, port = words[-2:]
        key = f"Vlan{vlan}|{port}"
        members = self.tables["VLAN_MEMBER"]
        if verb == "del":
            return f"{port} is not a member of Vlan{vlan}" if members.pop(key, None) is None else None
        if f"Vlan{vlan}" not in self.tables["VLAN"]:
            return f"Vlan{vlan} does not exist"
        if key in members or any(each.endswith(f"|{port}") for each in self.tables["PORTCHANNEL_MEMBER"]):
            return f"{port} is a member already"
        if self.modes and self._row(port)["mode"] != "trunk" and not (self._row(port)["mode"] == "access" and untagged):
            return f"{port} is in {self._row(port)['mode']} mode!"
        if untagged and any(
            row["tagging_mode"] == "untagged" for each, row in members.items() if each.endswith(f"|{port}")
        ):
            return f"{port} is already untagged member!"
        members[key] = {"tagging_mode": "untagged" if untagged else "tagged"}
        return None

    def _row(self, port: str) -> dict[str, str]:
        row: dict[str, str] = (self.tables["PORT"] if port in self.tables["PORT"] else self.tables["PORTCHANNEL"])[port]
        return row


class Cumulus(Shell):
    """NVUE: a pending revision and the applied one. Equal interfaces are shown together, as NVUE does."""

    host = "cumulus"

    def __init__(self, ports: tuple[str, ...]) -> None:
        self.ports = ports
        self.reset()

    def reset(self) -> None:
        self.applied: dict[str, Any] = {
            "vlans": {1},
            "interfaces": {port: {"domain": {"access": 1}} for port in self.ports},
        }
        self.pending: dict[str, Any] | None = None
        self.saved: dict[str, Any] = {}

    def program(self, line: str) -> tuple[str, int]:
        if line == "nv show interface -o json":
            return json.dumps({name: {"type": "swp"} for name in (*self.ports, "eth0", "lo")}, indent=2), 0
        if line == "nv config show -o json":
            return json.dumps([{"header": {"version": "Cumulus Linux 5.6.0"}}, {"set": self._shown()}], indent=2), 0
        if line == "nv config apply -y":
            if self.pending and (reason := self._reason_not_valid(self.pending)):
                return f"Invalid config [rev_id: 5]\n  {reason}", 1
            self.applied, self.pending = self.pending or self.applied, None
            return "applied [rev_id: 5]", 0
        if line == "nv config save":
            self.saved = copy.deepcopy(self.applied)
            return "saved [rev_id: applied]", 0
        if line == "nv config detach":
            self.pending = None
            return "", 0
        if line.startswith(("nv set ", "nv unset ")):
            self.pending = self.pending or copy.deepcopy(self.applied)
            return ("", 0) if self._change(self.pending, line) else ("Error: Unrecognized argument", 1)
        return f"-bash: {line.split(maxsplit=1)[0]}: command not found", 127

    def _change(self, config: dict[str, Any], line: str) -> bool:
        interfaces: dict[str, dict[str, Any]] = config["interfaces"]
        if match := re.fullmatch(r"nv set bridge domain br_default vlan ([\d,-]+)", line):
            config["vlans"] |= _parse(match[1])
        elif match := re.fullmatch(
            r"nv set interface (\S+) bridge domain br_default (access|vlan|untagged) (\S+)", line
        ):
            domain = interfaces.setdefault(match[1], {}).setdefault("domain", {})
            if match[2] == "vlan":
                domain["vlan"] = sorted({*domain.get("vlan", []), *_parse(match[3])})
            else:
                domain[match[2]] = int(match[3]) if match[3].isdigit() else match[3]
        elif match := re.fullmatch(r"nv unset interface (\S+) bridge", line):
            interfaces.get(match[1], {}).pop("domain", None)
        elif match := re.fullmatch(r"nv set interface (bond\d+) bond member (\S+)", line):
            members = interfaces.setdefault(match[1], {}).setdefault("members", [])
            members += [port for port in match[2].split(",") if port not in members]
        elif match := re.fullmatch(r"nv set interface (bond\d+) bond mode lacp", line):
            interfaces.setdefault(match[1], {})
        elif match := re.fullmatch(r"nv unset interface (bond\d+)", line):
            interfaces.pop(match[1], None)
        else:
            return False
        return True

    def _reason_not_valid(self, config: dict[str, Any]) -> str | None:
        for name, interface in config["interfaces"].items():
            domain = interface.get("domain", {})
            if "access" in domain and ("vlan" in domain or "untagged" in domain):
                return f"{name}: access and vlan are exclusive"
            for port in interface.get("members", []):
                if config["interfaces"].get(port, {}).get("domain"):
                    return f"{port}: a bond's member is no bridge port"
            named = {domain["access"]} if "access" in domain else set(domain.get("vlan", []))
            if not named <= config["vlans"]:
                return f"{name}: the bridge has no such VLAN"
        return None

    def _shown(self) -> dict[str, Any]:
        together: dict[str, list[str]] = {}
        for name, interface in self.applied["interfaces"].items():
            together.setdefault(json.dumps(interface, sort_keys=True), []).append(name)
        shown = {}
        for text, names in together.items():
            interface = json.loads(text)
            value: dict[str, Any] = {}
            if "domain" in interface:
                domain = dict(interface["domain"])
                if "vlan" in domain:
                    domain["vlan"] = {part: {} for part in ranges(domain["vlan"]).split(",")}
                value["bridge"] = {"domain": {"br_default": domain}}
            if "members" in interface:
                value["bond"] = {"member": {port: {} for port in interface["members"]}, "mode": "lacp"}
            if value:
                shown[_together(names)] = value
        vlans = {part: {} for part in ranges(self.applied["vlans"]).split(",")}
        return {"bridge": {"domain": {"br_default": {"vlan": vlans}}}, "interface": shown}


def _together(names: list[str]) -> str:
    """`swp1-3,5` of swp1, swp2, swp3 and swp5."""
    prefix = re.sub(r"\d+$", "", names[0])
    return prefix + ranges(int(name.removeprefix(prefix)) for name in names)


def _parse(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
