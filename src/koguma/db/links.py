"""The links of a node's `detail`: its NICs, bonds and VLANs with their addresses, from its ports and its flavor's
layout. Computes only; ARCHITECTURE.md has the format.

* A link is listed when it has an address or carries something.
* An address of a NIC that is in a bond is the bond's.
* One network gives the default route: the first that has a gateway, ports before VLANs and the boot port first.
* A link passes packets as large as the largest of what it carries, because Linux lets no VLAN exceed its interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koguma.model.layout import Bond, Layout, Vlan, interface_names, vlan_interface
from koguma.model.network import Network
from koguma.model.node import Node

MTU = 1500
"""Of a link that carries no network."""

Given = list[tuple[Network, str]]
"""Networks, each with the address the node has of it."""


def links_of(node: Node, layout: Layout, networks: Mapping[str, Network]) -> dict[str, list[dict[str, Any]]]:
    """`interfaces`, `bonds` and `vlans`. The layout must fit the node (`reason_not_fitting`)."""
    names = interface_names(node.ports)
    given = _addresses(node, layout, networks, names)
    default = next((network for items in given.values() for network, _ in items if network.gateway), None)

    def link(name: str) -> dict[str, Any]:
        return _link(given.get(name, []), _mtu(name, layout, networks, given), default)

    def nic(mac: str, name: str) -> dict[str, Any]:
        bond = layout.bond_of.get(name)
        own = link(name) if bond is None else {**link(bond), "addresses": [], "gateway": None}
        return {"mac": mac, "name": name, **own, "vlan": None, "parent": None, "bond": bond}

    def bond(item: Bond) -> dict[str, Any]:
        macs = [mac for interface in item.interfaces for mac, name in names.items() if name == interface]
        return {"name": item.name, "mode": item.mode.value, "interfaces": macs, **link(item.name)}

    def vlan(item: Vlan) -> dict[str, Any]:
        network = networks[item.network]
        name = vlan_interface(network)
        return {"name": name, "parent": item.interface, "vlan": network.vlan, **link(name)}

    return {
        "interfaces": [nic(mac, name) for mac, name in names.items() if name in given or name in layout.nics],
        "bonds": [bond(item) for item in layout.bonds],
        "vlans": [vlan(item) for item in layout.vlans],
    }


def _addresses(
    node: Node, layout: Layout, networks: Mapping[str, Network], names: Mapping[str, str]
) -> dict[str, Given]:
    """By the name of the link that has them; ports' before VLANs', the boot port's first."""
    given: dict[str, Given] = {}
    for port in node.ports:
        network = networks.get(port.network or "")
        if network and port.address:
            name = names[port.mac]
            given.setdefault(layout.bond_of.get(name, name), []).append((network, port.address))
    address_of = {item.network: item.address for item in node.vlan_addresses}
    for vlan in layout.vlans:
        network = networks[vlan.network]
        given[vlan_interface(network)] = [(network, address_of[vlan.network])]
    return given


def _mtu(name: str, layout: Layout, networks: Mapping[str, Network], given: Mapping[str, Given]) -> int:
    own = [network.mtu for network, _ in given.get(name, [])]
    tagged = [networks[vlan.network].mtu for vlan in layout.vlans if vlan.interface == name]
    return max([*own, *tagged], default=MTU)


def _link(given: Given, mtu: int, default: Network | None) -> dict[str, Any]:
    return {
        "addresses": [f"{address}/{network.prefix}" for network, address in given],
        "gateway": next((network.gateway for network, _ in given if network is default), None),
        "mtu": mtu,
    }
