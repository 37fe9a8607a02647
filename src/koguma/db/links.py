"""The links of a node's `detail`: its NICs, bonds and VLANs with their addresses, from its ports and its flavor's
layout. Computes only; ARCHITECTURE.md has the format.

* A link is listed when it has an address or carries something.
* An address of a NIC that is in a bond is the bond's.
* One network of each family gives the default route: the first that has a gateway, ports before VLANs and the boot
  port first; after the hand-over those before that the node is handed over to.
* A link passes packets as large as the largest of what it carries, because Linux lets no VLAN exceed its interface.
* While a node boots, its ports are in the provisioning network; `handover_of` tells what it has from the hand-over on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koguma.model.layout import Bond, Layout, Vlan, interface_names, vlan_interface
from koguma.model.network import Network
from koguma.model.node import Node

MTU = 1500
"""Of a link that carries no network."""


@dataclass(frozen=True)
class Given:
    """An address that the node has of a network."""

    network: Network
    address: str

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.address).version

    @property
    def gateway(self) -> str | None:
        subnet = self.network.subnet_of(self.address)
        return subnet.gateway if subnet else None


def links_of(
    node: Node, layout: Layout, networks: Mapping[str, Network], *, handed_over: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """`interfaces`, `bonds` and `vlans`. The layout must fit the node (`reason_not_fitting`)."""
    names = interface_names(node.ports)
    given = _addresses(node, layout, networks, names, handed_over)
    default = {item.family: item for items in reversed(given.values()) for item in reversed(items) if item.gateway}

    def link(name: str) -> dict[str, Any]:
        return _link(given.get(name, []), _mtu(name, layout, networks, given), default)

    def nic(mac: str, name: str) -> dict[str, Any]:
        bond = layout.bond_of.get(name)
        own = link(name) if bond is None else {"addresses": [], "gateway": None, "mtu": link(bond)["mtu"]}
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


def handover_of(node: Node, layout: Layout, networks: Mapping[str, Network]) -> dict[str, Any] | None:
    """The links from the hand-over on, and who resolves names there; None where nothing changes."""
    if not layout.networks:
        return None
    servers = dict.fromkeys(server for access in layout.networks for server in networks[access.network].dns_servers)
    return {**links_of(node, layout, networks, handed_over=True), "dns_servers": list(servers)}


def _addresses(
    node: Node, layout: Layout, networks: Mapping[str, Network], names: Mapping[str, str], handed_over: bool
) -> dict[str, list[Given]]:
    """By the name of the link that has them, in the order in which they give the default route."""
    of_network: dict[str, list[str]] = {}
    for item in node.vlan_addresses:
        of_network.setdefault(item.network, []).append(item.address)
    given: dict[str, list[Given]] = {}
    if handed_over:
        for access in layout.networks:
            mine = [Given(networks[access.network], address) for address in of_network[access.network]]
            given[layout.link_of(access.interface)] = mine
    for port in node.ports:
        network = networks.get(port.network or "")
        # A node that is handed over has left the provisioning network, on whichever port it was.
        if network and port.address and not (handed_over and layout.networks):
            given.setdefault(layout.link_of(names[port.mac]), []).append(Given(network, port.address))
    for vlan in layout.vlans:
        network = networks[vlan.network]
        given[vlan_interface(network)] = [Given(network, address) for address in of_network[vlan.network]]
    return given


def _mtu(name: str, layout: Layout, networks: Mapping[str, Network], given: Mapping[str, list[Given]]) -> int:
    own = [item.network.mtu for item in given.get(name, [])]
    tagged = [networks[vlan.network].mtu for vlan in layout.vlans if vlan.interface == name]
    return max([*own, *tagged], default=MTU)


def _link(given: list[Given], mtu: int, default: Mapping[int, Given]) -> dict[str, Any]:
    def gateway(family: int) -> str | None:
        return next((item.gateway for item in given if item == default.get(family)), None)

    addresses = [item.network.with_prefix(item.address) for item in given]
    more = {"gateway6": gateway(6)} if gateway(6) else {}
    return {"addresses": addresses, "gateway": gateway(4), **more, "mtu": mtu}
