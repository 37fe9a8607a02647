"""Network: a VLAN with its subnets and a purpose, and which of its addresses may be given to whom. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from koguma.model import subnet as subnets
from koguma.model.errors import InvalidValue
from koguma.model.names import noun_name, shown
from koguma.model.subnet import Reservation, Span, Subnet


class Purpose(StrEnum):
    """What a network is for."""

    PROVISIONING = "provisioning"  # machines boot from it
    TENANT = "tenant"  # a tenant's own
    BMC = "bmc"  # management controllers
    STORAGE = "storage"  # volumes and exports


@dataclass(frozen=True)
class Network:
    """Addresses are text in normal form; `validated` makes them so.

    `subnet`, `gateway` and `ranges` are the first subnet, which is IPv4 where machines boot; `more_subnets` the others.
    Whoever is in the network has one address of each family that it has subnets of.
    """

    name: str
    purpose: Purpose
    vlan: int
    subnet: str
    gateway: str | None = None
    discovery_start: str | None = None
    discovery_end: str | None = None
    reserved: tuple[Reservation, ...] = ()
    dns_servers: tuple[str, ...] = ()
    ntp_servers: tuple[str, ...] = ()
    domain: str = ""
    mtu: int = 1500
    version: int = 1
    ranges: tuple[str, ...] = ()
    more_subnets: tuple[Subnet, ...] = ()

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return (Subnet(self.subnet, self.gateway, self.ranges), *self.more_subnets)

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6 or both."""
        return tuple(sorted({subnet.family for subnet in self.subnets}))

    def holds(self, address: str) -> bool:
        return self.subnet_of(address) is not None

    def subnet_of(self, address: str) -> Subnet | None:
        return next((subnet for subnet in self.subnets if subnet.holds(address)), None)

    def with_prefix(self, address: str) -> str:
        """`10.0.0.5/24` of an address that the network holds."""
        subnet = self.subnet_of(address)
        return f"{address}/{subnet.prefix if subnet else ipaddress.ip_address(address).max_prefixlen}"

    def reason_not_for_ports(self, address: str, node: str | None = None) -> str | None:
        """Why the ports of this node (by UUID) may not have this address, or None when they may."""
        subnet = self.subnet_of(address)
        if subnet is None:
            return f"it is outside the subnet {', '.join(subnet.cidr for subnet in self.subnets)}"
        number = int(ipaddress.ip_address(address))
        for span, reason in self._kept(subnet, node):
            if span.holds(number):
                return reason
        kept_for_it = any(item.node == node and item.numbers.holds(number) for item in self._reserved(subnet))
        if not kept_for_it and not any(span.holds(number) for span in subnet.given_from):
            return "it is outside the ranges that addresses are given from"
        return None

    def addresses(self, family: int = 4, node: str | None = None) -> Iterator[str]:
        """The addresses that the ports of this node (by UUID) may have: those reserved for it, then the others of
        each subnet, lowest first.
        """
        first = set()
        mine = [subnet for subnet in self.subnets if subnet.family == family]
        for subnet in mine:
            for item in self._reserved(subnet):
                if node is not None and item.node == node:
                    for number in range(item.numbers.first, item.numbers.last + 1):
                        first.add(subnet.text(number))
                        yield subnet.text(number)
        for subnet in mine:
            kept = sorted(span for span, _ in self._kept(subnet, node))
            for span in subnet.given_from:
                for number in _outside(span, kept):
                    if (text := subnet.text(number)) not in first:
                        yield text

    def _reserved(self, subnet: Subnet) -> Iterator[Reservation]:
        return (item for item in self.reserved if subnet.holds(item.span.partition("-")[0]))

    def _kept(self, subnet: Subnet, node: str | None) -> Iterator[tuple[Span, str]]:
        """What the ports of this node may not have, each with the reason."""
        yield from subnet.own_addresses()
        if self.discovery_start and self.discovery_end and subnet.holds(self.discovery_start):
            yield Reservation(f"{self.discovery_start}-{self.discovery_end}").numbers, "it is in the discovery range"
        for item in self._reserved(subnet):
            if item.node is None or item.node != node:
                yield item.numbers, _why(item)
        for server in self.dns_servers:
            if subnet.holds(server):
                yield Reservation(server).numbers, "it is a name server"


