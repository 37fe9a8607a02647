"""Layout: the bonds and VLANs that machines of a flavor have, and the networks they are handed over to. Values and
their rules only, no I/O.

A layout names NICs as Koguma names them: `eth0` is the one the machine boots from, the others follow in the natural
order of the names stage 1 gave them. A network's VLAN makes the interface `vlan<tag>`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from koguma.model.errors import InvalidValue
from koguma.model.hardware import SWITCHED
from koguma.model.names import noun_name, shown
from koguma.model.network import Network, Purpose
from koguma.model.node import Node, Port

INTERFACE_NAME_MAX = 15
"""Bytes; Linux keeps 16 with the final zero."""

_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_NIC = re.compile(r"eth(0|[1-9][0-9]{0,2})")
_KEPT_NAME = re.compile(r"eth[0-9]+|vlan[0-9]+|kgm-.*|lo|all|default|bonding_masters")
"""NICs, VLANs, names that NICs pass through while they are renamed, and words the kernel keeps for itself."""


class BondMode(StrEnum):
    """How a bond uses its NICs: the modes of Linux, by its names."""

    BALANCE_RR = "balance-rr"  # packet by packet, in turn
    ACTIVE_BACKUP = "active-backup"  # one at a time
    BALANCE_XOR = "balance-xor"  # by a hash of the addresses
    BROADCAST = "broadcast"  # everything on all
    LACP = "802.3ad"  # negotiated with the switch
    BALANCE_TLB = "balance-tlb"  # sending by load
    BALANCE_ALB = "balance-alb"  # sending and receiving by load


@dataclass(frozen=True)
class Bond:
    name: str
    mode: BondMode
    interfaces: tuple[str, ...]
    """NICs, as `eth0`."""


@dataclass(frozen=True)
class Vlan:
    """A network, tagged, on a NIC or a bond; each node has an address of it."""

    network: str
    interface: str


@dataclass(frozen=True)
class Access:
    """A network, untagged, on a NIC or on the bond it is in, from the hand-over on: until then a machine is in the
    provisioning network. Each node has an address of it, one of each family.
    """

    network: str
    interface: str = "eth0"


@dataclass(frozen=True)
class Layout:
    bonds: tuple[Bond, ...] = ()
    vlans: tuple[Vlan, ...] = ()
    networks: tuple[Access, ...] = ()

    @property
    def bond_of(self) -> dict[str, str]:
        """The bond that a NIC is in, by the NIC's name."""
        return {interface: bond.name for bond in self.bonds for interface in bond.interfaces}

    @property
    def nics(self) -> tuple[str, ...]:
        """The NICs it needs, each once."""
        bonds = {bond.name for bond in self.bonds}
        carrying = [*(vlan.interface for vlan in self.vlans), *(access.interface for access in self.networks)]
        return tuple(dict.fromkeys((*self.bond_of, *(name for name in carrying if name not in bonds))))

    @property
    def network_names(self) -> tuple[str, ...]:
        """Every network it puts a node in beside the provisioning network."""
        return (*(vlan.network for vlan in self.vlans), *(access.network for access in self.networks))

    def link_of(self, interface: str) -> str:
        """The NIC, or the bond it is in."""
        return self.bond_of.get(interface, interface)


def interface_names(ports: Iterable[Port]) -> dict[str, str]:
    """What the node's operating system calls each port, by MAC: eth0 is the boot port."""
    ordered = sorted(ports, key=lambda port: (not port.boot, _natural(port.name), port.mac))
    return {port.mac: f"eth{index}" for index, port in enumerate(ordered)}


def vlan_interface(network: Network) -> str:
    return f"vlan{network.vlan}"


def layout_for(node: Node, layout: Layout) -> Layout:
    """The flavor's layout with the networks attached to the node in place of the flavor's: on the ports that were
    asked for, else on the boot NIC first and then on each other one in turn.
    """
    if not node.vifs or not is_switched(node):
        return layout
    names = interface_names(node.ports)
    by_uuid = {port.uuid: names[port.mac] for port in node.ports}
    asked = {by_uuid[vif.port] for vif in node.vifs if vif.port in by_uuid}
    free = (name for name in [*sorted(names.values(), key=_natural), *_MORE] if name not in asked)
    accesses = [Access(vif.network, by_uuid.get(vif.port or "") or next(free)) for vif in node.vifs]
    return replace(layout, networks=tuple(accesses))


_MORE = tuple(f"eth{number}" for number in range(900, 1000))
"""NICs that no machine has: where a node has more networks attached than NICs, they say so."""


