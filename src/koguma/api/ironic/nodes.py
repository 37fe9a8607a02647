"""Nodes: their fields, filters and how they are shown. `node_writing` makes and changes them, `states` moves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Q, QuerySet

from koguma.api.ironic import checks, policy, workers
from koguma.api.ironic.checks import boolean, boolean_or_null, mapping, text
from koguma.api.ironic.fields import Field, Selection
from koguma.api.ironic.http import Request, Response, bad, missing, not_acceptable, truth
from koguma.api.ironic.masks import masked, masked_instance
from koguma.api.ironic.node_writing import GUARDED, interface_field_name, present, shown_driver_info, store
from koguma.api.ironic.resource import Resource
from koguma.db import documents
from koguma.db.documents import Row
from koguma.db.models import ChassisRow, NodeRow
from koguma.model.hardware import KINDS, NO_BMC, effective_interface
from koguma.model.states import PowerState, ProvisionState

INTERFACE_SINCE = {"network": 20, "storage": 33, "rescue": 38, "bios": 40, "firmware": 86}
"""Those of other kinds are shown since 1.31."""

CHILDREN = {"ports": 1, "states": 14, "portgroups": 24, "volume": 32}


def _power(value: str | None) -> str | None:
    return None if value == PowerState.UNKNOWN.value else value


def _empty_is_null(value: str | None) -> str | None:
    return value or None


FIELDS = (
    Field("uuid"),
    Field("created_at", column="created_at"),
    Field("updated_at", column="updated_at"),
    Field("allocation_uuid", column="allocation__uuid", since=52, sorts=False),
    Field("automated_clean", boolean_or_null, since=47),
    *(
        Field(interface_field_name(kind), text(), column=None, since=INTERFACE_SINCE.get(kind, 31), sorts=False)
        for kind in KINDS
    ),
    Field("boot_mode", since=75),
    Field("chassis_uuid", checks.uuid_or_null, column="chassis__uuid"),
    Field("clean_step", column=None, since=7),
    Field("conductor", column=None, since=49),
    Field("conductor_group", text(), since=46),
    Field("console_enabled", boolean, patches=False),
    Field("deploy_step", column=None, since=44),
    Field("description", text(4096), since=51),
    Field("disable_power_off", boolean, since=95),
    Field("driver", text(null=False), column="bmc_driver", shown=lambda driver: driver or NO_BMC),
    Field("driver_info", mapping, column=None),
    Field("driver_internal_info", since=3, sorts=False, shown=masked),
    Field("extra", mapping, sorts=False),
    Field("fault", since=42),
    Field("health", column=None, since=109),
    Field("inspection_finished_at", since=6),
    Field("inspection_started_at", since=6),
    Field("instance_info", mapping, sorts=False, shown=masked_instance),
    Field("instance_name", text(empty=False), since=104),
    Field("instance_uuid", checks.uuid_or_null),
    Field("last_error"),
    Field("lessee", text(), since=65),
    Field("maintenance", boolean),
    Field("maintenance_reason", text(4096), creates=False, shown=_empty_is_null),
    Field("name", checks.logical_name, since=5),
    Field("network_data", mapping, since=66, sorts=False),
    Field("owner", text(), since=50),
    Field("parent_node", text(36), column="parent__uuid", since=83, sorts=False),
    Field("power_state", shown=_power),
    Field("properties", mapping, sorts=False),
    Field("protected", boolean, since=48, creates=False),
    Field("protected_reason", text(4096), since=48, creates=False),
    Field("provision_state"),
    Field("provision_updated_at"),
    Field("raid_config", since=12, sorts=False),
    Field("reservation", column=None),
    Field("resource_class", text(80), since=21),
    Field("retired", boolean, since=61),
    Field("retired_reason", text(4096), since=61),
    Field("secure_boot", since=75),
    Field("service_step", column=None, since=87),
    Field("shard", text(), since=82),
    Field("target_power_state"),
    Field("target_provision_state"),
    Field("target_raid_config", since=12, sorts=False),
    Field("traits", since=37, sorts=False),
)

BRIEF = ("instance_uuid", "maintenance", "power_state", "provision_state", "uuid", "name")

_EXTRA = (
    "bmc_driver", "bmc_address", "bmc_username", "bmc_password", "driver_info", "interfaces", "asked_step",
    "provision_state", "conductor_group", "work__operation_id", "owner", "lessee",
)  # fmt: skip


def finish(found: list[dict[str, Any]], rows: list[Row], selection: Selection, request: Request) -> None:
    """Give the documents what no single column has."""
    wanted = [(name, make) for name, make in _MADE.items() if name in selection]
    if wanted:
        hosts = workers.hosts()
        for document, row in zip(found, rows, strict=True):
            for name, make in wanted:
                document[name] = make(row, hosts)
    if not request.identity.unrestricted:
        _redact(found, rows, selection, request)
    if "name" in selection:
        for document, row in zip(found, rows, strict=True):
            document["name"] = None if document["name"] == nameless(str(row["uuid"])) else document["name"]
    if "provision_state" in selection and request.minor < 39:
        for document in found:
            document["provision_state"] = _old_state(document["provision_state"], request.minor)


def _redact(found: list[dict[str, Any]], rows: list[Row], selection: Selection, request: Request) -> None:
    """A lessee sees less of a node than its owner."""
    hidden = [field for field in policy.REDACTED if field in selection]
    for document, row in zip(found, rows, strict=True):
        if hidden and not policy.sees_all_of(request, policy.Owners(row["owner"], row["lessee"])):
            document.update({field: policy.redacted(field) for field in hidden})


def nameless(uuid: str) -> str:
    """What a node is called that nobody gave a name; Ironic's clients see no name then."""
    return f"node-{uuid}"


