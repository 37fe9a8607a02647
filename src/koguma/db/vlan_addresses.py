"""Gives nodes the addresses of the networks they are to be in beside the one they boot from, and takes back those
they no longer need. What a node should have follows from its flavor (VLANs, and the networks it is handed over to) and
from the networks attached to the node, so `settle` may be called whenever something changed:

1. An address of a network that the node no longer has is taken back. Where an operating system may be running that
   still uses it, it is only marked: nobody else gets it before the node has booted without it (`forget_released`), and
   the node gets it back when it has the network again.
2. A node without an address of a family that a network of its has gets the first that is free.

Whoever settles takes a turn first (`addresses.take_turn`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from koguma.db.addresses import take_turn
from koguma.db.errors import NoFreeAddress
from koguma.db.models import AddressRow, NetworkRow, NodeRow
from koguma.db.rows import network_of
from koguma.model.hardware import SWITCHED, effective_interface
from koguma.model.network import Network
from koguma.model.states import ProvisionState

__all__ = ["SNAPSHOT_DELAY", "forget_released", "settle", "take_turn"]

SNAPSHOT_DELAY = timedelta(minutes=1)
"""A boot that began so soon after an address was taken back may still have been told it by a boot service."""

_IDLE = frozenset(
    state.value
    for state in (
        ProvisionState.ENROLL,
        ProvisionState.VERIFYING,
        ProvisionState.MANAGEABLE,
        ProvisionState.AVAILABLE,
        ProvisionState.CLEANING,
    )
)
"""Where no operating system of ours runs any more when addresses are settled."""

_Key = tuple[int, str, int]
"""A node's row, a network's name and a family."""


def settle(nodes: QuerySet[NodeRow]) -> None:
    """Call it in the transaction of the change, after `take_turn`. Raises NoFreeAddress."""
    networks = {row.name: row for row in NetworkRow.objects.all()}
    rules = {name: network_of(row) for name, row in networks.items()}
    wanted = _wanted(nodes, rules)
    held = {
        (row.node_id, row.network.name, row.family): row
        for row in AddressRow.objects.filter(node__in=nodes).select_related("network", "node")
    }
    _take_back(row for key, row in held.items() if key not in wanted)
    again = [row.pk for key, row in held.items() if key in wanted and row.released_at]
    AddressRow.objects.filter(pk__in=again).update(released_at=None)
    missing: dict[tuple[str, int], list[int]] = {}
    for node_id, name, family in sorted(wanted - held.keys()):
        missing.setdefault((name, family), []).append(node_id)
    for name, family in sorted(missing, key=lambda key: (networks[key[0]].pk, key[1])):
        _give(networks[name], rules[name], family, missing[name, family])


def forget_released(node: NodeRow, booted_at: datetime) -> None:
    """The node runs from a boot that began at this time: what was taken back before, it does not have."""
    AddressRow.objects.filter(node=node, released_at__lt=booted_at - SNAPSHOT_DELAY).delete()


def _wanted(nodes: QuerySet[NodeRow], rules: dict[str, Network]) -> set[_Key]:
    columns = nodes.values_list("pk", "flavor__vlans", "flavor__networks", "vifs", "bmc_driver", "interfaces")
    wanted = set()
    for node_id, vlans, networks, vifs, driver, interfaces in columns:
        names = {item["network"] for item in vlans or ()}
        if effective_interface(driver, "network", interfaces) == SWITCHED:
            names |= {item["id"] for item in vifs} or {item["network"] for item in networks or ()}
        wanted |= {(node_id, name, family) for name in names & rules.keys() for family in rules[name].families}
    return wanted


def _take_back(rows: Iterable[AddressRow]) -> None:
    idle, used = [], []
    for row in rows:
        if row.node is not None and row.node.provision_state in _IDLE:
            idle.append(row.pk)
        elif row.released_at is None:
            used.append(row.pk)
    AddressRow.objects.filter(pk__in=idle).delete()
    AddressRow.objects.filter(pk__in=used).update(released_at=timezone.now())


def _give(network: NetworkRow, rules: Network, family: int, nodes: list[int]) -> None:
    """The first free addresses, in the order of the nodes; what is reserved for a node is its own. One that a port got
    at this moment is passed over.
    """
    uuids = {pk: str(uuid) for pk, uuid in NodeRow.objects.filter(pk__in=nodes).values_list("pk", "uuid")}
    reserving = {item.node for item in rules.reserved if item.node and item.family == family}
    while nodes:
        taken = set(AddressRow.objects.filter(network=network).values_list("address", flat=True))
        free = (address for address in rules.addresses(family) if address not in taken)
        chosen: dict[int, str] = {}
        for node in nodes:
            own = rules.addresses(family, uuids[node]) if uuids[node] in reserving else ()
            address = next((item for item in own if item not in taken), None) or next(free, None)
            if address is not None:
                taken.add(address)
                chosen[node] = address
        if len(chosen) < len(nodes):
            subnets = ", ".join(subnet.cidr for subnet in rules.subnets if subnet.family == family)
            raise NoFreeAddress(
                f"a network needs a free address for each node, {len(nodes)} more need one and {len(chosen)} of"
                f" {subnets} are free (network {network.name})"
            )
        AddressRow.objects.bulk_create(
            (
                AddressRow(network=network, address=address, family=family, node_id=node)
                for node, address in chosen.items()
            ),
            batch_size=1000,
            ignore_conflicts=True,
        )
        of_nodes = AddressRow.objects.filter(network=network, family=family, node__isnull=False)
        have = set(of_nodes.values_list("node_id", flat=True))
        nodes = [node for node in nodes if node not in have]
