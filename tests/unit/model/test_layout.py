from __future__ import annotations

from typing import Any

import pytest

from koguma.model.errors import InvalidValue
from koguma.model.layout import Bond, BondMode, Layout, Vlan, check, interface_names, reason_not_fitting
from koguma.model.network import Network, Purpose
from koguma.model.node import Node, Port, VlanAddress

STORAGE = Network("storage", Purpose.STORAGE, 200, "10.88.0.0/24")
TENANT = Network("tenant", Purpose.TENANT, 300, "10.99.0.0/24")
NETWORKS = {
    network.name: network
    for network in (
        STORAGE,
        TENANT,
        Network("same-tag", Purpose.STORAGE, 200, "10.89.0.0/24"),
        Network("untagged", Purpose.STORAGE, 0, "10.90.0.0/24"),
        Network("provisioning", Purpose.PROVISIONING, 100, "10.77.0.0/24"),
    )
}


def bond(name: str = "bond0", *interfaces: str) -> Bond:
    return Bond(name, BondMode.LACP, interfaces or ("eth0", "eth1"))


def node(nics: int, *networks: str, **changes: Any) -> Node:
    ports = tuple(Port(mac=f"52:54:00:00:00:0{number}", name=f"ens{number}", boot=not number) for number in range(nics))
    given = tuple(VlanAddress(network, "10.88.0.1") for network in networks)
    return Node(**{"uuid": "u", "name": "node-1", "ports": ports, "vlan_addresses": given, **changes})


def test_a_layout_of_bonds_and_vlans_is_accepted() -> None:
    layout = Layout((bond(), bond("bond1", "eth2")), (Vlan("storage", "bond0"), Vlan("tenant", "eth3")))
    check(layout, NETWORKS, "(flavor f)")
    assert layout.nics == ("eth0", "eth1", "eth2", "eth3")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout((bond("a-name-too-long0"),)), "at most 15 bytes"),
        (Layout((bond("bünd"),)), "at most 15 bytes"),
        (Layout((bond("0bond"),)), "a letter, then"),
        (Layout((bond("bond/0"),)), "got 'bond/0'"),
        (Layout((bond("eth7"),)), "must not be one of a NIC"),
        (Layout((bond("vlan200"),)), "must not be one of a NIC"),
        (Layout((bond("bonding_masters"),)), "must not be one of a NIC"),
        (Layout((Bond("bond0", BondMode.LACP, ()),)), "at least one NIC"),
        (Layout((bond("bond0", "ens3"),)), "eth0, which the machine boots from.*'ens3'"),
        (Layout((bond("bond0", "eth0", "eth0"),)), "in one bond, once, eth0"),
        (Layout((bond(), bond("bond1", "eth1"))), "in one bond, once, eth1"),
        (Layout((bond(), bond("bond0", "eth2"))), "name of its own, bond0"),
        (Layout((), (Vlan("storage", "bond0"),)), "on a NIC .* or on a bond of the flavor, got 'bond0'"),
        (Layout((bond(),), (Vlan("storage", "eth0"),)), "must be on the bond bond0, got 'eth0'"),
        (Layout((), (Vlan("nothing", "eth0"),)), "network that exists, got 'nothing'"),
        (Layout((), (Vlan("untagged", "eth0"),)), "have a tag, untagged has none"),
        (Layout((), (Vlan("provisioning", "eth0"),)), "boots from that untagged: provisioning"),
        (Layout((), (Vlan("storage", "eth0"), Vlan("storage", "eth1"))), "one interface of a node, storage"),
        (Layout((), (Vlan("storage", "eth0"), Vlan("same-tag", "eth1"))), "tags of their own, vlan200"),
    ],
)
def test_a_layout_against_the_rules_is_refused_with_the_place(layout: Layout, message: str) -> None:
    with pytest.raises(InvalidValue, match=rf"{message}.*\(flavor f\)"):
        check(layout, NETWORKS, "(flavor f)")


def test_nics_are_named_from_the_boot_port_on_in_natural_order() -> None:
    ports = [Port(mac=name, name=name, boot=name == "ens10") for name in ("ens9", "ens10", "enp1s0", "ens11", "ens3")]
    assert interface_names(ports) == {
        "ens10": "eth0",
        "enp1s0": "eth1",
        "ens3": "eth2",
        "ens9": "eth3",
        "ens11": "eth4",
    }


def test_a_node_without_the_nics_of_a_layout_is_told_which_is_missing() -> None:
    layout = Layout((bond("bond0", "eth0", "eth2"),), (Vlan("storage", "eth1"),))
    assert reason_not_fitting(layout, node(2)) == "bond bond0 needs eth2, the node's NICs are eth0, eth1"
    assert reason_not_fitting(Layout((), (Vlan("storage", "eth1"),)), node(1)) == (
        "a VLAN needs eth1, the node's NICs are eth0"
    )
    assert "NICs are none" in str(reason_not_fitting(layout, node(0)))
    assert reason_not_fitting(layout, node(3, "storage")) is None
    assert reason_not_fitting(Layout(), node(0)) is None


def test_a_node_without_an_address_of_a_vlan_is_told_so() -> None:
    layout = Layout((), (Vlan("storage", "eth0"),))
    assert "needs an address of network storage, none was given" in str(reason_not_fitting(layout, node(1)))


def test_a_network_is_not_on_a_nic_and_a_vlan_of_one_node() -> None:
    ports = (Port(mac="52:54:00:00:00:00", network="storage", address="10.88.0.2"),)
    reason = reason_not_fitting(Layout((), (Vlan("storage", "eth0"),)), node(1, "storage", ports=ports))
    assert "network storage must not be on eth0" in str(reason)