def check(layout: Layout, networks: Mapping[str, Network], place: str) -> None:
    """Raises InvalidValue that says rule, value and place; `networks` are all those of the site."""
    for bond in layout.bonds:
        _check_bond(bond, place)
    _each_once((bond.name for bond in layout.bonds), "a bond has a name of its own", place)
    _each_once((nic for bond in layout.bonds for nic in bond.interfaces), "a NIC is in one bond, once", place)
    bonds = {bond.name for bond in layout.bonds}
    for vlan in layout.vlans:
        _check_parent(vlan, bonds, layout.bond_of, place)
        _check_network(vlan.network, networks, place)
    for access in layout.networks:
        if access.interface not in bonds and not _NIC.fullmatch(access.interface):
            raise InvalidValue(
                f"a network must be on a NIC (eth0, eth1 …) or a bond of the flavor, got {access.interface!r} {place}"
            )
        _check_network(access.network, networks, place)
    _each_once(layout.network_names, "a network is on one interface of a node", place)
    _each_once(
        (layout.link_of(access.interface) for access in layout.networks),
        "an interface has one network without a tag",
        place,
    )
    _each_once(
        (vlan_interface(networks[vlan.network]) for vlan in layout.vlans),
        "two VLANs of a node have tags of their own",
        place,
    )


def reason_not_fitting(layout: Layout, node: Node) -> str | None:
    """Why this node cannot have the layout, or None when it can. It is asked again whenever ports change."""
    have = set(interface_names(node.ports).values())
    bond_of = layout.bond_of
    if missing := next((nic for nic in layout.nics if nic not in have), None):
        of_vlan = missing in {vlan.interface for vlan in layout.vlans}
        user = f"bond {bond_of[missing]}" if missing in bond_of else "a VLAN" if of_vlan else "a network"
        return f"{user} needs {missing}, the node's NICs are {_listed(have)}"
    given = {item.network for item in node.vlan_addresses}
    untagged = {port.network for port in node.ports}
    for vlan in layout.vlans:
        if vlan.network in untagged:
            return f"network {vlan.network} must not be on {vlan.interface}, a NIC of the node has an address of it"
        if vlan.network not in given:
            return f"the VLAN on {vlan.interface} needs an address of network {vlan.network}, none was given"
    if layout.networks and not is_switched(node):
        return (
            f"it is to be handed over to network {layout.networks[0].network}, and its network interface"
            f" {node.interface('network')!r} leaves switches alone"
        )
    for access in layout.networks:
        if access.network not in given:
            return f"{access.interface} needs an address of network {access.network}, none was given"
    return None


def is_switched(node: Node) -> bool:
    """Whether Koguma puts the node's switch ports into networks."""
    return node.interface("network") == SWITCHED


def _check_bond(bond: Bond, place: str) -> None:
    _check_name(bond.name, "a bond's name", place)
    if _KEPT_NAME.fullmatch(bond.name):
        raise InvalidValue(f"a bond's name must not be one of a NIC, a VLAN or the kernel, got {bond.name!r} {place}")
    if not bond.interfaces:
        raise InvalidValue(f"a bond must have at least one NIC, {bond.name} has none {place}")
    for interface in bond.interfaces:
        _check_name(interface, "a NIC's name", place)
        if not _NIC.fullmatch(interface):
            raise InvalidValue(
                f"a bond must be made of NICs: eth0, which the machine boots from, eth1 …, got {interface!r} {place}"
            )


def _check_parent(vlan: Vlan, bonds: Collection[str], bond_of: Mapping[str, str], place: str) -> None:
    _check_name(vlan.interface, "a VLAN's interface", place)
    if bond := bond_of.get(vlan.interface):
        raise InvalidValue(f"a VLAN of a NIC in a bond must be on the bond {bond}, got {vlan.interface!r} {place}")
    if vlan.interface not in bonds and not _NIC.fullmatch(vlan.interface):
        raise InvalidValue(
            f"a VLAN must be on a NIC (eth0, eth1 …) or on a bond of the flavor, got {vlan.interface!r} {place}"
        )


def _check_network(name: str, networks: Mapping[str, Network], place: str) -> None:
    noun_name(name, "network name")
    network = networks.get(name)
    if network is None:
        raise InvalidValue(f"a VLAN must be of a network that exists, got {shown(name)} {place}")
    if network.vlan == 0:
        raise InvalidValue(f"a node's VLAN or network must have a tag, {name} has none {place}")
    if network.purpose is Purpose.PROVISIONING:
        raise InvalidValue(
            f"a machine's VLAN or network must be no provisioning network, it boots from that untagged: {name} {place}"
        )


def _check_name(name: str, what: str, place: str) -> None:
    if len(name.encode()) > INTERFACE_NAME_MAX or not _INTERFACE.fullmatch(name):
        raise InvalidValue(
            f"{what} must be at most {INTERFACE_NAME_MAX} bytes: a letter, then letters, digits, dots, hyphens and"
            f" underscores, got {shown(name)} {place}"
        )


def _each_once(values: Iterable[str], rule: str, place: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise InvalidValue(f"{rule}, {value} is given twice {place}")
        seen.add(value)


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """ens3 comes before ens10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"([^0-9]+|(?=[0-9]))([0-9]*)", name))


def _listed(nics: Iterable[str]) -> str:
    return ", ".join(sorted(nics, key=_natural)) or "none"
