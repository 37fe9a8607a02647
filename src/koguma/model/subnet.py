"""Subnet, and Reservation of a part of one: which addresses a network has, and which of them nobody may simply take.

Values only, no I/O. Addresses are text in normal form; `validated` makes them so. A span is one address, or
`first-last`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from koguma.model.errors import InvalidValue
from koguma.model.names import machine_uuid, shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

REASON_MAX = 200


class Span(NamedTuple):
    """Neighbouring addresses, as numbers, both ends included."""

    first: int
    last: int

    def holds(self, number: int) -> bool:
        return self.first <= number <= self.last


@dataclass(frozen=True)
class Reservation:
    """Addresses that are kept: for one node (by UUID), which gets them before any other, or from everybody."""

    span: str
    reason: str = ""
    node: str | None = None

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.span.partition("-")[0]).version

    @property
    def numbers(self) -> Span:
        first, _, last = self.span.partition("-")
        return Span(int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last or first)))


@dataclass(frozen=True)
class Subnet:
    """`ranges` are the spans that addresses are given from; none: from all of it."""

    cidr: str
    gateway: str | None = None
    ranges: tuple[str, ...] = ()

    @property
    def network(self) -> IpNetwork:
        return _parsed(self.cidr)

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.network.version

    @property
    def prefix(self) -> int:
        return self.network.prefixlen

    def holds(self, address: str) -> bool:
        try:
            return ipaddress.ip_address(address) in self.network
        except ValueError:
            return False

    def text(self, number: int) -> str:
        """The address of a number of this subnet's family."""
        return str(ipaddress.IPv4Address(number) if self.family == 4 else ipaddress.IPv6Address(number))

    @property
    def given_from(self) -> list[Span]:
        if self.ranges:
            return sorted(Reservation(text).numbers for text in self.ranges)
        return [Span(int(self.network.network_address), int(self.network.broadcast_address))]

    def own_addresses(self) -> Iterator[tuple[Span, str]]:
        """Those the subnet keeps for itself, each with the reason."""
        first, last = int(self.network.network_address), int(self.network.broadcast_address)
        if self.family == 4 and self.prefix < 31:
            yield Span(first, first), "it is the subnet's own address"
            yield Span(last, last), "it is the broadcast address"
        if self.family == 6 and self.prefix < 127:
            yield Span(first, first), "it is every router's address"
        if self.gateway:
            number = int(ipaddress.ip_address(self.gateway))
            yield Span(number, number), "it is the gateway"


@lru_cache(maxsize=4096)
def _parsed(cidr: str) -> IpNetwork:
    """Rendering a fleet asks for the same few networks many thousand times."""
    return ipaddress.ip_network(cidr)


def validated(subnet: Subnet, key: str, place: str) -> Subnet:
    """Raises InvalidValue."""
    network = ip_network(subnet.cidr, key, place)
    gateway = address_in(subnet.gateway, network, "gateway", place) if subnet.gateway is not None else None
    return Subnet(str(network), gateway, tuple(span_in(text, (network,), "ranges", place) for text in subnet.ranges))


def validated_reservation(reservation: Reservation, subnets: tuple[Subnet, ...], place: str) -> Reservation:
    """Raises InvalidValue."""
    span = span_in(reservation.span, tuple(subnet.network for subnet in subnets), "reserved", place)
    if len(reservation.reason) > REASON_MAX or not reservation.reason.isprintable():
        raise InvalidValue(
            f"a reservation's reason must be one line of at most {REASON_MAX} characters, got"
            f" {shown(reservation.reason)} {place}"
        )
    return Reservation(span, reservation.reason, machine_uuid(reservation.node) if reservation.node else None)


def ip_network(text: str, key: str, place: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidValue(
            f"{key} must be a network like 10.77.0.0/24 or fd4b:6f67:1::/64 ({error}), got {shown(text)} {place}"
        ) from None


def address_in(text: str, network: IpNetwork, key: str, place: str) -> str:
    address = _address(text, key, place)
    if address not in network:
        raise InvalidValue(f"{key} must be inside the subnet {network}, got {address} {place}")
    return str(address)


def span_in(text: str, networks: tuple[IpNetwork, ...], key: str, place: str) -> str:
    """A span in normal form, both ends in one of the networks."""
    first_text, dash, last_text = text.partition("-")
    first = _address(first_text.strip(), key, place)
    last = _address(last_text.strip(), key, place) if dash else first
    if not any(first in network and last in network for network in networks):
        known = ", ".join(str(network) for network in networks)
        raise InvalidValue(f"{key} must be inside the subnet {known}, got {shown(text)} {place}")
    if int(first) > int(last):
        raise InvalidValue(f"a range must start before it ends, got {shown(text)} ({key}) {place}")
    return f"{first}-{last}" if dash else str(first)


def _address(text: str, key: str, place: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidValue(f"{key} must be an IP address, got {shown(text)} {place}") from None
