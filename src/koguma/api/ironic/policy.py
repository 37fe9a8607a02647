"""Who may do what: Ironic's own default rules, for system-scoped and project-scoped roles, owners and lessees of nodes.

A rule looks at who asks and at whose the thing is, and answers yes or no. `RULES` has one for each path; a list shows
what belongs to the asker's project. What somebody may not even see is "not found", as in Ironic. Without Keystone
everybody who is let in may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from django.db.models import Model, Q, QuerySet

from koguma.api.ironic import checks
from koguma.api.ironic.http import Refused, Request
from koguma.api.ironic.identity import Identity
from koguma.db.models import (
    AllocationRow,
    NodeRow,
    PortgroupRow,
    PortRow,
    RunbookRow,
    VolumeConnectorRow,
    VolumeTargetRow,
)


@dataclass(frozen=True)
class Owners:
    """Whose a thing is: the projects of its node, or of an allocation."""

    owner: str | None = None
    lessee: str | None = None


Rule = Callable[[Identity, Owners], bool]


def _system(role: str) -> Rule:
    return lambda who, _: (who.system and role in who.roles) or who.is_service


def _owner(role: str) -> Rule:
    return lambda who, of: role in who.roles and who.project is not None and who.project == of.owner


def _lessee(role: str) -> Rule:
    return lambda who, of: role in who.roles and who.project is not None and who.project == of.lessee


def _any(*rules: Rule) -> Rule:
    return lambda who, of: any(rule(who, of) for rule in rules)


def everybody(_: Identity, __: Owners) -> bool:
    return True


def any_reader(who: Identity, _: Owners) -> bool:
    return bool(who.roles & {"reader", "service"})


def system_admin(who: Identity, _: Owners) -> bool:
    return who.system and "admin" in who.roles


def admin_somewhere(who: Identity, _: Owners) -> bool:
    return bool(who.roles & {"admin", "service"})


system_reader, system_member = _system("reader"), _system("member")
owner_service = _owner("service")
system_or_project_reader = _any(system_reader, _owner("reader"), _lessee("reader"), owner_service)
system_or_project_member = _any(system_member, _owner("member"), _lessee("member"))
system_or_owner_reader = _any(system_reader, _owner("reader"), owner_service)
system_or_owner_member = _any(system_member, _owner("member"), owner_service)
system_member_or_owner_admin = _any(system_member, _owner("admin"), _owner("manager"), owner_service)
system_admin_or_owner_admin = _any(
    system_admin,
    lambda who, _: who.system and "service" in who.roles,
    _owner("admin"),
    _owner("manager"),
    owner_service,
)
provisioner = _any(system_member, _owner("member"), _lessee("admin"), _lessee("manager"), owner_service)
"""Members of the owner's project, but of the lessee's only those who manage it."""
volume_maker = _any(
    system_member, _owner("admin"), _owner("manager"), _lessee("admin"), _lessee("manager"), owner_service
)
node_deleter = _any(system_admin, _owner("admin"))
allocation_reader, allocation_member = _any(system_reader, _owner("reader")), _any(system_member, _owner("member"))


runbook_reader = allocation_reader
runbook_manager = _any(system_member, _owner("manager"))


def runbook_creator(who: Identity, of: Owners) -> bool:
    return system_member(who, of) or "manager" in who.roles


def target_properties_reader(who: Identity, of: Owners) -> bool:
    """How a volume is reached, secrets included, is not for everybody who sees that there is one."""
    return who.unrestricted or system_reader(who, of) or "admin" in who.roles


def allocation_creator(who: Identity, of: Owners) -> bool:
    return system_member(who, of) or "member" in who.roles


PUBLIC = frozenset({"", "lookup", "heartbeat/{}", "continue_inspection"})
"""What agents in machines ask for; they prove who they are in other ways."""

_NODE_READS = (
    "ports",
    "ports/detail",
    "portgroups",
    "portgroups/detail",
    "traits",
    "vifs",
    "states",
    "bios",
    "bios/{}",
    "firmware",
    "children",
    "allocation",
    "vmedia",
)
RULES: Mapping[tuple[str, str], Rule] = {
    ("GET", "nodes"): any_reader,
    ("GET", "nodes/detail"): any_reader,
    ("POST", "nodes"): admin_somewhere,
    ("GET", "nodes/{}"): system_or_project_reader,
    ("PATCH", "nodes/{}"): system_or_project_member,
    ("DELETE", "nodes/{}"): node_deleter,
    ("GET", "nodes/{}/validate"): provisioner,
    ("GET", "nodes/validate"): provisioner,
    **{("GET", f"nodes/{{}}/{part}"): system_or_project_reader for part in _NODE_READS},
    **{("GET", f"nodes/{{}}/{part}"): system_or_owner_reader for part in ("history", "history/{}", "inventory")},
    **{("PUT", f"nodes/{{}}/states/{part}"): system_or_project_member
       for part in ("power", "boot_mode", "secure_boot")},
    ("PUT", "nodes/{}/states/provision"): provisioner,
    ("PUT", "nodes/{}/states/raid"): system_or_owner_member,
    ("GET", "nodes/{}/states/console"): system_or_owner_member,
    ("PUT", "nodes/{}/states/console"): system_or_owner_member,
    ("PUT", "nodes/{}/maintenance"): provisioner,
    ("DELETE", "nodes/{}/maintenance"): provisioner,
    ("GET", "nodes/{}/management/boot_device"): system_member_or_owner_admin,
    ("GET", "nodes/{}/management/boot_device/supported"): system_member_or_owner_admin,
    ("PUT", "nodes/{}/management/boot_device"): system_member_or_owner_admin,
    ("PUT", "nodes/{}/management/inject_nmi"): system_member_or_owner_admin,
    ("GET", "nodes/{}/management/indicators"): system_or_project_reader,
    ("GET", "nodes/{}/management/indicators/{}"): system_or_project_reader,
    ("PUT", "nodes/{}/management/indicators/{}"): system_or_owner_member,
    **{(verb, f"nodes/{{}}/traits{part}"): system_member_or_owner_admin
       for verb in ("PUT", "DELETE") for part in ("", "/{}")},
    ("POST", "nodes/{}/vifs"): provisioner,
    ("DELETE", "nodes/{}/vifs/{}"): provisioner,
    ("POST", "nodes/{}/vmedia"): system_or_project_member,
    ("DELETE", "nodes/{}/vmedia"): system_or_project_member,
    ("DELETE", "nodes/{}/allocation"): system_or_project_member,
    ("GET", "nodes/{}/volume"): system_or_project_reader,
    ("GET", "nodes/{}/volume/connectors"): system_or_project_reader,
    ("GET", "nodes/{}/volume/targets"): system_or_project_reader,
    **{("GET", f"{kind}{part}"): any_reader for kind in ("ports", "portgroups") for part in ("", "/detail")},
    **{("POST", kind): system_admin_or_owner_admin for kind in ("ports", "portgroups")},
    **{("GET", f"{kind}/{{}}"): system_or_project_reader for kind in ("ports", "portgroups")},
    **{("PATCH", f"{kind}/{{}}"): system_member_or_owner_admin for kind in ("ports", "portgroups")},
    **{("DELETE", f"{kind}/{{}}"): system_admin_or_owner_admin for kind in ("ports", "portgroups")},
    ("GET", "portgroups/{}/ports"): system_or_project_reader,
    ("GET", "portgroups/{}/ports/detail"): system_or_project_reader,
    ("GET", "volume"): any_reader,
    **{("GET", f"volume/{kind}"): any_reader for kind in ("connectors", "targets")},
    **{("POST", f"volume/{kind}"): volume_maker for kind in ("connectors", "targets")},
    **{("GET", f"volume/{kind}/{{}}"): system_or_project_reader for kind in ("connectors", "targets")},
    **{("PATCH", f"volume/{kind}/{{}}"): provisioner for kind in ("connectors", "targets")},
    **{("DELETE", f"volume/{kind}/{{}}"): volume_maker for kind in ("connectors", "targets")},
    ("GET", "allocations"): any_reader,
    ("POST", "allocations"): allocation_creator,
    ("GET", "allocations/{}"): allocation_reader,
    ("PATCH", "allocations/{}"): allocation_member,
    ("DELETE", "allocations/{}"): allocation_member,
    ("GET", "runbooks"): any_reader,
    ("POST", "runbooks"): runbook_creator,
    ("GET", "runbooks/{}"): runbook_reader,
    ("GET", "runbooks/{}/traits"): runbook_reader,
    ("PATCH", "runbooks/{}"): runbook_manager,
    ("DELETE", "runbooks/{}"): runbook_manager,
    ("PATCH", "chassis/{}"): system_member,
}  # fmt: skip
"""Everything else is the system's: readers of it may read, admins of it may write."""

