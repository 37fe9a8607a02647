from __future__ import annotations

import ipaddress
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.model.errors import InvalidValue
from koguma.model.network import Network, Purpose, overlap, validated
from koguma.model.subnet import Reservation, Subnet

NODE = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


def network(**changes: Any) -> Network:
    values: dict[str, Any] = {"name": "n", "purpose": Purpose.PROVISIONING, "vlan": 1, "subnet": "10.0.0.0/29"}
    return Network(**{**values, **changes})


def test_ports_get_neither_gateway_nor_discovery_nor_reserved_addresses() -> None:
    given_out = list(
        network(
            subnet="10.0.0.0/28",
            gateway="10.0.0.1",
            discovery_start="10.0.0.10",
            discovery_end="10.0.0.12",
            reserved=(Reservation("10.0.0.3"), Reservation("10.0.0.5-10.0.0.6")),
            dns_servers=("10.0.0.14",),
        ).addresses()
    )
    assert given_out == [f"10.0.0.{last}" for last in (2, 4, 7, 8, 9, 13)]


def test_a_point_to_point_network_uses_both_addresses() -> None:
    assert list(network(subnet="10.0.0.0/31").addresses()) == ["10.0.0.0", "10.0.0.1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subnet": "10.0.0.1/24"}, "host bits"),
        ({"subnet": "fd00::/64"}, "boot over IPv4"),
        ({"vlan": 4095}, "vlan must be"),
        ({"gateway": "10.1.0.1"}, "gateway must be inside"),
        ({"discovery_start": "10.0.0.2"}, "together"),
        ({"discovery_start": "10.0.0.5", "discovery_end": "10.0.0.2"}, "must not be after"),
        ({"reserved": (Reservation("10.0.0.5-10.0.0.2"),)}, "must start before"),
        ({"reserved": (Reservation("x"),)}, "IP address"),
        ({"reserved": (Reservation("10.0.0.2", node=NODE), Reservation("10.0.0.1-10.0.0.4"))}, "may not overlap"),
        ({"reserved": (Reservation("10.0.0.2", "two\nlines"),)}, "one line"),
        ({"ranges": ("10.0.0.2-10.0.1.4",)}, "ranges must be inside"),
        ({"more_subnets": (Subnet("10.0.0.4/30"),)}, "subnets may not overlap"),
        ({"more_subnets": (Subnet("fd00::/64", "fd01::1"),)}, "gateway must be inside"),
        ({"dns_servers": ("name",)}, "IP addresses"),
        ({"mtu": 100}, "mtu"),
        ({"name": "N"}, "network name"),
    ],
)
def test_a_network_against_the_rules_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        validated(network(**changes))


def test_overlap_is_seen_whichever_is_larger() -> None:
    assert overlap(network(subnet="10.0.0.0/8"), network(subnet="10.1.0.0/24"))
    assert not overlap(network(subnet="10.0.0.0/24"), network(subnet="10.0.1.0/24"))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    prefix = draw(st.integers(24, 30))
    subnet = ipaddress.IPv4Network((draw(st.integers(0, 2**32 - 1)), prefix), strict=False)
    inside = st.integers(int(subnet.network_address), int(subnet.broadcast_address)).map(
        lambda number: str(ipaddress.IPv4Address(number))
    )
    ends = sorted([draw(inside), draw(inside)], key=lambda text: int(ipaddress.IPv4Address(text)))
    return validated(
        network(
            subnet=str(subnet),
            gateway=draw(st.none() | inside),
            discovery_start=ends[0],
            discovery_end=ends[1],
            reserved=tuple(Reservation(text) for text in draw(st.lists(inside, max_size=5))),
            ranges=tuple(f"{text}-{subnet.broadcast_address}" for text in draw(st.lists(inside, max_size=1))),
        )
    )


@given(networks())
def test_addresses_and_the_reasons_against_them_agree(network: Network) -> None:
    offered = list(network.addresses())
    assert len(offered) == len(set(offered))
    assert offered == sorted(offered, key=lambda text: int(ipaddress.IPv4Address(text)))
    everything = [str(address) for address in ipaddress.IPv4Network(network.subnet)]
    assert offered == [address for address in everything if network.reason_not_for_ports(address) is None]


def test_a_large_network_is_not_enumerated_before_its_first_address() -> None:
    assert list(islice(network(subnet="10.0.0.0/8").addresses(), 2)) == ["10.0.0.1", "10.0.0.2"]


def test_what_is_reserved_for_a_node_is_its_first_and_nobody_elses() -> None:
    mine = validated(network(subnet="10.0.0.0/29", reserved=(Reservation("10.0.0.5", "its licence", NODE),)))
    assert next(mine.addresses(4, NODE)) == "10.0.0.5"
    assert list(mine.addresses(4, NODE)) == [f"10.0.0.{last}" for last in (5, 1, 2, 3, 4, 6)]
    assert "10.0.0.5" not in list(mine.addresses(4, OTHER))
    assert mine.reason_not_for_ports("10.0.0.5", NODE) is None
    assert mine.reason_not_for_ports("10.0.0.5", OTHER) == f"it is reserved for node {NODE}: its licence"


def test_addresses_of_ipv6_start_after_the_routers_and_are_never_all_counted() -> None:
    both = validated(
        network(
            purpose=Purpose.TENANT,
            more_subnets=(Subnet("FD00:0::/64", "fd00::1"), Subnet("fd01::/64", None, ("fd01::a-fd01::b",))),
        )
    )
    assert both.families == (4, 6)
    assert list(islice(both.addresses(6), 2)) == ["fd00::2", "fd00::3"]
    assert both.with_prefix("fd01::a") == "fd01::a/64"
    assert both.reason_not_for_ports("fd01::c") == "it is outside the ranges that addresses are given from"
    only6 = validated(network(purpose=Purpose.TENANT, subnet="fd02::/126"))
    assert list(only6.addresses(6)) == ["fd02::1", "fd02::2", "fd02::3"]
    assert list(only6.addresses(4)) == []
