"""The IP address manager: gives addresses of networks to ports (`vlan_addresses`: to nodes' VLANs).

1. Among the addresses of the network that ports may have, take the lowest that nobody has.
2. Insert it. The unique constraint decides between two that took the same one at the same time: the second finds no
   row inserted and takes the next.

A port has one address. Networks are served in the order of their ids, so two nodes never wait for each other.
"""

from __future__ import annotations

from django.db import connection

from koguma.db.errors import AlreadyExists, NoFreeAddress, NoNetwork
from koguma.db.models import AddressRow, NetworkRow, NodeRow, PortRow
from koguma.db.rows import network_of
from koguma.model.errors import InvalidValue
from koguma.model.network import Network, Purpose


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
    """The lowest free address of the network. Raises NoFreeAddress."""
    rules = network_of(network)
    taken = set(AddressRow.objects.filter(network=network).values_list("address", flat=True))
    for address in rules.addresses():
        if address not in taken and _insert(network, port, address):
            return AddressRow.objects.get(port=port)
    raise NoFreeAddress(
        f"a network needs a free address for each port, all of {rules.subnet} are given (network {network.name})"
    )


def allocate_exactly(network: NetworkRow, port: PortRow, address: str) -> AddressRow:
    """This address for this port. Raises InvalidValue or AlreadyExists."""
    if reason := network_of(network).reason_not_for_ports(address):
        raise InvalidValue(f"a port may not have {address}: {reason} (network {network.name})")
    if not _insert(network, port, address):
        raise AlreadyExists(f"an address belongs to one port, {address} is given already (network {network.name})")
    return AddressRow.objects.get(port=port)


def reject_conflicts(network: Network, row: NetworkRow) -> None:
    """Refuse a change of a network that addresses already given would break. Raises InvalidValue."""
    for address in AddressRow.objects.filter(network=row).values_list("address", flat=True):
        if reason := network.reason_not_for_ports(address):
            raise InvalidValue(f"{address} is given, and then {reason} (network {network.name})")


def _provisioning_network(remote_address: str | None) -> NetworkRow:
    rows = list(NetworkRow.objects.filter(purpose=Purpose.PROVISIONING.value).order_by("id"))
    if not rows:
        raise NoNetwork("a node gets its address from a provisioning network, none is defined (koguma network create)")
    return next((row for row in rows if remote_address and network_of(row).holds(remote_address)), rows[0])


def _insert(network: NetworkRow, port: PortRow, address: str) -> bool:
    """False when another port has the address, also when it was given in a transaction that committed this moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO koguma_address (network_id, address, port_id) VALUES (%s, %s, %s)"
            " ON CONFLICT (network_id, address) DO NOTHING",
            [network.pk, address, port.pk],
        )
        return bool(cursor.rowcount == 1)