FIELD_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("driver_info", "properties", "instance_uuid", "lessee", "network_data", "name", "retired", "retired_reason"),
        system_or_owner_member,
    ),
    **dict.fromkeys(("owner", "conductor_group", "parent_node"), system_member),
    **dict.fromkeys(("chassis_uuid", "shard", "automated_clean"), system_admin),
    "driver": system_member_or_owner_admin,
    "instance_info": provisioner,
}
"""Fields of a node that not everybody who may change a node may change; interfaces go with the driver."""

REDACTED = ("last_error", "reservation", "driver_internal_info", "driver_info")
"""What a node's lessee does not see."""


def enforce(request: Request, pattern: str, given: Collection[str]) -> None:
    """Raises Refused: 403, or 404 for what the asker may not even see."""
    who = request.identity
    if who.unrestricted or pattern in PUBLIC:
        return
    method = "GET" if request.method == "HEAD" else request.method
    rule = RULES.get((method, pattern)) or (system_reader if method == "GET" else system_admin)
    if method == "POST" and pattern == "nodes":
        _enforce_creation(request, who)
        return
    owners, name = _owners(request, pattern, given), next(iter(given), "")
    if rule(who, owners):
        return
    seen = _sees(who, pattern, owners, name)
    if not (seen and method == "GET" and pattern.startswith("runbooks/")):
        _refuse(request, pattern, seen=seen, name=name)


