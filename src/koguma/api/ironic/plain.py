"""Resources that are one row each, with nothing special about them: chassis, port groups, templates, runbooks, rules,
volume connectors and targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import QuerySet

from koguma.api.ironic import checks
from koguma.api.ironic.checks import boolean, default_true, integer, mapping, text
from koguma.api.ironic.fields import Field, Selection
from koguma.api.ironic.http import Refused, Request, bad
from koguma.api.ironic.masks import masked
from koguma.api.ironic.policy import Owners, system_member, target_properties_reader
from koguma.api.ironic.resource import Resource
from koguma.db.documents import Row
from koguma.db.models import (
    ChassisRow,
    DeployTemplateRow,
    InspectionRuleRow,
    NodeRow,
    PortgroupRow,
    RunbookRow,
    VolumeConnectorRow,
    VolumeTargetRow,
)
from koguma.lifecycle.rules.actions import ACTIONS, Action
from koguma.lifecycle.rules.conditions import OPERATORS, Operator
from koguma.lifecycle.rules.engine import reason_not_runnable
from koguma.model.states import PowerState

HEAD = (Field("uuid"), Field("created_at"), Field("updated_at"), Field("extra", mapping, sorts=False))


def node_key(reference: str) -> int:
    """The node's key. Raises Refused (400), because the node is not what the path names."""
    same = {"uuid": reference} if checks.is_uuid(reference) else {"name": reference}
    pk: int | None = NodeRow.objects.filter(**same).values_list("pk", flat=True).first()
    if pk is None:
        raise Refused(400, f"Node {reference[:80]} could not be found.")
    return pk


def with_node(values: Row, row: Row | None, request: Request) -> Row:  # noqa: ARG001 - as every `store`
    """`node_uuid` as the reference it is."""
    columns = {key: value for key, value in values.items() if key != "node_uuid"}
    if "node_uuid" in values:
        columns["node_id"] = node_key(values["node_uuid"])
    return columns


def of_node(rows: QuerySet[Any], reference: str) -> QuerySet[Any]:
    column = "uuid" if checks.is_uuid(reference) else "name"
    if not NodeRow.objects.filter(**{column: reference}).exists():
        raise Refused(404, f"Node {reference[:80]} could not be found.")
    return rows.filter(**{f"node__{column}": reference})


def off_only(title: str) -> Callable[[Row, str], None]:
    def guard(row: Row, verb: str) -> None:
        if row["node__power_state"] == PowerState.ON.value:
            bad(f"{title} can only be {verb}d while its node is powered off, it is on")

    return guard


CHASSIS = Resource(
    title="Chassis",
    path="chassis",
    key="chassis",
    model=ChassisRow,
    declared=(*HEAD, Field("description", text(255))),
    brief=("uuid", "description"),
    children={"nodes": 1},
)

PORTGROUPS = Resource(
    title="Portgroup",
    path="portgroups",
    key="portgroups",
    model=PortgroupRow,
    since=23,
    declared=(
        *HEAD,
        Field("address", checks.mac_or_null),
        Field("category", text(80), since=103),
        Field("dynamic_portgroup", since=111),
        Field("internal_info", sorts=False),
        Field("mode", text(), since=26),
        Field("name", checks.logical_name),
        Field("node_uuid", checks.uuid, column="node__uuid", sorts=False),
        Field("physical_network", text(64), since=102),
        Field("properties", mapping, since=26, sorts=False),
        Field("standalone_ports_supported", default_true),
    ),
    brief=("uuid", "address", "name"),
    required=("node_uuid",),
    name="name",
    filters={
        "address": lambda rows, value: rows.filter(address=checks.mac("address", value)),
        "node": of_node,
        "conductor_groups": lambda rows, value: rows.filter(node__conductor_group__in=value.lower().split(",")),
        "shard": lambda rows, value: rows.filter(node__shard__in=value.split(",")),
    },
    children={"ports": 24},
    store=with_node,
)

_TEMPLATE_STEPS = checks.steps("priority", needs_args=True)
_RUNBOOK_STEPS = checks.steps("order", needs_args=False)


def _masked_steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**step, "args": masked(step.get("args") or {})} for step in steps]


DEPLOY_TEMPLATES = Resource(
    title="Deploy template",
    path="deploy_templates",
    key="deploy_templates",
    model=DeployTemplateRow,
    since=55,
    declared=(
        *HEAD,
        Field("name", checks.trait),
        Field("steps", _TEMPLATE_STEPS, sorts=False, shown=_masked_steps),
    ),
    brief=("uuid", "name"),
    required=("name", "steps"),
    name="name",
)


def _runbook_store(values: Row, row: Row | None, request: Request) -> Row:
    """Projects make runbooks of their own; only the system gives one to another project, or to all."""
    if values.get("name") and request.minor < 112:
        checks.trait("name", values["name"])
    who = request.identity
    if who.unrestricted or system_member(who, Owners()):
        return values
    if row is None:
        values = {"owner": who.project, **values}
    if values.get("public") or values.get("owner", who.project) != who.project:
        raise Refused(403, "Cannot make a runbook public, or another project's, with a project scoped request.")
    return values


