"""What belongs to one node besides its states: traits, VIFs, boot device, history, inventory, media, children …"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db import transaction

from koguma.api.ironic import checks
from koguma.api.ironic.http import NO_CONTENT, Request, Response, bad, conflict, links, missing, not_acceptable, truth
from koguma.api.ironic.inventories import of_registration
from koguma.api.ironic.nodes import node_row
from koguma.api.ironic.workers import hosts
from koguma.db.documents import Row
from koguma.db.models import NetworkRow, NodeRow, StepRow
from koguma.model.hardware import FAKE, KINDS, SWITCHED, effective_interface, hardware_type

TRAITS_MAX = 50
TRAITS_SINCE = 37


def change(reference: str, column: str, edit: Callable[[Any], Any]) -> None:
    """Store what `edit` makes of the column as it is at that moment."""
    row = node_row(reference)
    with transaction.atomic():
        rows = NodeRow.objects.filter(pk=row["id"])
        before = rows.select_for_update(no_key=True).values_list(column, flat=True).first()
        rows.update(**{column: edit(before)})


def show_traits(request: Request, reference: str) -> Response:
    _traits_since(request)
    return Response(document={"traits": node_row(reference, "traits")["traits"]})


def put_traits(request: Request, reference: str) -> Response:
    _traits_since(request)
    body = request.document()
    if set(body) != {"traits"} or body["traits"] is None:
        bad(
            "A single node trait may be added via PUT /v1/nodes/<node identifier>/traits/<trait> with no body,"
            " or all node traits may be replaced via PUT /v1/nodes/<node identifier>/traits with the list of traits"
        )
    traits = list(dict.fromkeys(checks.traits("traits", body["traits"])))
    _check_count(traits)
    change(reference, "traits", lambda _: traits)
    return NO_CONTENT


def put_trait(request: Request, reference: str, trait: str) -> Response:
    _traits_since(request)
    if unknown := sorted(request.document()):
        bad(f"one trait is put without a body, got {', '.join(unknown)[:80]}")
    checks.trait("trait", trait)

    def edit(before: list[str]) -> list[str]:
        _check_count(after := before if trait in before else [*before, trait])
        return after

    change(reference, "traits", edit)
    return Response(204, None, {"Location": f"{request.url}/v1/nodes/{reference}/traits/{trait}"})


def delete_traits(request: Request, reference: str) -> Response:
    _traits_since(request)
    change(reference, "traits", lambda _: [])
    return NO_CONTENT


def delete_trait(request: Request, reference: str, trait: str) -> Response:
    _traits_since(request)

    def edit(before: list[str]) -> list[str]:
        if trait not in before:
            missing(f"Node {reference} doesn't have a trait '{trait[:80]}'")
        return [item for item in before if item != trait]

    change(reference, "traits", edit)
    return NO_CONTENT


def _traits_since(request: Request) -> None:
    if request.minor < TRAITS_SINCE:
        not_acceptable()


def _check_count(traits: list[str]) -> None:
    if len(traits) > TRAITS_MAX:
        bad(f"a node has at most {TRAITS_MAX} traits, got {len(traits)}")


def list_vifs(request: Request, reference: str) -> Response:
    request.at_least(28)
    row = node_row(reference, "vifs")
    return Response(document={"vifs": [{"id": item["id"]} for item in row["vifs"]]})


def attach_vif(request: Request, reference: str) -> Response:
    request.at_least(28)
    body = request.document()
    vif = body.get("id")
    if not isinstance(vif, str) or not (checks.is_uuid(vif) or checks.logical_name("id", vif)):
        bad("Missing mandatory parameter: id")
    if request.minor < 67 and {"port_uuid", "portgroup_uuid"} & body.keys():
        bad("port_uuid and portgroup_uuid need API version 1.67 or newer")
    if {"port_uuid", "portgroup_uuid"} <= body.keys():
        bad("Cannot specify both port_uuid and portgroup_uuid at the same time")
    row = node_row(reference, "bmc_driver", "interfaces")
    kind = effective_interface(row["bmc_driver"], "network", row["interfaces"])
    if kind == "noop":
        return NO_CONTENT
    if kind == SWITCHED and not NetworkRow.objects.filter(name=vif).exclude(vlan=0).exclude(purpose="provisioning"):
        bad(f"VIF {vif[:80]} must be a network of Koguma with a VLAN that nodes can be handed over to")

    def edit(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if any(item["id"] == vif for item in before):
            conflict(f"Unable to attach VIF because VIF {vif} is already attached to this node")
        return [*before, body]

    change(reference, "vifs", edit)
    return NO_CONTENT


def detach_vif(request: Request, reference: str, vif: str) -> Response:
    request.at_least(28)
    row = node_row(reference, "bmc_driver", "interfaces")
    if effective_interface(row["bmc_driver"], "network", row["interfaces"]) == "noop":
        return NO_CONTENT

    def edit(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if all(item["id"] != vif for item in before):
            bad(f"VIF {vif[:80]} is not attached to node {reference}")
        return [item for item in before if item["id"] != vif]

    change(reference, "vifs", edit)
    return NO_CONTENT


_STATES = ["BLINKING", "OFF", "ON"]
_INDICATORS: dict[str, dict[str, dict[str, Any]]] = {
    "chassis": {"led": {"readonly": False, "states": _STATES}},
    "system": {"led": {"readonly": False, "states": _STATES}},
}
"""What fake hardware has."""


def list_indicators(request: Request, reference: str) -> Response:
    request.at_least(63)
    row = node_row(reference, "bmc_driver")
    known = _INDICATORS if _is_fake(row) else {}
    found = [
        {
            "name": f"{name}@{component}",
            "component": component,
            **about,
            "links": links(request, "nodes", f"{row['uuid']}/management/indicators/{name}@{component}"),
        }
        for component, indicators in known.items()
        for name, about in indicators.items()
    ]
    return Response(document={"indicators": found})


def show_indicator(request: Request, reference: str, indicator: str) -> Response:
    request.at_least(63)
    row = _indicator(reference, indicator)
    return Response(document={"state": row["driver_internal_info"].get(f"indicator {indicator}", "ON")})


def put_indicator(request: Request, reference: str, indicator: str) -> Response:
    request.at_least(63)
    state = request.document().get("state", request.query.get("state"))
    checks.one_of("ON", "OFF", "BLINKING", "UNKNOWN")("state", state)
    _indicator(reference, indicator)
    change(reference, "driver_internal_info", lambda before: {**before, f"indicator {indicator}": state})
    return NO_CONTENT


def _indicator(reference: str, indicator: str) -> Row:
    row = node_row(reference, "bmc_driver", "driver_internal_info")
    name, _, component = indicator.partition("@")
    if not _is_fake(row) or name not in _INDICATORS.get(component, {}):
        missing(f"Indicator {indicator[:80]} could not be found on node {row['uuid']}.")
    return row


def _is_fake(row: Row) -> bool:
    return effective_interface(row["bmc_driver"], "management", {}) == FAKE


def show_console(request: Request, reference: str) -> Response:
    request.only()
    row = node_row(reference, "console_enabled")
    if not row["console_enabled"]:
        bad(f"Console access is not enabled on node {row['uuid']}.")
    return Response(document={"console_enabled": True, "console_info": {}})


def put_console(request: Request, reference: str) -> Response:
    enabled = truth({**request.query, **request.document()}.get("enabled"), "enabled")
    row = node_row(reference, "bmc_driver", "interfaces")
    if effective_interface(row["bmc_driver"], "console", row["interfaces"]) == "no-console":
        bad("This node's console interface is no-console.")
    change(reference, "console_enabled", lambda _: enabled)
    return Response(202, None, {"Location": f"{request.url}/v1/nodes/{reference}/states/console"})


def validate(_request: Request, reference: str) -> Response:
    """Whether each interface has what it needs; an interface that does nothing has no result."""
    row = node_row(reference, "bmc_driver", "bmc_address", "driver_info", "interfaces")
    hardware = hardware_type(row["bmc_driver"])
    told = {**row["driver_info"], f"{hardware.bmc_prefix}_address": row["bmc_address"]}
    absent = [name for name in hardware.required if not told.get(name)]
    document: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        name = effective_interface(row["bmc_driver"], kind, row["interfaces"])
        if name == f"no-{kind}":
            document[kind] = {"result": False, "reason": f"not supported: the {kind} interface is {name}"}
        elif absent and kind in ("power", "management"):
            document[kind] = {"result": False, "reason": f"driver_info lacks {', '.join(absent)}"}
        else:
            document[kind] = {"result": True}
    return Response(document=document)


def list_children(request: Request, reference: str) -> Response:
    request.at_least(83)
    row = node_row(reference)
    uuids = NodeRow.objects.filter(parent=row["id"]).order_by("id").values_list("uuid", flat=True)
    return Response(document={"children": [str(uuid) for uuid in uuids]})


def show_inventory(request: Request, reference: str) -> Response:
    request.at_least(81)
    row = node_row(reference, "inspection_data", "inventory")
    if row["inspection_data"]:
        return Response(document=row["inspection_data"])
    if not row["inventory"]:
        missing(f"Node {row['uuid']} inventory could not be found.")
    node = NodeRow.objects.prefetch_related("ports").get(pk=row["id"])
    return Response(document={"inventory": of_registration(node), "plugin_data": {}})


def list_history(request: Request, reference: str) -> Response:
    request.at_least(78)
    request.only("detail", "limit", "marker")
    row = node_row(reference)
    events = [(_event_uuid(step.pk), step) for step in _steps(row)]
    if "marker" in request.query:
        names = [uuid for uuid, _ in events]
        if request.query["marker"] not in names:
            missing(f"History record {request.query['marker'][:40]} could not be found.")
        events = events[names.index(request.query["marker"]) + 1 :]
    limit = int(request.query.get("limit", "0") or 0) if request.query.get("limit", "0").isdigit() else 0
    detail = bool(request.flag("detail"))
    shown_events = [_event(request, row, uuid, step, detail=detail) for uuid, step in events[: limit or 1000]]
    return Response(document={"history": shown_events})


def show_event(request: Request, reference: str, event: str) -> Response:
    request.at_least(78)
    row = node_row(reference)
    step = next((step for step in _steps(row) if _event_uuid(step.pk) == event), None)
    if step is None:
        missing(f"History record {event[:40]} could not be found.")
    return Response(document=_event(request, row, event, step, detail=True))


def _steps(row: Row) -> list[StepRow]:
    """What failed, and what ended."""
    return list(StepRow.objects.filter(node=row["id"]).exclude(outcome="running").order_by("-pk")[:500])


def _event_uuid(pk: int) -> str:
    return str(uuid5(UUID(int=NAMESPACE_URL.int), f"koguma step {pk}"))


def _event(request: Request, row: Row, uuid: str, step: StepRow, *, detail: bool) -> dict[str, Any]:
    failed = step.outcome == "failed"
    text = f"{step.flow}: {step.step}" + (f": {step.reason}" if step.reason else f": {step.outcome}")
    event: dict[str, Any] = {
        "uuid": uuid,
        "created_at": (step.finished_at or step.started_at).isoformat(),
        "severity": "ERROR" if failed else "INFO",
        "event": text if detail else text[:255],
    }
    if detail:
        event |= {"conductor": hosts().of(""), "event_type": "provisioning", "user": None}
        if request.minor >= 113:
            event["project"] = None
        if request.minor >= 115:
            took = (step.finished_at - step.started_at).total_seconds() if step.finished_at else None
            event |= {"state": None, "target_provision_state": None, "duration_seconds": took}
    event["links"] = links(request, "nodes", f"{row['uuid']}/history/{uuid}")[:1]
    return event


def vendor_methods(request: Request, reference: str) -> Response:
    request.only()
    node_row(reference)
    return Response(document={})


def vendor_call(request: Request, reference: str) -> Response:
    row = node_row(reference, "bmc_driver")
    method = request.query.get("method", "")
    bad(f"Driver {row['bmc_driver']} has no vendor method {method[:40]!r}.")