def may_operate(request: Request) -> bool:
    """Whether the asker may use the native API for this."""
    reads = request.method in ("GET", "HEAD")
    rule = system_reader if reads else system_admin
    return request.identity.unrestricted or rule(request.identity, Owners())


def enforce_fields(request: Request, fields: Collection[str], owners: Owners) -> None:
    """Raises Refused (403) for fields of a node that the asker may not change."""
    who = request.identity
    for field in () if who.unrestricted else sorted(fields):
        rule = FIELD_RULES.get("driver" if field.endswith("_interface") else field, everybody)
        if not rule(who, owners):
            raise Refused(403, f"Access was denied to the following resource: baremetal:node:update:{field}")


def visible(request: Request, rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those of the rows that the asker may see."""
    who = request.identity
    if who.unrestricted or system_reader(who, Owners()) or rows.model not in _PATHS:
        return rows
    path = _PATHS[rows.model]
    if rows.model is AllocationRow:
        return rows.filter(owner=who.project)
    if rows.model is RunbookRow:
        return rows.filter(Q(owner=who.project) | Q(public=True))
    return rows.filter(Q(**{f"{path}owner": who.project}) | Q(**{f"{path}lessee": who.project}))


def sees_all_of(request: Request, owners: Owners) -> bool:
    """Whether REDACTED fields of a node are shown."""
    return request.identity.unrestricted or system_or_owner_reader(request.identity, owners)


def redacted(field: str) -> Any:
    words = f"** Redacted - requires baremetal:node:get:{field} permission. **"
    return {"content": words} if field.startswith("driver_") else words


_PATHS: Mapping[type[Model], str] = {
    NodeRow: "",
    AllocationRow: "",
    RunbookRow: "",
    **dict.fromkeys((PortRow, PortgroupRow, VolumeConnectorRow, VolumeTargetRow), "node__"),
}
_MODELS: Mapping[str, type[Model]] = {
    "nodes": NodeRow,
    "ports": PortRow,
    "portgroups": PortgroupRow,
    "volume/connectors": VolumeConnectorRow,
    "volume/targets": VolumeTargetRow,
    "allocations": AllocationRow,
    "runbooks": RunbookRow,
}


def _owners(request: Request, pattern: str, given: Collection[str]) -> Owners:
    """Whose the thing is that the path names, or the node that the body or the query names."""
    kind = next((kind for kind in _MODELS if pattern.startswith(f"{kind}/{{}}")), None)
    if kind is not None:
        return _owners_of(_MODELS[kind], next(iter(given)))
    named = request.query.get("node") or request.query.get("node_uuid")
    if request.method == "POST" and pattern not in ("allocations", "runbooks"):
        body = request.json()
        named = body.get("node_uuid") if isinstance(body, dict) else None
    return _owners_of(NodeRow, str(named)) if named else Owners()


def _owners_of(model: type[Model], reference: str) -> Owners:
    """Nobody's where there is no such thing: the view says so then."""
    same = {"uuid": reference} if checks.is_uuid(reference) else {_NAMES.get(model, "uuid"): reference}
    if "uuid" in same and not checks.is_uuid(reference):
        return Owners()
    path = _PATHS[model]
    columns = (f"{path}owner",) if model in (AllocationRow, RunbookRow) else (f"{path}owner", f"{path}lessee")
    row = model._default_manager.filter(**same).values_list(*columns).first()
    return Owners(*row) if row else Owners()


_NAMES: Mapping[type[Model], str] = {
    NodeRow: "name", PortRow: "alias", PortgroupRow: "name", AllocationRow: "name", RunbookRow: "name",
}  # fmt: skip


def _is_public(runbook: str) -> bool:
    same = {"uuid": runbook} if checks.is_uuid(runbook) else {"name": runbook}
    return RunbookRow.objects.filter(public=True, **same).exists()


def _sees(who: Identity, pattern: str, owners: Owners, name: str) -> bool:
    """Whether the asker may know that there is such a thing."""
    if "{}" not in pattern or (pattern.startswith("runbooks/") and _is_public(name)):
        return True
    reader = allocation_reader if pattern.startswith(("allocations", "runbooks")) else system_or_project_reader
    return reader(who, owners)


def _enforce_creation(request: Request, who: Identity) -> None:
    """An admin of a project makes nodes of that project."""
    if system_admin(who, Owners()) or (who.is_service and who.system):
        return
    if not admin_somewhere(who, Owners()) or who.project is None:
        _refuse(request, "nodes", seen=True)
    body = request.document()
    if body.setdefault("owner", who.project) != who.project:
        raise Refused(403, "Cannot create a node with a project scoped context and another project as its owner.")
    request.parsed = body


def _refuse(request: Request, pattern: str, *, seen: bool, name: str = "") -> NoReturn:
    if not seen:
        raise Refused(
            404, f"{pattern.split('/', maxsplit=1)[0].rstrip('s').capitalize()} {name[:80]} could not be found."
        )
    verb = {"GET": "get", "POST": "create", "PATCH": "update", "DELETE": "delete"}.get(request.method, "set")
    raise Refused(403, f"Access was denied to the following resource: baremetal:{pattern.replace('/{}', '')}:{verb}")
