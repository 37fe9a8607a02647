"""Ports: the same NICs that registrations bring, under Ironic's names."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from koguma.api.ironic import checks
from koguma.api.ironic.checks import boolean, default_true, mapping, text
from koguma.api.ironic.fields import Field
from koguma.api.ironic.http import Refused, Request, Response, bad, conflict
from koguma.api.ironic.plain import node_key, of_node, with_node
from koguma.api.ironic.resource import Resource
from koguma.db.documents import Row
from koguma.db.models import PortgroupRow, PortRow
from koguma.model.states import ProvisionState as S

_UNUSED = frozenset({S.ENROLL, S.VERIFYING, S.MANAGEABLE, S.AVAILABLE, S.INSPECT_FAILED, S.CLEAN_FAILED})


def _store(values: Row, row: Row | None, request: Request) -> Row:
    columns = with_node(values, row, request)
    if "node_ident" in columns:
        columns["node_id"] = node_key(columns.pop("node_ident"))
    if row is None and "node_id" not in columns:
        bad("Port needs node_uuid")
    if "portgroup_uuid" in columns:
        columns["portgroup_id"] = _portgroup_key(columns.pop("portgroup_uuid"), columns.get("node_id"), row)
    return columns


def _portgroup_key(uuid: str | None, node_id: int | None, row: Row | None) -> int | None:
    if uuid is None:
        return None
    group = PortgroupRow.objects.filter(uuid=uuid).values("pk", "node_id").first()
    if group is None:
        raise Refused(400, f"Portgroup {uuid} could not be found.")
    if group["node_id"] != (node_id if node_id is not None else row and row["node_id"]):
        bad(f"A port and its portgroup must be of one node (portgroup {uuid})")
    return int(group["pk"])


def _guard(row: Row, verb: str) -> None:
    relied_on = row["node__provision_state"] not in _UNUSED and not row["node__maintenance"]
    if verb == "delete" and row["address__id"] and relied_on:
        conflict(f"Port {row['uuid']} can not be deleted while its node is {row['node__provision_state']!r}.")


def _of_portgroup(rows: QuerySet[Any], reference: str) -> QuerySet[Any]:
    column = "uuid" if checks.is_uuid(reference) else "name"
    if not PortgroupRow.objects.filter(**{column: reference}).exists():
        raise Refused(404, f"Portgroup {reference[:80]} could not be found.")
    return rows.filter(**{f"portgroup__{column}": reference})


PORTS = Resource(
    title="Port",
    path="ports",
    key="ports",
    model=PortRow,
    declared=(
        Field("uuid"),
        Field("created_at"),
        Field("updated_at"),
        Field("address", checks.mac, column="mac"),
        Field("available_for_dynamic_portgroup", default_true, since=111),
        Field("category", text(80), since=101),
        Field("description", text(255), since=97),
        Field("extra", mapping, sorts=False),
        Field("internal_info", since=18, sorts=False),
        Field("is_smartnic", boolean, since=53),
        Field("local_link_connection", checks.link, since=19, sorts=False),
        Field("name", checks.logical_name, column="alias", since=88),
        Field("node_uuid", checks.uuid, column="node__uuid", sorts=False),
        Field("physical_network", text(64), since=34),
        Field("portgroup_uuid", checks.uuid_or_null, column="portgroup__uuid", since=24, sorts=False),
        Field("pxe_enabled", default_true, since=19),
        Field("vendor", text(32), since=100),
    ),
    brief=("uuid", "address"),
    required=("address",),
    name="alias",
    filters={
        "address": lambda rows, value: rows.filter(mac=checks.mac("address", value)),
        "node": of_node,
        "node_uuid": of_node,
        "portgroup": _of_portgroup,
        "shard": lambda rows, value: rows.filter(node__shard__in=value.split(",")),
        "conductor_groups": lambda rows, value: rows.filter(node__conductor_group__in=value.lower().split(",")),
        "description_contains": lambda rows, value: rows.filter(description__icontains=value),
    },
    store=_store,
    guard=_guard,
    guard_columns=("node_id", "address__id", "node__provision_state", "node__maintenance"),
    trigger_tells_time=True,
    aliases={"node_ident": 94},
)


def list_ports(request: Request, *, detail: bool = False) -> Response:
    return PORTS.listed(request, detail=detail, place="ports/detail" if detail else "")
