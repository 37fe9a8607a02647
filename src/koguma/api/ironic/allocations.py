"""Allocations: wishes for a node. The API writes them down; a worker finds the node (`koguma.db.allocations`)."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from koguma.api.ironic import checks
from koguma.api.ironic.checks import listing, text
from koguma.api.ironic.fields import Field
from koguma.api.ironic.http import NO_CONTENT, Refused, Request, Response, bad, conflict, missing
from koguma.api.ironic.plain import HEAD, of_node
from koguma.api.ironic.policy import Owners, system_member
from koguma.api.ironic.resource import Resource
from koguma.db import allocations
from koguma.db.documents import Row
from koguma.db.models import AllocationRow, NodeRow
from koguma.model.states import ProvisionState as S

_IN_USE = frozenset({S.ACTIVE, S.DEPLOYING, S.WAIT_CALL_BACK, S.DEPLOY_HOLD, S.RESCUE, S.RESCUING, S.SERVICING})


def _store(values: Row, row: Row | None, request: Request) -> Row:
    if row is not None:
        return values
    columns = dict(values)
    _owned(columns, request)
    node = _backfilled(columns.pop("node", None), request)
    if node is not None:
        columns["node_id"], columns["state"] = node["pk"], "active"
        columns["resource_class"] = columns.get("resource_class") or node["resource_class"]
        if node["instance_uuid"]:
            columns.setdefault("uuid", str(node["instance_uuid"]))
    elif not columns.get("resource_class"):
        bad("The resource_class field is mandatory when not backfilling")
    columns["candidate_nodes"] = [_candidate(name) for name in columns.get("candidate_nodes") or []]
    return columns


def _owned(columns: Row, request: Request) -> None:
    """An allocation is its maker's project's; only who manages the whole system makes one for others."""
    who = request.identity
    if who.unrestricted or system_member(who, Owners()):
        return
    if columns.setdefault("owner", who.project) != who.project:
        raise Refused(403, "Cannot create allocation with an owner Project ID value")


def _candidate(reference: Any) -> str:
    column = "uuid" if checks.is_uuid(reference) else "name"
    uuid = NodeRow.objects.filter(**{column: str(reference)}).values_list("uuid", flat=True).first()
    if uuid is None:
        raise Refused(400, f"Node {str(reference)[:80]} could not be found.")
    return str(uuid)


def _backfilled(reference: str | None, request: Request) -> Row | None:
    """The node of an allocation for what is in use already."""
    if reference is None:
        return None
    if request.minor < 58:
        bad("Cannot set node when creating an allocation in this API version")
    uuid = _candidate(reference)
    columns = ("pk", "uuid", "resource_class", "instance_uuid", "provision_state", "allocation__id")
    node = NodeRow.objects.select_for_update(of=("self",)).filter(uuid=uuid).values(*columns).get()
    if node["provision_state"] != S.ACTIVE:
        bad(f"An allocation can be made for an active node, node {uuid} is {node['provision_state']!r}")
    if node["allocation__id"]:
        conflict(f"Node {uuid} has an allocation already.")
    return dict(node)


def _guard(row: Row, verb: str) -> None:
    if verb == "delete" and row["node__provision_state"] in _IN_USE and not row["node__maintenance"]:
        conflict(
            f"Allocation {row['uuid']} can not be deleted while its node is {row['node__provision_state']!r}:"
            " undeploy it first."
        )


def _by_state(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(state=value)


ALLOCATIONS = Resource(
    title="Allocation",
    path="allocations",
    key="allocations",
    model=AllocationRow,
    since=52,
    patch_since=57,
    declared=(
        *HEAD,
        Field("candidate_nodes", listing, patches=False, sorts=False),
        Field("last_error"),
        Field("name", checks.logical_name),
        Field("node_uuid", column="node__uuid", sorts=False),
        Field("owner", text(), since=60, patches=False),
        Field("resource_class", text(80), patches=False),
        Field("state"),
        Field("traits", checks.traits, patches=False, sorts=False),
    ),
    brief=(
        "uuid", "candidate_nodes", "created_at", "extra", "last_error", "name", "node_uuid", "owner",
        "resource_class", "state", "traits", "updated_at",
    ),
    name="name",
    filters={
        "node": of_node,
        "resource_class": lambda rows, value: rows.filter(resource_class=value),
        "state": _by_state,
        "owner": lambda rows, value: rows.filter(owner=value),
    },
    store=_store,
    guard=_guard,
    guard_columns=("node_id", "node__provision_state", "node__maintenance"),
    aliases={"node": 58},
)  # fmt: skip


def create(request: Request) -> Response:
    with transaction.atomic():
        response = ALLOCATIONS.created(request)
        uuid = response.document["uuid"]
        if response.document["state"] == "active":
            allocations.take(uuid)
        else:
            transaction.on_commit(lambda: allocations.tell_workers(uuid), robust=True)
    return response


def delete(request: Request, reference: str) -> Response:
    """The node is free for others then."""
    with transaction.atomic():
        row = ALLOCATIONS.find(reference)
        response = ALLOCATIONS.deleted(request, str(row["uuid"]))
        allocations.release(str(row["uuid"]))
    return response


def of_a_node(request: Request, reference: str) -> Row:
    """The allocation of the node. Raises Refused."""
    request.at_least(52)
    row = of_node(AllocationRow.objects.all(), reference).values("id", "uuid").first()
    if row is None:
        missing(f"Allocation for node {reference[:80]} was not found")
    return dict(row)


def show_of_node(request: Request, reference: str) -> Response:
    request.only("fields")
    return ALLOCATIONS.shown(request, str(of_a_node(request, reference)["uuid"]))


def delete_of_node(request: Request, reference: str) -> Response:
    delete(request, str(of_a_node(request, reference)["uuid"]))
    return NO_CONTENT
