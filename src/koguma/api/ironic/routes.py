"""Which function answers which path below /v1. `{}` stands for one part of the path, given to the function."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import Count

from koguma.api.ironic import (
    allocations,
    checks,
    hardware,
    management,
    node_parts,
    node_writing,
    plain,
    ports,
    ramdisk,
    runbooks,
    states,
    versions,
    workers,
)
from koguma.api.ironic.allocations import ALLOCATIONS
from koguma.api.ironic.http import NO_CONTENT, Refused, Request, Response, bad, links
from koguma.api.ironic.nodes import NODES, list_nodes, node_row, shown_node
from koguma.api.ironic.patching import patch_of, touched
from koguma.api.ironic.plain import CHASSIS, PORTGROUPS
from koguma.api.ironic.policy import PUBLIC, Owners, enforce, enforce_fields
from koguma.api.ironic.ports import PORTS
from koguma.api.ironic.resource import Resource
from koguma.db import nodes as node_store
from koguma.db.models import NodeRow, PortgroupRow, PortRow, VolumeConnectorRow, VolumeTargetRow
from koguma.model.states import ProvisionState as S

View = Callable[..., Response]

NAMES_SINCE = 5
"""Before this microversion a node is called by its UUID only."""

DELETABLE = frozenset({S.ENROLL, S.MANAGEABLE, S.AVAILABLE, S.ADOPT_FAILED})


def _v1(request: Request) -> Response:
    return Response(document=versions.v1(request))


def _create_node(request: Request) -> Response:
    uuid = node_writing.create(request)
    return Response(201, shown_node(request, uuid), {"Location": f"{request.url}/v1/nodes/{uuid}"})


def _patch_node(request: Request, reference: str) -> Response:
    if not request.identity.unrestricted:
        row = node_row(reference, "owner", "lessee")
        patch = patch_of(request, NODES.fields)
        enforce_fields(request, touched(patch), Owners(row["owner"], row["lessee"]))
    return NODES.changed(request, reference)


def _delete_node(request: Request, reference: str) -> Response:
    request.only()
    columns = ("provision_state", "maintenance", "instance_uuid", "protected", "work__operation_id")
    row = node_row(reference, *columns)
    name = row["uuid"]
    if row["work__operation_id"]:
        raise Refused(409, f"Node {name} is locked by another operation, please retry after it has ended.")
    if row["protected"]:
        raise Refused(403, f"Node {name} is protected and can not be deleted.")
    if row["instance_uuid"] and not row["maintenance"]:
        raise Refused(409, f"Node {name} is associated with instance {row['instance_uuid']}.")
    if row["provision_state"] not in DELETABLE and not row["maintenance"]:
        raise Refused(409, f"Can not delete node {name} while it is in provision state {row['provision_state']!r}.")
    node_store.delete(str(name), force=True)
    return NO_CONTENT


def _validate_node(request: Request) -> Response:
    reference = request.query.get("node") or request.query.get("node_uuid") or bad("Missing parameter: node")
    return node_parts.validate(request, reference)


def _ports_of_node(request: Request, reference: str, *, detail: bool = False) -> Response:
    row = node_row(reference)
    rows = PortRow.objects.filter(node=row["id"])
    return PORTS.listed(request, rows=rows, detail=detail, place=f"nodes/{reference}/ports")


def _portgroups_of_node(request: Request, reference: str, *, detail: bool = False) -> Response:
    request.at_least(24)
    row = node_row(reference)
    rows = PortgroupRow.objects.filter(node=row["id"])
    return PORTGROUPS.listed(request, rows=rows, detail=detail, place=f"nodes/{reference}/portgroups")


def _ports_of_portgroup(request: Request, reference: str, *, detail: bool = False) -> Response:
    request.at_least(24)
    group = PORTGROUPS.find(reference)
    rows = PortRow.objects.filter(portgroup=group["id"])
    return PORTS.listed(request, rows=rows, detail=detail, place=f"portgroups/{reference}/ports")


def _nodes_of_chassis(request: Request, reference: str, *, detail: bool = False) -> Response:
    rows = NodeRow.objects.filter(chassis=CHASSIS.find(reference)["id"])
    return list_nodes(request, rows=rows, detail=detail, place=f"chassis/{reference}/nodes")


def _volume_root(request: Request) -> Response:
    request.at_least(32)
    link = {kind: [{"href": f"{request.url}/v1/volume/{kind}/", "rel": "self"},
                   {"href": f"{request.url}/volume/{kind}/", "rel": "bookmark"}]
            for kind in ("connectors", "targets")}  # fmt: skip
    return Response(document={**link, "links": [{"href": f"{request.url}/v1/volume/", "rel": "self"}]})


def _volume_of_node(request: Request, reference: str) -> Response:
    request.at_least(32)
    node_row(reference)
    place = f"nodes/{reference}/volume"
    link = {kind: links(request, place, f"{kind}/") for kind in ("connectors", "targets")}
    return Response(document={**link, "links": links(request, place, "")})


def _connectors_of_node(request: Request, reference: str) -> Response:
    rows = VolumeConnectorRow.objects.filter(node=node_row(reference)["id"])
    return plain.VOLUME_CONNECTORS.listed(request, rows=rows, place=f"nodes/{reference}/volume/connectors")


def _targets_of_node(request: Request, reference: str) -> Response:
    rows = VolumeTargetRow.objects.filter(node=node_row(reference)["id"])
    return plain.VOLUME_TARGETS.listed(request, rows=rows, place=f"nodes/{reference}/volume/targets")


def _list_shards(request: Request) -> Response:
    request.at_least(82)
    found = NodeRow.objects.exclude(shard=None).values("shard").annotate(count=Count("id")).order_by("-count")
    return Response(document={"shards": [{"name": row["shard"], "count": row["count"]} for row in found]})


EVENTS = frozenset(f"network.{verb}_port" for verb in ("bind", "unbind", "delete"))


def _events(request: Request) -> Response:
    """External events are taken and checked; what happens to a node is seen by its own steps."""
    request.at_least(54)
    events = request.document().get("events")
    if not isinstance(events, list) or not events:
        bad("events must be a list of at least one event")
    for event in events:
        if not isinstance(event, dict) or event.get("event") not in EVENTS:
            bad(f"an event must be an object whose event is one of {', '.join(sorted(EVENTS))}")
    return NO_CONTENT


def _crud(resource: Resource) -> list[tuple[str, str, View]]:
    path = resource.path
    return [
        ("GET", path, resource.listed),
        ("POST", path, resource.created),
        ("GET", f"{path}/{{}}", resource.shown),
        ("PATCH", f"{path}/{{}}", resource.changed),
        ("DELETE", f"{path}/{{}}", resource.deleted),
    ]


def _detail(view: Callable[..., Response]) -> View:
    return lambda request: view(request, detail=True)


def _detail_of(view: Callable[..., Response]) -> View:
    return lambda request, reference: view(request, reference, detail=True)


ROUTES: list[tuple[str, str, View]] = [
    ("GET", "", _v1),
    ("GET", "nodes", list_nodes),
    ("GET", "nodes/detail", _detail(list_nodes)),
    ("GET", "nodes/validate", _validate_node),
    ("POST", "nodes", _create_node),
    ("GET", "nodes/{}", NODES.shown),
    ("PATCH", "nodes/{}", _patch_node),
    ("DELETE", "nodes/{}", _delete_node),
    ("GET", "nodes/{}/validate", node_parts.validate),
    ("GET", "nodes/{}/states", states.show_states),
    ("PUT", "nodes/{}/states/power", states.put_power),
    ("PUT", "nodes/{}/states/provision", states.put_provision),
    ("PUT", "nodes/{}/states/raid", states.put_raid),
    ("PUT", "nodes/{}/states/boot_mode", states.put_boot_mode),
    ("PUT", "nodes/{}/states/secure_boot", states.put_secure_boot),
    ("GET", "nodes/{}/states/console", node_parts.show_console),
    ("PUT", "nodes/{}/states/console", node_parts.put_console),
    ("PUT", "nodes/{}/maintenance", states.put_maintenance),
    ("DELETE", "nodes/{}/maintenance", states.delete_maintenance),
    ("GET", "nodes/{}/management/boot_device", management.show_boot_device),
    ("PUT", "nodes/{}/management/boot_device", management.put_boot_device),
    ("GET", "nodes/{}/management/boot_device/supported", management.supported_boot_devices),
    ("PUT", "nodes/{}/management/inject_nmi", management.inject_nmi),
    ("GET", "nodes/{}/management/indicators", node_parts.list_indicators),
    ("GET", "nodes/{}/management/indicators/{}", node_parts.show_indicator),
    ("PUT", "nodes/{}/management/indicators/{}", node_parts.put_indicator),
    ("GET", "nodes/{}/traits", node_parts.show_traits),
    ("PUT", "nodes/{}/traits", node_parts.put_traits),
    ("DELETE", "nodes/{}/traits", node_parts.delete_traits),
    ("PUT", "nodes/{}/traits/{}", node_parts.put_trait),
    ("DELETE", "nodes/{}/traits/{}", node_parts.delete_trait),
    ("GET", "nodes/{}/vifs", node_parts.list_vifs),
    ("POST", "nodes/{}/vifs", node_parts.attach_vif),
    ("DELETE", "nodes/{}/vifs/{}", node_parts.detach_vif),
    ("GET", "nodes/{}/vmedia", management.list_media),
    ("POST", "nodes/{}/vmedia", management.attach_media),
    ("DELETE", "nodes/{}/vmedia", management.detach_media),
    ("GET", "nodes/{}/bios", management.show_bios),
    ("GET", "nodes/{}/bios/{}", management.show_bios_setting),
    ("GET", "nodes/{}/firmware", management.show_firmware),
    ("GET", "nodes/{}/history", node_parts.list_history),
    ("GET", "nodes/{}/history/{}", node_parts.show_event),
    ("GET", "nodes/{}/inventory", node_parts.show_inventory),
    ("GET", "nodes/{}/children", node_parts.list_children),
    ("GET", "nodes/{}/allocation", allocations.show_of_node),
    ("DELETE", "nodes/{}/allocation", allocations.delete_of_node),
    ("GET", "nodes/{}/ports", _ports_of_node),
    ("GET", "nodes/{}/ports/detail", _detail_of(_ports_of_node)),
    ("GET", "nodes/{}/portgroups", _portgroups_of_node),
    ("GET", "nodes/{}/portgroups/detail", _detail_of(_portgroups_of_node)),
    ("GET", "nodes/{}/volume", _volume_of_node),
    ("GET", "nodes/{}/volume/connectors", _connectors_of_node),
    ("GET", "nodes/{}/volume/targets", _targets_of_node),
    ("GET", "nodes/{}/vendor_passthru/methods", node_parts.vendor_methods),
    *((method, "nodes/{}/vendor_passthru", node_parts.vendor_call) for method in ("GET", "POST", "PUT", "DELETE")),
    ("GET", "ports/detail", _detail(ports.list_ports)),
    *_crud(PORTS),
    ("GET", "portgroups/detail", _detail(PORTGROUPS.listed)),
    *_crud(PORTGROUPS),
    ("GET", "portgroups/{}/ports", _ports_of_portgroup),
    ("GET", "portgroups/{}/ports/detail", _detail_of(_ports_of_portgroup)),
    ("GET", "chassis/detail", _detail(CHASSIS.listed)),
    *_crud(CHASSIS),
    ("GET", "chassis/{}/nodes", _nodes_of_chassis),
    ("GET", "chassis/{}/nodes/detail", _detail_of(_nodes_of_chassis)),
    ("GET", "allocations", ALLOCATIONS.listed),
    ("POST", "allocations", allocations.create),
    ("GET", "allocations/{}", ALLOCATIONS.shown),
    ("PATCH", "allocations/{}", ALLOCATIONS.changed),
    ("DELETE", "allocations/{}", allocations.delete),
    *_crud(plain.DEPLOY_TEMPLATES),
    *_crud(plain.RUNBOOKS),
    ("GET", "runbooks/{}/traits", runbooks.show_traits),
    ("PUT", "runbooks/{}/traits", runbooks.put_traits),
    ("DELETE", "runbooks/{}/traits", runbooks.delete_traits),
    ("PUT", "runbooks/{}/traits/{}", runbooks.put_trait),
    ("DELETE", "runbooks/{}/traits/{}", runbooks.delete_trait),
    *_crud(plain.INSPECTION_RULES),
    ("GET", "volume", _volume_root),
    *_crud(plain.VOLUME_CONNECTORS),
    *_crud(plain.VOLUME_TARGETS),
    ("GET", "drivers", hardware.list_drivers),
    ("GET", "drivers/properties", hardware.list_driver_properties),
    ("GET", "drivers/{}", hardware.show_driver),
    ("GET", "drivers/{}/properties", hardware.driver_properties),
    ("GET", "drivers/{}/raid/logical_disk_properties", hardware.logical_disk_properties),
    ("GET", "drivers/{}/vendor_passthru/methods", hardware.vendor_methods),
    *((method, "drivers/{}/vendor_passthru", hardware.vendor_call) for method in ("GET", "POST", "PUT", "DELETE")),
    ("GET", "conductors", workers.list_conductors),
    ("GET", "conductors/{}", workers.show_conductor),
    ("GET", "shards", _list_shards),
    ("GET", "lookup", ramdisk.lookup),
    ("POST", "heartbeat/{}", ramdisk.heartbeat),
    ("POST", "continue_inspection", ramdisk.continue_inspection),
    ("POST", "events", _events),
]

_BY_LENGTH: dict[int, list[tuple[list[str], str, View]]] = {}
for _method, _pattern, _view in ROUTES:
    _parts = _pattern.split("/") if _pattern else []
    _BY_LENGTH.setdefault(len(_parts), []).append((_parts, _method, _view))


def is_public(parts: list[str]) -> bool:
    """Whether a path below /v1 is answered to everybody: agents in machines have no account."""
    return "/".join(["{}" if number else part for number, part in enumerate(parts)]) in PUBLIC


def dispatch(request: Request, parts: list[str]) -> Response:
    """The answer to a path below /v1. Raises Refused: 404 for an unknown path, 405 for an unknown method."""
    methods: set[str] = set()
    asked = "GET" if request.method == "HEAD" else request.method
    for pattern, method, view in _BY_LENGTH.get(len(parts), ()):
        if all(wanted in ("{}", given) for wanted, given in zip(pattern, parts, strict=True)):
            if method == asked:
                given_parts = [given for wanted, given in zip(pattern, parts, strict=True) if wanted == "{}"]
                if pattern[:2] == ["nodes", "{}"] and request.minor < NAMES_SINCE and not checks.is_uuid(parts[1]):
                    raise Refused(404, f"Node {parts[1][:80]} could not be found.")
                enforce(request, "/".join(pattern), given_parts)
                return view(request, *given_parts)
            methods.add(method)
    if methods:
        raise Refused(405, f"{request.method} is not possible here, possible: {', '.join(sorted(methods))}")
    raise Refused(404, "The resource could not be found.")
