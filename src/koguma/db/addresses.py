"""The IP address manager: gives addresses of networks to ports (`vlan_addresses`: to nodes), and tells who has which.

1. Among the addresses of the network that the node may have, take the first that nobody has: those reserved for it
   come first, then the lowest.
2. Insert it. The unique constraint decides between two that took the same one at the same time: the second finds no
   row inserted and takes the next.

Whoever gives an address or reserves one takes a turn (`take_turn`), so that none is given while it is being reserved.
A port has one address. Networks are served in the order of their ids, so two nodes never wait for each other.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from django.db import connection, transaction

from koguma.db.errors import AlreadyExists, NoFreeAddress, NoNetwork
from koguma.db.models import AddressRow, NetworkRow, NodeRow, PortRow
from koguma.db.rows import network_of
from koguma.model.errors import InvalidValue
from koguma.model.network import Network, Purpose
from koguma.model.subnet import Reservation

_TURN = 0x4B6F6702


@dataclass(frozen=True)
class Given:
    """An address, who has it, and since when it is only kept for what may still run there (`released`)."""

    address: str
    node: str
    port: str | None
    released: bool


def take_turn() -> None:
    """Until the transaction ends. Take it before any row is locked: two at once could each hold what the other waits
    for.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])


def ensure_boot_address(node: NodeRow, remote_address: str | None = None) -> AddressRow:
    """Give the boot port an address of the provisioning network the machine asked from (else the first one), unless it
    has one.

    Raises NoNetwork or NoFreeAddress.
    """
    port = node.ports.order_by("-boot", "name", "id").first()
    if port is None:
        raise NoNetwork(f"a node needs a port to get an address, it has none (node {node.name})")
    if given := AddressRow.objects.filter(port=port).first():
        return given
    return allocate(_provisioning_network(remote_address), port)


def allocate(network: NetworkRow, port: PortRow) -> AddressRow:
    """The first free IPv4 address of the network that the port may have. Raises NoFreeAddress."""
    with transaction.atomic():
        take_turn()
        rules = network_of(NetworkRow.objects.get(pk=network.pk))
        taken = set(AddressRow.objects.filter(network=network).values_list("address", flat=True))
        for address in rules.addresses(4, str(port.node.uuid)):
            if address not in taken and _insert(network, port, address):
                return AddressRow.objects.get(port=port)
    raise NoFreeAddress(
        f"a network needs a free address for each port, all of {rules.subnet} are given (network {network.name})"
    )


def allocate_exactly(network: NetworkRow, port: PortRow, address: str) -> AddressRow:
    """This address for this port. Raises InvalidValue or AlreadyExists."""
    with transaction.atomic():
        take_turn()
        rules = network_of(NetworkRow.objects.get(pk=network.pk))
        address = str(ipaddress.ip_address(address))
        if reason := rules.reason_not_for_ports(address, str(port.node.uuid)):
            raise InvalidValue(f"a port may not have {address}: {reason} (network {network.name})")
        if not _insert(network, port, address):
            raise AlreadyExists(f"an address belongs to one port, {address} is given already (network {network.name})")
        return AddressRow.objects.get(port=port)


def given(network: str) -> list[Given]:
    """The network's addresses that somebody has, lowest first."""
    rows = AddressRow.objects.filter(network__name=network).select_related("port__node", "node")
    found = [
        Given(
            row.address,
            row.port.node.name if row.port else row.node.name if row.node else "",
            row.port.mac if row.port else None,
            row.released_at is not None,
        )
        for row in rows
    ]
    return sorted(found, key=lambda item: (":" in item.address, int(ipaddress.ip_address(item.address))))


def reject_conflicts(network: Network, row: NetworkRow) -> None:
    """Refuse a change of a network that addresses already given would break. Raises InvalidValue."""
    for address, node in _owners(row):
        if reason := network.reason_not_for_ports(address, node):
            raise InvalidValue(f"{address} is given, and then {reason} (network {network.name})")


def reject_taken(reservation: Reservation, row: NetworkRow) -> None:
    """Refuse to reserve what somebody else has. Raises AlreadyExists."""
    for address, node in _owners(row):
        number = ipaddress.ip_address(address)
        same = number.version == reservation.family and reservation.numbers.holds(int(number))
        if same and node != reservation.node:
            raise AlreadyExists(
                f"an address that is given cannot be reserved, {address} is node {node}'s (network {row.name})"
            )


def _owners(network: NetworkRow) -> list[tuple[str, str]]:
    """Each address that is given, and the UUID of the node that has it."""
    columns = AddressRow.objects.filter(network=network).values_list("address", "port__node__uuid", "node__uuid")
    return [(address, str(by_port or by_node)) for address, by_port, by_node in columns]


def _provisioning_network(remote_address: str | None) -> NetworkRow:
    rows = list(NetworkRow.objects.filter(purpose=Purpose.PROVISIONING.value).order_by("id"))
    if not rows:
        raise NoNetwork("a node gets its address from a provisioning network, none is defined (koguma network create)")
    return next((row for row in rows if remote_address and network_of(row).holds(remote_address)), rows[0])


def _insert(network: NetworkRow, port: PortRow, address: str) -> bool:
    """False when another port has the address, also when it was given in a transaction that committed this moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO koguma_address (network_id, address, family, port_id) VALUES (%s, %s, 4, %s)"
            " ON CONFLICT (network_id, address) DO NOTHING",
            [network.pk, address, port.pk],
        )
        return bool(cursor.rowcount == 1)
