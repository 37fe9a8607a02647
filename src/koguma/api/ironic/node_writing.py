"""Making and changing nodes: which changes a node's state allows, and which columns its fields are made of."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings

from koguma.api.ironic import checks, hardware
from koguma.api.ironic.http import Refused, Request, bad, conflict, not_acceptable
from koguma.api.ironic.masks import MASK, is_secret, masked
from koguma.db import documents
from koguma.db.documents import Row
from koguma.db.models import AllocationRow, ChassisRow, FlavorRow, NodeRow
from koguma.db.registrations import add_node
from koguma.db.sealing import seal, unseal
from koguma.db.wake import wake
from koguma.model.hardware import FAKE, KINDS, NO_BMC, hardware_type
from koguma.model.names import shown
from koguma.model.states import ProvisionState as S

INTERFACE_FIELDS = {f"{kind}_interface": kind for kind in KINDS}

RESERVED_NAMES = frozenset(
    {
        "detail", "validate", "states", "maintenance", "management", "vendor_passthru", "ports", "portgroups", "vifs",
        "volume", "traits", "bios", "allocation", "history", "inventory", "children", "firmware", "vmedia",
    }
)  # fmt: skip

UPDATE_ALLOWED = frozenset(
    {
        S.DEPLOY_FAILED, S.INSPECTING, S.INSPECT_FAILED, S.INSPECT_WAIT, S.CLEAN_FAILED, S.ERROR, S.VERIFYING,
        S.ADOPT_FAILED, S.RESCUE_FAILED, S.UNRESCUE_FAILED, S.SERVICING, S.SERVICE_HOLD, S.SERVICE_FAILED,
    }
)  # fmt: skip
"""Where a node with a target may be changed all the same."""

UNUSED = frozenset({S.ENROLL, S.MANAGEABLE, S.INSPECTING, S.INSPECT_WAIT, S.AVAILABLE})
"""Where nobody relies on what hardware a node is."""

GUARDED = (
    "provision_state", "target_provision_state", "maintenance", "retired", "protected", "driver_secrets",
    "allocation__id",
)  # fmt: skip


def interface_field_name(kind: str) -> str:
    return f"{kind}_interface"


def create(request: Request) -> str:
    """The UUID of the new node. Raises Refused, AlreadyExists or InvalidValue."""
    from koguma.api.ironic.nodes import NODES, nameless  # noqa: PLC0415 - nodes are described with what is here

    values = NODES.checked(request, request.document())
    uuid = values.pop("uuid", None) or str(uuid4())
    columns = _columns(values, None)
    name = columns.pop("name", None) or nameless(uuid)
    columns.setdefault("provision_state", (S.ENROLL if request.minor >= 11 else S.AVAILABLE).value)
    columns["known_by_mac"] = True
    if hardware_type(columns["bmc_driver"]).default("deploy") != FAKE:
        columns["flavor_id"] = _flavor_key(columns.get("resource_class") or "", settings.KOGUMA_ENROLLMENT_FLAVOR)
    with documents.refusals("Node"):
        add_node(uuid, name, **columns)
    return uuid


def _flavor_key(*names: str) -> int | None:
    """The first flavor that exists. Ironic has no flavors of its own: a node's resource class names one."""
    keys = dict(FlavorRow.objects.filter(name__in=names).values_list("name", "pk"))
    return next((keys[name] for name in names if name in keys), None)


def present(row: Row) -> dict[str, Any]:
    """Fields of a node that no single column has, as a patch finds them. An interface nobody chose is none."""
    interfaces = {name: row["interfaces"].get(kind) for name, kind in INTERFACE_FIELDS.items()}
    return {**interfaces, "driver": row["bmc_driver"] or NO_BMC, "driver_info": shown_driver_info(row)}


