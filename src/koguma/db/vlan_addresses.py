"""Gives nodes the addresses of their flavors' VLANs, and takes back those they no longer need.

What a node should have follows from its flavor alone, so `settle` may be called whenever something changed:

1. An address of a network that the flavor no longer has is taken back. Where an operating system may be running that
   still uses it, it is only marked: nobody else gets it before the node has booted without it (`forget_released`), and
   the node gets it back when the flavor has the network again.
2. A node without an address of a network its flavor has gets the lowest that is free.

Whoever settles takes a turn first, before it locks any row: two at once could each hold what the other waits for.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from koguma.db.errors import NoFreeAddress
from koguma.db.models import AddressRow, NetworkRow, NodeRow
from koguma.db.rows import network_of
from koguma.model.states import ProvisionState

SNAPSHOT_DELAY = timedelta(minutes=1)
"""A boot that began so soon after an address was taken back may still have been told it by a boot service."""

_TURN = 0x4B6F6702
_IDLE = frozenset(
    state.value
    for state in (
        ProvisionState.ENROLL,
        ProvisionState.VERIFYING,
        ProvisionState.MANAGEABLE,
        ProvisionState.AVAILABLE,
    )
)
"""Where no operating system of ours runs."""


def take_turn() -> None:
    """Until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])


def settle(nodes: QuerySet[NodeRow]) -> None:
    """Call it in the transaction of the change, after `take_turn`. Raises NoFreeAddress."""
    wanted = _wanted(nodes)
    held = {
        (row.node_id, row.network.name): row
        for row in AddressRow.objects.filter(node__in=nodes).select_related("network", "node")
    }
    _take_back(row for key, row in held.items() if key not in wanted)
    again = [row.pk for key, row in held.items() if key in wanted and row.released_at]
    AddressRow.objects.filter(pk__in=again).update(released_at=None)
    missing: dict[str, list[int]] = {}
    for node_id, name in sorted(wanted - held.keys()):
        missing.setdefault(name, []).append(node_id)
    for network in NetworkRow.objects.filter(name__in=missing).order_by("id"):
        _give(network, missing[network.name])


def forget_released(node: NodeRow, booted_at: datetime) -> None:
    """The node runs from a boot that began at this time: what was taken back before, it does not have."""
    AddressRow.objects.filter(node=node, released_at__lt=booted_at - SNAPSHOT_DELAY).delete()


def _wanted(nodes: QuerySet[NodeRow]) -> set[tuple[int, str]]:
    columns = nodes.exclude(flavor=None).values_list("pk", "flavor__vlans")
    return {(node_id, item["network"]) for node_id, vlans in columns for item in vlans}


def _take_back(rows: Iterable[AddressRow]) -> None:
    idle, used = [], []
    for row in rows:
        if row.node is not None and row.node.provision_state in _IDLE:
            idle.append(row.pk)
        elif row.released_at is None:
            used.append(row.pk)
    AddressRow.objects.filter(pk__in=idle).delete()
    AddressRow.objects.filter(pk__in=used).update(released_at=timezone.now())


def _give(network: NetworkRow, nodes: list[int]) -> None:
    """The lowest free addresses, in the order of the nodes. One that a port got at this moment is passed over."""
    rules = network_of(network)
    while nodes:
        taken = set(AddressRow.objects.filter(network=network).values_list("address", flat=True))
        free = list(islice((address for address in rules.addresses() if address not in taken), len(nodes)))
        if len(free) < len(nodes):
            raise NoFreeAddress(
                f"a network needs a free address for each node, {len(nodes)} more need one and {len(free)} of"
                f" {rules.subnet} are free (network {network.name})"
            )
        AddressRow.objects.bulk_create(
            (
                AddressRow(network=network, address=address, node_id=node)
                for address, node in zip(free, nodes, strict=True)
            ),
            batch_size=1000,
            ignore_conflicts=True,
        )
        have = set(AddressRow.objects.filter(network=network, node__isnull=False).values_list("node_id", flat=True))
        nodes = [node for node in nodes if node not in have]
