"""Finds, locks and reads the rows that make a node: its own, its flavor's, its pulse's and work's, its ports' with
their addresses, and its addresses on VLANs.
"""

from __future__ import annotations

import uuid as _uuid
from collections.abc import Iterable
from typing import Any

from django.db.models import Model, Prefetch, QuerySet

from koguma.db.errors import NotFound, Stale
from koguma.db.models import AddressRow, NodeRow, PortRow, WorkRow
from koguma.db.prepared import Prepared
from koguma.model import names


def with_all(nodes: QuerySet[NodeRow]) -> QuerySet[NodeRow]:
    """Everything `node_of` reads, in three queries for any number of nodes."""
    return nodes.select_related("flavor", "pulse").prefetch_related(
        Prefetch("ports", queryset=_ports()), Prefetch("vlan_addresses", queryset=_vlan_addresses())
    )


def whole(pk: int) -> NodeRow:
    """One node with all of that and with its work: as `with_all`, at a fraction of its cost. Raises NotFound."""
    row = _NODE.first(pk)
    if row is None:
        raise NotFound("the node was forgotten")
    row._prefetched_objects_cache = {  # type: ignore[attr-defined]  # as `prefetch_related` leaves it
        "ports": _fetched(PortRow, _PORTS_OF.all(pk)),
        "vlan_addresses": _fetched(AddressRow, _VLAN_ADDRESSES_OF.all(pk)),
    }
    return row


def locked(reference: str, version: int | None = None) -> NodeRow:
    """The whole node called so, by UUID or name, which nobody else changes until the transaction ends. Raises NotFound,
    and Stale when `version` is not the node's.
    """
    held = _locked(reference)
    if held is None:
        raise NotFound(f"a node must exist with this name or UUID, got {names.shown(reference)}")
    row = whole(held.pk)
    if version is not None and version != row.version:
        raise Stale(f"the node has changed since version {version}, it has {row.version} (node {row.name})")
    return row


def work_locked(pk: int) -> WorkRow:
    """The node's work, to be changed in this transaction; after the node itself, as everybody who locks both does."""
    row = _WORK.first(pk)
    if row is None:
        raise NotFound("the node was forgotten")
    return row


def _locked(reference: str) -> NodeRow | None:
    """By UUID first: a node may be called as another's UUID."""
    try:
        found = _LOCKED_BY_UUID.first(_uuid.UUID(reference))
    except ValueError:
        found = None
    return found or _LOCKED_BY_NAME.first(reference)


def _fetched(model: type[Model], rows: Iterable[Any]) -> QuerySet[Any]:
    queryset = model._default_manager.all()
    queryset._result_cache = list(rows)
    return queryset


def _ports() -> QuerySet[PortRow]:
    return PortRow.objects.select_related("address__network").order_by("-boot", "name", "id")


def _vlan_addresses() -> QuerySet[AddressRow]:
    return AddressRow.objects.filter(released_at=None).select_related("network").order_by("id")


def _to_lock(**key: Any) -> QuerySet[NodeRow]:
    return NodeRow.objects.filter(**key).only("id").select_for_update(no_key=True)


_NODE = Prepared(lambda: NodeRow.objects.filter(pk=0).select_related("flavor", "pulse", "work"))
_PORTS_OF = Prepared(lambda: _ports().filter(node_id=0))
_VLAN_ADDRESSES_OF = Prepared(lambda: _vlan_addresses().filter(node_id=0))
_LOCKED_BY_UUID = Prepared(lambda: _to_lock(uuid=_uuid.UUID(int=0)))
_LOCKED_BY_NAME = Prepared(lambda: _to_lock(name=""))
_WORK = Prepared(lambda: WorkRow.objects.filter(pk=0).select_for_update(no_key=True))
