"""The Open vSwitch driver: one `ovs-vsctl` process for each question and each write.

A write is one transaction of the switch's database, so ports are never seen half written. A bond is a row of the Port
table named `bond<number>`; its interfaces are kept, with all their settings, when they go into it and come out again.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from koguma.contracts.errors import SwitchDiffers, SwitchRefused, SwitchUnreachable
from koguma.contracts.switches import (
    VLAN_MAX,
    Bond,
    Observed,
    PortVlans,
    SwitchAccess,
    require_free_members,
    require_free_port,
)

_AWAY = re.compile(r"database connection failed|Connection refused|Connection reset|No such file|timed out", re.I)
_BOND = re.compile(r"bond([1-9][0-9]{0,2})")
_ALL_VLANS = tuple(range(1, VLAN_MAX + 1))
_LISTS = frozenset({"ports", "tag", "trunks", "vlan_mode", "interfaces"})


@dataclass(frozen=True)
class _Port:
    """A row of the Port table, and the bridge it is in."""

    uuid: str
    name: str
    bridge: str
    interfaces: tuple[str, ...]
    vlans: PortVlans | None


@dataclass(frozen=True)
class _Tables:
    """What concerns us of the database, as it was at one moment."""

    ports: Mapping[str, _Port]
    interfaces: Mapping[str, str]
    """Interface uuid -> name."""

    def observed(self) -> Observed:
        ports: dict[str, PortVlans | None] = {}
        bonds = {}
        for port in self.ports.values():
            match = _BOND.fullmatch(port.name)
            if match and port.vlans and port.interfaces:
                names = tuple(self.interfaces[uuid] for uuid in port.interfaces)
                bonds[int(match[1])] = Bond(int(match[1]), names, port.vlans)
                ports.update(dict.fromkeys(names))
            else:
                ports[port.name] = port.vlans
        return Observed(ports, bonds)


class OvsSwitch:
    """All bridges of one Open vSwitch, seen as one switch."""

    def __init__(self, access: SwitchAccess, program: str = "ovs-vsctl") -> None:
        if not re.fullmatch(r"unix:/\S+|tcp:\S+", access.address):
            raise SwitchRefused(
                f"an Open vSwitch must be reached by unix:PATH or tcp:HOST:PORT, got {access.address!r}"
            )
        self._access = access
        self._program = program

    def observe(self, *, timeout_s: float) -> Observed:
        return self._read(time.monotonic() + timeout_s).observed()

    def set_port(self, port: str, vlans: PortVlans, *, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        tables = self._read(deadline)
        require_free_port(tables.observed(), port, self._place)
        if tables.ports[port].vlans == vlans:
            return False
        self._run(["set", "Port", tables.ports[port].uuid, *_columns(vlans)], deadline)
        self._require(self._read(deadline).observed().ports.get(port) == vlans, f"port {port}", str(vlans))
        return True

    def set_bond(self, bond: Bond, *, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        tables = self._read(deadline)
        observed = tables.observed()
        require_free_members(observed, bond, self._place)
        if observed.bonds.get(bond.number) == bond:
            return False
        self._run(self._bonding(tables, bond), deadline)
        after = self._read(deadline).observed().bonds.get(bond.number)
        self._require(after == bond, f"bond {bond.number}", f"{', '.join(bond.members)} with {bond.vlans}")
        return True

    def remove_bond(self, number: int, vlans: PortVlans, *, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        tables = self._read(deadline)
        bond = tables.observed().bonds.get(number)
        if bond is None:
            return False
        row = tables.ports[f"bond{number}"]
        words = ["remove", "Bridge", row.bridge, "ports", row.uuid]
        for place, uuid in enumerate(row.interfaces):
            name = tables.interfaces[uuid]
            words += ["--", f"--id=@p{place}", "create", "Port", f"name={json.dumps(name)}", f"interfaces={uuid}"]
            words += [*_columns(vlans), "--", "add", "Bridge", row.bridge, "ports", f"@p{place}"]
        self._run(words, deadline)
        after = self._read(deadline).observed()
        gone = number not in after.bonds and all(after.ports.get(port) == vlans for port in bond.members)
        self._require(gone, f"bond {number}", f"gone and {', '.join(bond.members)} in {vlans}")
        return True

    @property
    def _place(self) -> str:
        return f"switch {self._access.address}"

    def _require(self, so: bool, what: str, wanted: str) -> None:
        if not so:
            raise SwitchDiffers(f"{what} must read back as {wanted}, it does not ({self._place})")

    def _bonding(self, tables: _Tables, bond: Bond) -> list[str]:
        """The transaction that makes a bond of interfaces that are ports of their own, or in it already."""
        before = tables.ports.get(f"bond{bond.number}")
        single = [tables.ports[name] for name in bond.members if name in tables.ports]
        bridges = {port.bridge for port in (*single, *([before] if before else []))}
        if len(bridges) != 1:
            raise SwitchRefused(
                f"a bond's members must be on one bridge, got {', '.join(sorted(bridges))} ({self._place})"
            )
        interfaces = [uuid for port in single for uuid in port.interfaces]
        old = [port.uuid for port in single]
        if before:
            words = ["set", "Port", before.uuid, f"interfaces={_set([*before.interfaces, *interfaces])}"]
        else:
            words = ["--id=@bond", "create", "Port", f"name=bond{bond.number}", f"interfaces={_set(interfaces)}"]
        words += ["lacp=active", "bond_mode=balance-tcp", *_columns(bond.vlans)]
        (bridge,) = bridges
        if not before:
            words += ["--", "add", "Bridge", bridge, "ports", "@bond"]
        if old:
            words += ["--", "remove", "Bridge", bridge, "ports", *old]
        return words

    def _read(self, deadline: float) -> _Tables:
        """One process, so that all three tables are of one moment."""
        said = self._run(
            [
                *("--columns=name,ports", "list", "Bridge"),
                *("--", "--columns=_uuid,name,tag,trunks,vlan_mode,interfaces", "list", "Port"),
                *("--", "--columns=_uuid,name", "list", "Interface"),
            ],
            deadline,
        )
        try:
            bridge_rows, port_rows, interface_rows = (_rows(line) for line in said.splitlines() if line.strip())
            bridges = {uuid: row["name"] for row in bridge_rows for uuid in row["ports"]}
            local = set(bridges.values())
            ports = {
                row["name"]: _Port(row["_uuid"], row["name"], bridges[row["_uuid"]], tuple(row["interfaces"]), _of(row))
                for row in port_rows
                if row["name"] not in local and row["_uuid"] in bridges
            }
            return _Tables(ports, {row["_uuid"]: row["name"] for row in interface_rows})
        except (ValueError, KeyError, TypeError):
            raise SwitchUnreachable(
                f"the switch's database must answer with three tables, it said {said[:120]!r} ({self._place})"
            ) from None

    def _run(self, words: list[str], deadline: float) -> str:
        """What ovs-vsctl says. It returns from a write when the switch has applied it."""
        left_s = max(deadline - time.monotonic(), 0.1)
        argv = [self._program, f"--db={self._access.address}", "--no-syslog", "--format=json", "--", *words]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=left_s, check=False, errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise SwitchUnreachable(
                f"the switch must answer and apply what it is told within {left_s:.1f} s ({self._place})"
            ) from None
        except OSError as error:
            raise SwitchUnreachable(f"{self._program} must be installed on the worker: {error.strerror}") from None
        if done.returncode == 0:
            return done.stdout
        said = "".join(char if char.isprintable() else " " for char in done.stderr).strip()[:200]
        if done.returncode < 0 or _AWAY.search(said):
            raise SwitchUnreachable(f"the switch must answer: {said or 'ovs-vsctl was killed'} ({self._place})")
        raise SwitchRefused(f"the switch refused the change: {said} ({self._place})")


def _columns(vlans: PortVlans) -> list[str]:
    """All VLAN columns of a port, so that nothing of an earlier life stays."""
    if not vlans.tagged:
        return ["vlan_mode=access", f"tag={vlans.untagged}", "trunks=[]"]
    mode, tag = ("trunk", "[]") if vlans.untagged is None else ("native-untagged", str(vlans.untagged))
    return [f"vlan_mode={mode}", f"tag={tag}", f"trunks={_set(str(vlan) for vlan in vlans.tagged)}"]


def _of(row: Mapping[str, Any]) -> PortVlans | None:
    """What a port does with frames. A port with neither tag nor trunks passes every VLAN with its tag."""
    tag, trunks = (row["tag"] or [None])[0], tuple(vlan for vlan in row["trunks"] if vlan) or _ALL_VLANS
    mode = (row["vlan_mode"] or ["trunk" if tag is None else "access"])[0]
    if mode == "access":
        return PortVlans.access(tag) if tag else None
    if mode == "native-untagged" and tag:
        return PortVlans.trunk((vlan for vlan in trunks if vlan != tag), native=tag)
    return PortVlans.trunk(trunks) if mode in {"trunk", "native-tagged"} else None


def _rows(line: str) -> list[dict[str, Any]]:
    """The rows of one table as ovs-vsctl prints them; columns that may hold none or many values are lists."""
    table = json.loads(line)
    headings = table["headings"]
    return [
        {name: _values(cell) if name in _LISTS else _value(cell) for name, cell in zip(headings, row, strict=True)}
        for row in table["data"]
    ]


def _values(cell: Any) -> list[Any]:
    """A set of none or many comes as `["set", […]]`, a set of one as its value."""
    is_set = isinstance(cell, list) and cell[0] == "set"
    return [_value(atom) for atom in (cell[1] if is_set else [cell])]


def _value(atom: Any) -> Any:
    return atom[1] if isinstance(atom, list) and atom[0] == "uuid" else atom


def _set(values: Iterable[str]) -> str:
    return f"[{','.join(values)}]"