def validated(network: Network) -> Network:
    """The network in normal form. Raises InvalidValue that names the key, the rule and the value."""
    place = f"(network {network.name})"
    noun_name(network.name, "network name")
    first = subnets.validated(network.subnets[0], "subnet", place)
    more = tuple(subnets.validated(subnet, "more_subnets", place) for subnet in network.more_subnets)
    _reject_overlapping((first, *more), place)
    if not 0 <= network.vlan <= 4094:
        raise InvalidValue(f"vlan must be 0 (untagged) to 4094, got {network.vlan} {place}")
    if not 576 <= network.mtu <= 9216:
        raise InvalidValue(f"mtu must be 576 to 9216, got {network.mtu} {place}")
    if network.purpose is Purpose.PROVISIONING and first.family != 4:
        raise InvalidValue(f"machines boot over IPv4: subnet must be an IPv4 network, got {first.cidr} {place}")
    values: dict[str, Any] = {
        **vars(network),
        **_discovery(network, first, place),
        "subnet": first.cidr,
        "gateway": first.gateway,
        "ranges": first.ranges,
        "more_subnets": more,
    }
    values["reserved"] = _reserved(network, (first, *more), place)
    for key in ("dns_servers", "ntp_servers"):
        values[key] = tuple(_server(item, key, place) for item in getattr(network, key))
    return Network(**values)


def with_reservation(network: Network, reservation: Reservation) -> Network:
    """With this one more, in normal form. Repeating it changes nothing. Raises InvalidValue."""
    place = f"(network {network.name})"
    reservation = subnets.validated_reservation(reservation, network.subnets, place)
    if reservation in network.reserved:
        return network
    return validated(replace(network, reserved=(*network.reserved, reservation)))


def without_reservation(network: Network, span: str) -> Network | None:
    """Without the reservation of exactly this span; None when there is none."""
    text = subnets.span_in(
        span, tuple(subnet.network for subnet in network.subnets), "reserved", f"(network {network.name})"
    )
    left = tuple(item for item in network.reserved if item.span != text)
    return replace(network, reserved=left) if len(left) < len(network.reserved) else None


def overlap(one: Network, other: Network) -> tuple[str, str] | None:
    """Two subnets of theirs that share addresses."""
    for a in one.subnets:
        for b in other.subnets:
            if a.family == b.family and a.network.overlaps(b.network):
                return a.cidr, b.cidr
    return None


def _outside(span: Span, kept: list[Span]) -> Iterator[int]:
    """The numbers of a span that are in none of the sorted others."""
    number = span.first
    for other in kept:
        while number < other.first and number <= span.last:
            yield number
            number += 1
        number = max(number, other.last + 1)
    while number <= span.last:
        yield number
        number += 1


def _why(item: Reservation) -> str:
    whose = f" for node {item.node}" if item.node else ""
    return f"it is reserved{whose}" + (f": {item.reason}" if item.reason else "")


def _discovery(network: Network, first: Subnet, place: str) -> dict[str, str]:
    if (network.discovery_start is None) != (network.discovery_end is None):
        raise InvalidValue(f"discovery_start and discovery_end must be given together {place}")
    found = {
        key: subnets.address_in(value, first.network, key, place)
        for key in ("discovery_start", "discovery_end")
        if (value := getattr(network, key)) is not None
    }
    if found and int(ipaddress.ip_address(found["discovery_start"])) > int(
        ipaddress.ip_address(found["discovery_end"])
    ):
        raise InvalidValue(f"discovery_start must not be after discovery_end, got {network.discovery_start} {place}")
    return found


def _reserved(network: Network, known: tuple[Subnet, ...], place: str) -> tuple[Reservation, ...]:
    """In order, each once; an address is kept for one node at most."""
    items = list(dict.fromkeys(subnets.validated_reservation(item, known, place) for item in network.reserved))
    items.sort(key=lambda item: (item.family, item.numbers))
    for number, other in enumerate(items):
        for one in items[:number]:
            same = one.family == other.family and one.numbers.last >= other.numbers.first
            if same and one.node != other.node:
                raise InvalidValue(f"reservations may not overlap, got {one.span} and {other.span} {place}")
    return tuple(items)


def _reject_overlapping(known: tuple[Subnet, ...], place: str) -> None:
    for number, one in enumerate(known):
        for other in known[:number]:
            if one.family == other.family and one.network.overlaps(other.network):
                raise InvalidValue(f"subnets may not overlap, got {other.cidr} and {one.cidr} {place}")


def _server(text: str, key: str, place: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidValue(f"{key} must be IP addresses, got {shown(text)} {place}") from None
