"""Network: a VLAN with its IPv4 subnet and a purpose, and which of its addresses may be given to ports. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from koguma.model.errors import InvalidValue
from koguma.model.names import noun_name, shown


class Purpose(StrEnum):
    """What a network is for."""

    PROVISIONING = "provisioning"  # machines boot from it
    TENANT = "tenant"  # a tenant's own
    BMC = "bmc"  # management controllers
    STORAGE = "storage"  # volumes and exports


@dataclass(frozen=True)
class Network:
    """Addresses are text in normal form; `validated` makes them so. `reserved` holds single addresses and `first-last`
    ranges.
    """

    name: str
    purpose: Purpose
    vlan: int
    subnet: str
    gateway: str | None = None
    discovery_start: str | None = None
    discovery_end: str | None = None
    reserved: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    ntp_servers: tuple[str, ...] = ()
    domain: str = ""
    mtu: int = 1500
    version: int = 1

    def holds(self, address: str) -> bool:
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(self.subnet)
        except ValueError:
            return False

    @property
    def prefix(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen

    def reason_not_for_ports(self, address: str) -> str | None:
        """Why a port may not have this address, or None when it may."""
        subnet = ipaddress.IPv4Network(self.subnet)
        number = int(ipaddress.IPv4Address(address))
        if ipaddress.IPv4Address(number) not in subnet:
            return f"it is outside the subnet {subnet}"
        for first, last, reason in self._taken_ranges():
            if first <= number <= last:
                return reason
        return None

    def addresses(self) -> Iterator[str]:
        """The addresses ports may have, lowest first: without network, broadcast, gateway, discovery range and
        reserved ones.
        """
        subnet = ipaddress.IPv4Network(self.subnet)
        number, end = int(subnet.network_address), int(subnet.broadcast_address)
        for first, last, _ in sorted(self._taken_ranges()):
            while number < first:
                yield str(ipaddress.IPv4Address(number))
                number += 1
            number = max(number, last + 1)
        while number <= end:
            yield str(ipaddress.IPv4Address(number))
            number += 1

    def _taken_ranges(self) -> list[tuple[int, int, str]]:
        subnet = ipaddress.IPv4Network(self.subnet)
        taken = []
        if subnet.prefixlen < 31:
            taken.append((int(subnet.network_address), int(subnet.network_address), "it is the subnet's own address"))
            taken.append((int(subnet.broadcast_address), int(subnet.broadcast_address), "it is the broadcast address"))
        if self.gateway:
            number = int(ipaddress.IPv4Address(self.gateway))
            taken.append((number, number, "it is the gateway"))
        if self.discovery_start and self.discovery_end:
            first, last = (int(ipaddress.IPv4Address(text)) for text in (self.discovery_start, self.discovery_end))
            taken.append((first, last, "it is in the discovery range"))
        for item in (*self.reserved, *self.dns_servers):
            first_text, _, last_text = item.partition("-")
            first, last = int(ipaddress.IPv4Address(first_text)), int(ipaddress.IPv4Address(last_text or first_text))
            taken.append((first, last, "it is reserved"))
        return taken


def validated(network: Network) -> Network:
    """The network in normal form. Raises InvalidValue that names the key, the rule and the value."""
    place = f"(network {network.name})"
    noun_name(network.name, "network name")
    subnet = _subnet(network.subnet, place)
    if not 0 <= network.vlan <= 4094:
        raise InvalidValue(f"vlan must be 0 (untagged) to 4094, got {network.vlan} {place}")
    if not 576 <= network.mtu <= 9216:
        raise InvalidValue(f"mtu must be 576 to 9216, got {network.mtu} {place}")
    if (network.discovery_start is None) != (network.discovery_end is None):
        raise InvalidValue(f"discovery_start and discovery_end must be given together {place}")
    single = {
        key: _address(value, subnet, key, place)
        for key in ("gateway", "discovery_start", "discovery_end")
        if (value := getattr(network, key)) is not None
    }
    if network.discovery_start and int(ipaddress.IPv4Address(single["discovery_start"])) > int(
        ipaddress.IPv4Address(single["discovery_end"])
    ):
        raise InvalidValue(f"discovery_start must not be after discovery_end, got {network.discovery_start} {place}")
    values: dict[str, Any] = {**vars(network), **single, "subnet": str(subnet)}
    values["reserved"] = tuple(_reserved(item, subnet, place) for item in network.reserved)
    for key in ("dns_servers", "ntp_servers"):
        values[key] = tuple(_server(item, key, place) for item in getattr(network, key))
    return Network(**values)


def _subnet(text: str, place: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidValue(
            f"subnet must be an IPv4 network like 10.77.0.0/24 ({error}), got {shown(text)} {place}"
        ) from None


def _address(text: str, subnet: ipaddress.IPv4Network, key: str, place: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise InvalidValue(f"{key} must be an IPv4 address, got {shown(text)} {place}") from None
    if address not in subnet:
        raise InvalidValue(f"{key} must be inside the subnet {subnet}, got {address} {place}")
    return str(address)


def _reserved(text: str, subnet: ipaddress.IPv4Network, place: str) -> str:
    first, dash, last = text.partition("-")
    normal = [_address(part.strip(), subnet, "reserved", place) for part in ([first, last] if dash else [first])]
    if dash and int(ipaddress.IPv4Address(normal[0])) > int(ipaddress.IPv4Address(normal[1])):
        raise InvalidValue(f"a reserved range must start before it ends, got {shown(text)} {place}")
    return "-".join(normal)


def _server(text: str, key: str, place: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise InvalidValue(f"{key} must be IPv4 addresses, got {shown(text)} {place}") from None


def overlap(one: Network, other: Network) -> bool:
    return ipaddress.IPv4Network(one.subnet).overlaps(ipaddress.IPv4Network(other.subnet))