def shown_driver_info(row: Row) -> dict[str, Any]:
    """What the driver was told, secrets masked."""
    info = masked(row["driver_info"])
    prefix = hardware_type(row["bmc_driver"]).bmc_prefix
    if prefix:
        account = {"address": row["bmc_address"], "username": row["bmc_username"]}
        info.update({f"{prefix}_{key}": value for key, value in account.items() if value})
        if row["bmc_password"]:
            info[f"{prefix}_password"] = MASK
    return info


def store(values: Row, row: Row | None, request: Request) -> Row:
    """The columns of changed fields, after the rules of the node's state. Raises Refused."""
    if row is None:
        raise AssertionError("nodes are made by `create`")
    _reject_by_state(values, row)
    reset = request.flag("reset_interfaces")
    if reset is not None and request.minor < 45:
        not_acceptable()
    if reset and "driver" not in values:
        bad("The reset_interfaces parameter can only be used when changing the node's driver.")
    columns = _columns(values, {**row, "interfaces": {}} if reset else row)
    if reset:
        columns.setdefault("interfaces", {})
    _with_consequences(columns, row)
    return columns


def _with_consequences(columns: Row, row: Row) -> None:
    """What else changes with some fields."""
    if columns.get("maintenance") is False:
        columns.update(maintenance_reason="", fault=None)
    if columns.get("retired") is False:
        columns["retired_reason"] = None
    if columns.get("protected") is False:
        columns["protected_reason"] = None
    info = columns.get("instance_info")
    if info and info.get("display_name") and not row["instance_name"] and "instance_name" not in columns:
        columns["instance_name"] = str(info["display_name"])[:255]
    if "instance_uuid" in columns and columns["instance_uuid"] is None and row["allocation__id"]:
        AllocationRow.objects.filter(pk=row["allocation__id"]).delete()
    if (wanted := columns.get("resource_class")) and (key := _flavor_key(wanted)):
        columns["flavor_id"] = key
    if "maintenance" in columns:
        wake(row["id"])


def _reject_by_state(values: Row, row: Row) -> None:
    state, name = S(row["provision_state"]), row["uuid"]
    forgets_instance = values == {"instance_uuid": None}
    if row["target_provision_state"] and state not in UPDATE_ALLOWED and not (row["maintenance"] and forgets_instance):
        conflict(f"Node {name} can not be updated while a state transition is in progress.")
    settled = state in UNUSED
    given = values.get("instance_uuid")
    if given and row["instance_uuid"] and UUID(given) != row["instance_uuid"]:
        conflict(f"Node {name} is associated with instance {row['instance_uuid']}.")
    if "instance_uuid" in values and given is None and row["allocation__id"] and not (settled or row["maintenance"]):
        conflict(f"Node {name} with an allocation can not have instance_uuid removed in state '{state}'.")
    if row["resource_class"] and values.get("resource_class", row["resource_class"]) != row["resource_class"]:
        _only(settled, f"Node {name} can not have resource_class updated in state '{state}'.")
    if "driver" in values or any(field in values for field in INTERFACE_FIELDS):
        _only(
            settled or row["maintenance"],
            f"Node {name} can not have its driver or interfaces updated in state '{state}'.",
        )
    if values.get("retired") and state is S.AVAILABLE:
        conflict(f"Node {name} can not be retired in state 'available': move it to manageable first.")
    if values.get("protected") and state not in (S.ACTIVE, S.RESCUE):
        conflict(f"Node {name} can not be protected in state '{state}'.")
    if values.get("protected_reason") and not values.get("protected", row["protected"]):
        bad("The protected_reason field can only be set when protected is True")
    if values.get("retired_reason") and not values.get("retired", row["retired"]):
        bad("The retired_reason field can only be set when retired is True")


def _only(allowed: bool, message: str) -> None:
    if not allowed:
        conflict(message)