RUNBOOKS = Resource(
    title="Runbook",
    path="runbooks",
    key="runbooks",
    model=RunbookRow,
    since=92,
    declared=(
        *HEAD,
        Field("description", text(255), since=112),
        Field("disable_ramdisk", boolean),
        Field("name", checks.logical_name),
        Field("owner", text(255)),
        Field("public", boolean),
        Field("steps", _RUNBOOK_STEPS, sorts=False, shown=_masked_steps),
        Field("traits", since=112, sorts=False),
    ),
    brief=("uuid", "name"),
    required=("name", "steps"),
    name="name",
    store=_runbook_store,
)


def _operations(known: Mapping[str, Operator] | Mapping[str, Action], *, empty: bool) -> checks.Check:
    def check(name: str, value: Any) -> list[dict[str, Any]]:
        operations = checks.listing(name, value)
        if not operations and not empty:
            bad(f"{name} must have at least one item")
        for place, item in enumerate(operations):
            operation = mapping(f"{name}[{place}]", item)
            if reason := reason_not_runnable(operation, known):
                bad(f"{name}[{place}]: {reason}")
            if operation.get("multiple", "any") not in ("any", "all", "first", "last"):
                bad(f"{name}[{place}].multiple must be any, all, first or last")
            if unknown := sorted(set(operation) - {"op", "args", "loop", "multiple"}):
                bad(f"{name}[{place}] has no {', '.join(unknown)}")
        return operations

    return check


PRIORITY_MAX = 9999
"""Higher ones, and those below zero, are left to the rules of the site's file."""


def _priority(name: str, value: Any) -> int:
    number = integer(name, value)
    if number is None or not 0 <= number <= PRIORITY_MAX:
        bad(f"{name} must be between 0 and {PRIORITY_MAX}, got {number}")
    return int(number)


def _stays_sensitive(values: Row, row: Row | None, _: Request) -> Row:
    if row is not None and row["sensitive"] and values.get("sensitive") is False:
        bad("A sensitive inspection rule stays sensitive: what it hides would be shown")
    return values


def _shown_operation(item: dict[str, Any]) -> dict[str, Any]:
    shown = {"op": item["op"], "args": item.get("args", [])}
    if item.get("loop"):
        shown["loop"] = item["loop"]
        if "multiple" in item:
            shown["multiple"] = item["multiple"]
    return shown


def _shown_operations(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_shown_operation(item) for item in operations]


def _hide_sensitive(found: list[dict[str, Any]], rows: list[Row], _: Selection, __: Request) -> None:
    for document, row in zip(found, rows, strict=True):
        if row["sensitive"]:
            document.update({key: None for key in ("conditions", "actions") if key in document})


INSPECTION_RULES = Resource(
    title="Inspection rule",
    path="inspection_rules",
    key="inspection_rules",
    model=InspectionRuleRow,
    since=96,
    declared=(
        *(field for field in HEAD if field.name != "extra"),
        Field("actions", _operations(ACTIONS, empty=False), sorts=False, shown=_shown_operations),
        Field("conditions", _operations(OPERATORS, empty=True), sorts=False, shown=_shown_operations),
        Field("description", text(255)),
        Field("phase", checks.one_of("preprocess", "main")),
        Field("priority", _priority),
        Field("sensitive", boolean),
    ),
    brief=("uuid", "priority", "phase", "description"),
    required=("actions",),
    extra_columns=("sensitive",),
    store=_stays_sensitive,
    finish=_hide_sensitive,
)


def _hide_properties(found: list[dict[str, Any]], _: list[Row], __: Selection, request: Request) -> None:
    if target_properties_reader(request.identity, Owners()):
        return
    for document in found:
        if "properties" in document:
            words = "** Value redacted: requires permission baremetal:volume:view_target_properties. **"
            document["properties"] = {"redacted_contents": words}


VOLUME_CONNECTORS = Resource(
    title="Volume connector",
    path="volume/connectors",
    key="connectors",
    model=VolumeConnectorRow,
    since=32,
    detail_since=32,
    declared=(
        *HEAD,
        Field("connector_id", text(255, null=False, empty=False)),
        Field("node_uuid", checks.uuid, column="node__uuid", sorts=False),
        Field("type", text(32, null=False, empty=False)),
    ),
    brief=("uuid", "node_uuid", "type", "connector_id"),
    required=("connector_id", "node_uuid", "type"),
    filters={"node": of_node},
    store=with_node,
    guard=off_only("A volume connector"),
    guard_columns=("node__power_state",),
)

VOLUME_TARGETS = Resource(
    title="Volume target",
    path="volume/targets",
    key="targets",
    model=VolumeTargetRow,
    since=32,
    detail_since=32,
    declared=(
        *HEAD,
        Field("boot_index", integer),
        Field("node_uuid", checks.uuid, column="node__uuid", sorts=False),
        Field("properties", mapping, sorts=False, shown=masked),
        Field("volume_id", text(36, null=False, empty=False)),
        Field("volume_type", text(64, null=False, empty=False)),
    ),
    brief=("uuid", "node_uuid", "volume_type", "boot_index", "volume_id"),
    required=("boot_index", "node_uuid", "volume_id", "volume_type"),
    filters={"node": of_node},
    store=with_node,
    guard=off_only("A volume target"),
    guard_columns=("node__power_state",),
    finish=_hide_properties,
)