def _old_state(state: str, minor: int) -> str | None:
    if state == ProvisionState.AVAILABLE.value and minor < 2:
        return None
    return ProvisionState.INSPECTING.value if state == ProvisionState.INSPECT_WAIT.value else state


def _interface(kind: str) -> Callable[[Row, workers.Hosts], Any]:
    return lambda row, _: effective_interface(row["bmc_driver"], kind, row["interfaces"])


def _step(*states: ProvisionState) -> Callable[[Row, workers.Hosts], Any]:
    return lambda row, _: row["asked_step"] if row["provision_state"] in states else {}


S = ProvisionState
_MADE: dict[str, Callable[[Row, workers.Hosts], Any]] = {
    **{interface_field_name(kind): _interface(kind) for kind in KINDS},
    "driver_info": lambda row, _: shown_driver_info(row),
    "clean_step": _step(S.CLEANING, S.CLEAN_WAIT, S.CLEAN_HOLD),
    "deploy_step": _step(S.DEPLOYING, S.WAIT_CALL_BACK, S.DEPLOY_HOLD),
    "service_step": _step(S.SERVICING, S.SERVICE_WAIT, S.SERVICE_HOLD),
    "conductor": lambda row, hosts: hosts.of(row["conductor_group"]),
    "reservation": lambda row, hosts: hosts.of(row["conductor_group"]) if row["work__operation_id"] else None,
    "health": lambda _row, _hosts: None,
}


def _flag(column: str) -> Callable[[QuerySet[Any], str], QuerySet[Any]]:
    return lambda rows, value: rows.filter(**{column: truth(value, column)})


def _equal(column: str, check: checks.Check | None = None) -> Callable[[QuerySet[Any], str], QuerySet[Any]]:
    return lambda rows, value: rows.filter(**{column: check(column, value) if check else value})


def _associated(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(instance_uuid__isnull=not truth(value, "associated"))


def _state(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    known = {state.value for state in ProvisionState}
    if value not in known:
        bad(f'Provision state "{value[:40]}" is not valid')
    return rows.filter(provision_state=value)


def _driver(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(bmc_driver="" if value == NO_BMC else value)


FAULTS = ("power failure", "clean failure", "rescue abort failure", "service failure")


def _fault(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    if value not in FAULTS:
        bad(f'Unrecognized fault "{value[:40]}" is specified, allowed faults are {FAULTS}')
    return rows.filter(fault=value)


def _chassis(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    uuid = checks.uuid("chassis_uuid", value)
    if not ChassisRow.objects.filter(uuid=uuid).exists():
        missing(f"Chassis {uuid} could not be found.")
    return rows.filter(chassis__uuid=uuid)


def _sharded(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(shard__isnull=not truth(value, "sharded"))


def _project(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(Q(owner=value) | Q(lessee=value))


def _parent(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    return rows.filter(parent__uuid=value) if checks.is_uuid(value) else rows.filter(parent__name=value)


FILTERS = {
    "associated": _associated,
    "chassis_uuid": _chassis,
    "conductor": lambda rows, value: rows.filter(conductor_group__in=workers.hosts().groups(value)),
    "conductor_group": lambda rows, value: rows.filter(conductor_group=value.lower()),
    "description_contains": lambda rows, value: rows.filter(description__icontains=value),
    "driver": _driver,
    "fault": _fault,
    "include_children": lambda rows, _: rows,
    "instance_name": _equal("instance_name"),
    "instance_uuid": _equal("instance_uuid", checks.uuid),
    "lessee": _equal("lessee"),
    "maintenance": _flag("maintenance"),
    "owner": _equal("owner"),
    "parent_node": _parent,
    "project": _project,
    "provision_state": _state,
    "resource_class": _equal("resource_class"),
    "retired": _flag("retired"),
    "shard": lambda rows, value: rows.filter(shard__in=value.split(",")),
    "sharded": _sharded,
}

FILTER_SINCE = {
    "provision_state": 9, "driver": 16, "resource_class": 21, "fault": 42, "conductor_group": 46, "conductor": 49,
    "owner": 50, "description_contains": 51, "retired": 61, "lessee": 65, "shard": 82, "sharded": 82,
    "parent_node": 83, "include_children": 83, "instance_name": 104,
}  # fmt: skip

NODES = Resource(
    title="Node",
    path="nodes",
    key="nodes",
    model=NodeRow,
    declared=FIELDS,
    brief=BRIEF,
    name="name",
    required=("driver",),
    filters=FILTERS,
    children=CHILDREN,
    store=store,
    extra_columns=_EXTRA,
    finish=finish,
    trigger_tells_time=True,
    present_of=present,
    guard_columns=GUARDED,
    patch_arguments=("reset_interfaces",),
)


def list_nodes(
    request: Request, *, detail: bool = False, rows: QuerySet[Any] | None = None, place: str = ""
) -> Response:
    for name, since in FILTER_SINCE.items():
        if name in request.query and request.minor < since:
            not_acceptable()
    rows = NodeRow.objects.all() if rows is None else rows
    if request.minor >= 83 and "parent_node" not in request.query and not request.flag("include_children"):
        rows = rows.filter(parent=None)
    return NODES.listed(request, rows=rows, detail=detail, place=place or ("nodes/detail" if detail else ""))


def shown_node(request: Request, uuid: str) -> dict[str, Any]:
    """The whole document of a node."""
    return NODES.document_of(request, uuid)


def node_row(reference: str, *columns: str) -> Row:
    """Columns of the node called so. Raises NotFound."""
    key = "uuid" if checks.is_uuid(reference) else "name"
    return documents.by_key(NodeRow, ("id", "uuid", *columns), key, reference, f"Node {reference[:80]}")