def _columns(values: Row, row: Row | None) -> Row:
    columns = {key: value for key, value in values.items() if key not in _MADE}
    if "driver" in values:
        columns["bmc_driver"] = hardware.on_record(values["driver"])
    driver = str(columns.get("bmc_driver", row["bmc_driver"] if row else ""))
    if any(field in values for field in INTERFACE_FIELDS) or ("driver" in values and row):
        columns["interfaces"] = _interfaces(values, row, driver)
    if "driver_info" in values:
        columns.update(_told(values["driver_info"], row, driver))
    if "chassis_uuid" in values:
        columns["chassis_id"] = _key(ChassisRow, "Chassis", values["chassis_uuid"])
    if "parent_node" in values:
        columns["parent_id"] = _key(NodeRow, "Node", values["parent_node"])
    if "name" in values:
        _name(columns, values["name"], row)
    if "conductor_group" in values:
        columns["conductor_group"] = (values["conductor_group"] or "").lower()
    if "maintenance_reason" in values:
        columns["maintenance_reason"] = values["maintenance_reason"] or ""
    if "instance_info" in values and row:
        columns["instance_info"] = _unmasked(values["instance_info"], row["instance_info"])
    return columns


_MADE = frozenset({"driver", "driver_info", "chassis_uuid", "parent_node", "name", *INTERFACE_FIELDS})


def _name(columns: Row, name: str | None, row: Row | None) -> None:
    if name in RESERVED_NAMES:
        bad(f'The word "{name}" is reserved and can not be used as a node name.')
    if name is not None:
        columns["name"] = name
    elif row is not None:
        columns["name"] = f"node-{row['uuid']}"


def _interfaces(values: Row, row: Row | None, driver: str) -> dict[str, str]:
    chosen = dict(row["interfaces"]) if row else {}
    for field, kind in INTERFACE_FIELDS.items():
        if values.get(field) is not None:
            chosen[kind] = values[field]
        elif field in values:
            chosen.pop(kind, None)
    known = hardware_type(driver).interfaces
    for kind, name in chosen.items():
        if name not in known[kind]:
            bad(
                f"Could not find the following interface in the 'ironic.hardware.interfaces.{kind}' entrypoint:"
                f" {shown(name)}. Valid interfaces are {list(known[kind])}."
            )
    return chosen


def _told(info: dict[str, Any], row: Row | None, driver: str) -> Row:
    """`driver_info` as columns: the BMC's account by itself, secrets sealed, the rest as it is. A mask that comes back
    stands for the secret that is there.
    """
    prefix = hardware_type(driver).bmc_prefix
    rest = dict(info)
    columns: Row = {}
    if prefix:
        for column in ("address", "username"):
            columns[f"bmc_{column}"] = checks.text(255, null=False)(
                f"driver_info.{prefix}_{column}", rest.pop(f"{prefix}_{column}", "")
            )
        password = rest.pop(f"{prefix}_password", "")
        if password != MASK or row is None:
            columns["bmc_password"] = seal(str(password))
        port = rest.get(f"{prefix}_port")
        if port and columns["bmc_address"] and ":" not in columns["bmc_address"]:
            columns["bmc_address"] = f"{columns['bmc_address']}:{int(port) if str(port).isdigit() else bad_port(port)}"
    had = json.loads(unseal(row["driver_secrets"])) if row and row["driver_secrets"] else {}
    secrets = {key: had.get(key, "") if value == MASK else value for key, value in rest.items() if is_secret(key)}
    columns["driver_secrets"] = seal(json.dumps(secrets)) if secrets else ""
    columns["driver_info"] = {key: MASK if key in secrets else value for key, value in rest.items()}
    return columns


def bad_port(port: Any) -> int:
    bad(f"a port of a BMC must be a number, got {shown(port)}")


def _unmasked(document: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {key: before.get(key) if value == MASK else value for key, value in document.items()}


def _key(model: Any, title: str, uuid: str | None) -> int | None:
    if not uuid:
        return None
    same = {"uuid": uuid} if checks.is_uuid(uuid) else {"name": uuid} if model is NodeRow else {"pk": None}
    pk: int | None = model.objects.filter(**same).values_list("pk", flat=True).first()
    if pk is None:
        raise Refused(400, f"{title} {shown(uuid)} could not be found.")
    return pk
