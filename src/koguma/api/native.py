"""The native API under /api/v1 (OpenAPI at /api/v1/openapi.json): nodes, flavors, networks, events.

Every view is synchronous and runs in a thread, so a slow query holds up nobody else. ETags are row versions: send one
back as If-Match and the change is refused when somebody else was faster.
"""

# ruff: noqa: ARG001 - django-ninja passes the request by this name, to views that do not look at it too

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI, Query
from ninja.errors import ValidationError as NinjaValidationError

from koguma.api import views
from koguma.api.errors import BadReference, PreconditionRequired, database_away, status_of
from koguma.api.events import kinds_of, node_of
from koguma.api.schemas import (
    AccessBody,
    BondBody,
    BootLabelBody,
    FlavorBody,
    FlavorCreate,
    FlavorPatch,
    NetworkBody,
    NetworkCreate,
    NetworkPatch,
    NodeCreate,
    NodePatch,
    PowerBody,
    ProvisionBody,
    ReplacementBody,
    ReservationBody,
    SwitchCreate,
    SwitchPatch,
    VlanBody,
    WebhookCreate,
    WebhookPatch,
)
from koguma.db import addresses, catalog, events, nodes, registrations, switches, webhooks
from koguma.db.models import WebhookRow
from koguma.db.sealing import hashed_password
from koguma.errors import KogumaError
from koguma.lifecycle.errors import VerbRefused
from koguma.model import names
from koguma.model.flavor import Flavor, Template
from koguma.model.layout import Access, Bond, Layout, Vlan
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.states import PowerAction, ProvisionState, Verb
from koguma.model.subnet import Reservation, Subnet
from koguma.model.switch import Switch

PAGE_MAX = 1000

api = NinjaAPI(title="Koguma", version="1", urls_namespace="native", docs_url=None)


@api.exception_handler(KogumaError)
def _domain_error(request: HttpRequest, error: Exception) -> HttpResponse:
    status = status_of(error) if isinstance(error, KogumaError) else 500
    return JsonResponse({"error": str(error)}, status=status)


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
def _database_away(request: HttpRequest, error: Exception) -> HttpResponse:
    return database_away(error)


@api.exception_handler(NinjaValidationError)
def _invalid(request: HttpRequest, error: Exception) -> HttpResponse:
    faults = [_fault(item) for item in getattr(error, "errors", [])[:3]]
    return JsonResponse({"error": "; ".join(faults)}, status=422)


def _fault(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path")) or "body"
    return f"{str(item['msg']).removeprefix('Value error, ')} ({place})"


@api.get("/health")
def health(request: HttpRequest) -> HttpResponse:
    """200 only when the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


@api.get("/nodes")
def list_nodes(
    request: HttpRequest,
    provision_state: str | None = None,
    flavor: str | None = None,
    limit: int = Query(PAGE_MAX, ge=1, le=PAGE_MAX),  # type: ignore[type-arg]
    after: str | None = None,
) -> HttpResponse:
    """Nodes by name, at most `limit`; the header `Link` (rel="next") leads to the next page."""
    if provision_state is not None and provision_state not in {state.value for state in ProvisionState}:
        raise BadReference(f"provision_state must be one of Ironic's states, got {names.shown(provision_state)}")
    found = nodes.listed(state=provision_state, flavor=flavor, after=after, limit=limit + 1)
    page = found[:limit]
    flavors = _flavors()
    response = _list([views.node_json(node, flavors.get(node.flavor or "")) for node in page])
    if len(found) > limit:
        query = request.GET.copy()
        query["after"], query["limit"] = page[-1].name, str(limit)
        response["Link"] = f'<{request.path}?{query.urlencode()}>; rel="next"'
    return response


@api.post("/nodes")
def create_node(request: HttpRequest, body: NodeCreate) -> HttpResponse:
    """A node that did not register by itself."""
    return _node(registrations.create_by_hand(body.model_dump()), status=201)


@api.get("/nodes/{reference}")
def get_node(request: HttpRequest, reference: str) -> HttpResponse:
    return _node(nodes.find(reference))


@api.patch("/nodes/{reference}")
def patch_node(request: HttpRequest, reference: str, body: NodePatch) -> HttpResponse:
    values = {key: value for key, value in body.model_dump().items() if key in body.model_fields_set}
    never_null = {"name", "maintenance", "maintenance_reason", "kexec", "variables", "networks"}
    if wrong := next((key for key in values if key in never_null and values[key] is None), None):
        raise BadReference(f"{wrong} must not be null")
    return _node(nodes.patch(reference, values, _if_match(request)))


@api.delete("/nodes/{reference}")
def delete_node(request: HttpRequest, reference: str, force: bool = False) -> HttpResponse:
    """`force` forgets a node that is in use, too."""
    nodes.delete(reference, _if_match(request), force=force)
    return HttpResponse(status=204)


@api.get("/nodes/{reference}/boots")
def list_boots(
    request: HttpRequest,
    reference: str,
    limit: int = Query(50, ge=1, le=PAGE_MAX),  # type: ignore[type-arg]
) -> HttpResponse:
    """Boots, newest first."""
    return _list([views.boot_json(boot) for boot in nodes.boots(reference, limit)])


@api.get("/nodes/{reference}/history")
def list_steps(
    request: HttpRequest,
    reference: str,
    limit: int = Query(100, ge=1, le=PAGE_MAX),  # type: ignore[type-arg]
) -> HttpResponse:
    """Steps, newest first."""
    return _list([views.step_json(step) for step in nodes.steps(reference, limit)])


@api.put("/nodes/{reference}/power")
def put_power(request: HttpRequest, reference: str, body: PowerBody) -> HttpResponse:
    return _node(nodes.request_power(reference, PowerAction(body.target), _if_match(request)), status=202)


@api.post("/nodes/{reference}/replacement")
def post_replacement(request: HttpRequest, reference: str, body: ReplacementBody) -> HttpResponse:
    """Another machine takes the node's place."""
    return _node(nodes.request_replacement(reference, body.with_node, _if_match(request)), status=202)


@api.put("/nodes/{reference}/provision")
def put_provision(request: HttpRequest, reference: str, body: ProvisionBody) -> HttpResponse:
    verb = Verb.parse(body.target)
    if verb is None:
        possible = ", ".join(verb.value for verb in Verb)
        raise VerbRefused(f"a verb must be one of {possible}, got {names.shown(body.target)}")
    columns = {"rescue_password_hash": hashed_password(body.rescue_password)} if body.rescue_password else {}
    if columns and verb is not Verb.RESCUE:
        raise VerbRefused(f"a rescue password comes with rescue, got {verb.value}")
    return _node(nodes.request_verb(reference, verb, _if_match(request), columns=columns), status=202)


@api.put("/nodes/{reference}/boot")
def put_boot_label(request: HttpRequest, reference: str, body: BootLabelBody) -> HttpResponse:
    """What the node boots from now on, or once; null takes the flavor's label again."""
    version = _if_match(request)
    return _node(nodes.set_boot_label(reference, body.label, version, once=body.once, reboot=body.reboot), status=202)


@api.get("/events")
def list_events(
    request: HttpRequest,
    after: str | None = None,
    limit: int = Query(100, ge=1, le=PAGE_MAX),  # type: ignore[type-arg]
    kind: str | None = None,
    node: str | None = None,
) -> HttpResponse:
    """Transitions of nodes, oldest first, those after the event `after`; the last one's id leads to the next page.
    With `Accept: text/event-stream` they come as they happen, from `Last-Event-ID` on.
    """
    place = events.Place.parse(after) if after else events.BEGINNING
    found = events.after(place, limit, kinds=kinds_of(kind), node=node_of(node))
    return _list([event for _, event in found])


@api.get("/webhooks")
def list_webhooks(request: HttpRequest) -> HttpResponse:
    """Who is told of events over HTTP, how far that is, and what went wrong."""
    return _list([webhooks.shown(row) for row in WebhookRow.objects.order_by("name")])


@api.post("/webhooks")
def create_webhook(request: HttpRequest, body: WebhookCreate) -> HttpResponse:
    """Its receiver is told of what happens from now on, and gets the same secret by another way."""
    row = webhooks.create(body.name, body.url, body.secret, body.kinds)
    return JsonResponse(webhooks.shown(row), status=201)


@api.get("/webhooks/{name}")
def get_webhook(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse(webhooks.shown(webhooks.find(name)))


@api.patch("/webhooks/{name}")
def patch_webhook(request: HttpRequest, name: str, body: WebhookPatch) -> HttpResponse:
    return JsonResponse(webhooks.shown(webhooks.change(name, url=body.url, kinds=body.kinds, enabled=body.enabled)))


@api.delete("/webhooks/{name}")
def delete_webhook(request: HttpRequest, name: str) -> HttpResponse:
    webhooks.remove(name)
    return HttpResponse(status=204)


@api.get("/flavors")
def list_flavors(request: HttpRequest) -> HttpResponse:
    return _list([views.flavor_json(flavor) for flavor in catalog.flavors()])


@api.post("/flavors")
def create_flavor(request: HttpRequest, body: FlavorCreate) -> HttpResponse:
    """The label is the flavor's name where none is given."""
    return _flavor(catalog.create_flavor(_flavor_of(body.name, body)), status=201)


@api.get("/flavors/{name}")
def get_flavor(request: HttpRequest, name: str) -> HttpResponse:
    return _flavor(catalog.flavor(name))


@api.put("/flavors/{name}")
def put_flavor(request: HttpRequest, name: str, body: FlavorBody) -> HttpResponse:
    return _flavor(catalog.change_flavor(_flavor_of(name, body), _if_match(request)))


@api.patch("/flavors/{name}")
def patch_flavor(request: HttpRequest, name: str, body: FlavorPatch) -> HttpResponse:
    values = {key: getattr(body, key) for key in body.model_fields_set if getattr(body, key) is not None}
    if "templates" in values:
        values["templates"] = tuple(Template(**item.model_dump()) for item in values["templates"])
    links = _links_of(*(values.pop(key, ()) for key in _LINKS))
    given = {key: getattr(links, key) for key in _LINKS if getattr(body, key) is not None}

    def edit(flavor: Flavor) -> Flavor:
        return replace(flavor, **values, layout=replace(flavor.layout, **given))

    return _flavor(catalog.edit_flavor(name, edit, _if_match(request)))


@api.delete("/flavors/{name}")
def delete_flavor(request: HttpRequest, name: str) -> HttpResponse:
    catalog.delete_flavor(name)
    return HttpResponse(status=204)


@api.get("/networks")
def list_networks(request: HttpRequest) -> HttpResponse:
    return _list([views.network_json(network) for network in catalog.all_networks()])


@api.post("/networks")
def create_network(request: HttpRequest, body: NetworkCreate) -> HttpResponse:
    return _network(catalog.create_network(_network_of(body.name, body)), status=201)


@api.get("/networks/{name}")
def get_network(request: HttpRequest, name: str) -> HttpResponse:
    return _network(catalog.network(name))


@api.put("/networks/{name}")
def put_network(request: HttpRequest, name: str, body: NetworkBody) -> HttpResponse:
    return _network(catalog.change_network(_network_of(name, body), _if_match(request)))


@api.patch("/networks/{name}")
def patch_network(request: HttpRequest, name: str, body: NetworkPatch) -> HttpResponse:
    given = {key: value for key, value in _network_values(body).items() if key in body.model_fields_set}
    return _network(catalog.edit_network(name, lambda network: replace(network, **given), _if_match(request)))


@api.delete("/networks/{name}")
def delete_network(request: HttpRequest, name: str) -> HttpResponse:
    catalog.delete_network(name)
    return HttpResponse(status=204)


@api.get("/switches")
def list_switches(request: HttpRequest) -> HttpResponse:
    return _list([_switch_json(switch) for switch in switches.all_switches()])


@api.post("/switches")
def create_switch(request: HttpRequest, body: SwitchCreate) -> HttpResponse:
    values = body.model_dump()
    secrets = {key: values.pop(key) for key in switches.SECRETS}
    return _switch(switches.create(Switch(**values), secrets), status=201)


@api.get("/switches/{name}")
def get_switch(request: HttpRequest, name: str) -> HttpResponse:
    return _switch(switches.find(name))


@api.patch("/switches/{name}")
def patch_switch(request: HttpRequest, name: str, body: SwitchPatch) -> HttpResponse:
    given = {key: value for key, value in body.model_dump().items() if key in body.model_fields_set}
    return _switch(switches.edit(name, given, _if_match(request)))


@api.delete("/switches/{name}")
def delete_switch(request: HttpRequest, name: str) -> HttpResponse:
    switches.delete(name)
    return HttpResponse(status=204)


@api.get("/switches/{name}/ports")
def list_switch_ports(request: HttpRequest, name: str) -> HttpResponse:
    """What Koguma put ports into. `node` is null where the node was forgotten, `written_at` where a write is under
    way.
    """
    switches.find(name)
    return _list([views.placement_json(item) for item in switches.placements(switch=name)])


def _switch_json(switch: Switch) -> dict[str, Any]:
    return {**vars(switch), **{f"has_{key}": given for key, given in switches.has_secrets(switch.name).items()}}


def _switch(switch: Switch, status: int = 200) -> HttpResponse:
    return _tagged(_switch_json(switch), switch.version, status)


@api.get("/networks/{name}/addresses")
def list_addresses(request: HttpRequest, name: str) -> HttpResponse:
    """The addresses that somebody has, lowest first."""
    catalog.network(name)
    return _list([vars(item) for item in addresses.given(name)])


@api.post("/networks/{name}/reservations")
def reserve(request: HttpRequest, name: str, body: ReservationBody) -> HttpResponse:
    """Keep addresses, for a node or from everybody. Repeating it changes nothing."""
    return _network(catalog.reserve(name, _reservation_of(body), _if_match(request)), status=201)


@api.delete("/networks/{name}/reservations/{span}")
def release(request: HttpRequest, name: str, span: str) -> HttpResponse:
    return _network(catalog.release(name, span, _if_match(request)))


def _list(items: list[dict[str, Any]]) -> HttpResponse:
    return HttpResponse(json.dumps(items), content_type="application/json")


def _node(node: Node, status: int = 200) -> HttpResponse:
    return _tagged(views.node_json(node, _flavors().get(node.flavor or "")), node.version, status)


def _flavor(flavor: Flavor, status: int = 200) -> HttpResponse:
    return _tagged(views.flavor_json(flavor), flavor.version, status)


def _network(network: Network, status: int = 200) -> HttpResponse:
    return _tagged(views.network_json(network), network.version, status)


def _tagged(document: dict[str, Any], version: int, status: int) -> HttpResponse:
    response = HttpResponse(json.dumps(document), status=status, content_type="application/json")
    response["ETag"] = f'"{version}"'
    return response


def _if_match(request: HttpRequest) -> int | None:
    """The version the caller saw; None for any ("*"), or when it does not say and need not."""
    given = request.headers.get("If-Match")
    if given is None and settings.KOGUMA_API_REQUIRE_IF_MATCH:
        raise PreconditionRequired(
            f"a change must name the version it is of, or * for any, got no If-Match ({request.method} {request.path})"
        )
    if given is None or given.strip() == "*":
        return None
    match = re.fullmatch(r'\s*(?:W/)?"(\d{1,18})"\s*', given)
    if match is None:
        raise BadReference(f'If-Match must be an ETag of this API like "3", got {names.shown(given)}')
    return int(match[1])


def _flavors() -> dict[str, Flavor]:
    return {flavor.name: flavor for flavor in catalog.flavors()}


def _flavor_of(name: str, body: FlavorBody) -> Flavor:
    values = body.model_dump(exclude={"name", "templates", "root_method", *_LINKS})
    templates = tuple(Template(**item.model_dump()) for item in body.templates)
    values["label"] = values["label"] or name
    layout = _links_of(body.bonds, body.vlans, body.networks)
    return Flavor(name=name, templates=templates, root_method=body.root_method, layout=layout, **values)


_LINKS = ("bonds", "vlans", "networks")


def _links_of(bonds: Iterable[BondBody], vlans: Iterable[VlanBody], networks: Iterable[AccessBody]) -> Layout:
    return Layout(
        tuple(Bond(bond.name, bond.mode, tuple(bond.interfaces)) for bond in bonds),
        tuple(Vlan(vlan.network, vlan.interface) for vlan in vlans),
        tuple(Access(access.network, access.interface) for access in networks),
    )


def _network_of(name: str, body: NetworkBody) -> Network:
    return Network(name=name, **_network_values(body))


def _network_values(body: NetworkPatch) -> dict[str, Any]:
    values = body.model_dump(exclude={"name", "purpose", "reserved", "more_subnets"})
    for key in ("ranges", "dns_servers", "ntp_servers"):
        values[key] = tuple(values[key])
    return {
        **values,
        "purpose": body.purpose,
        "reserved": tuple(_reservation_of(item) for item in body.reserved),
        "more_subnets": tuple(Subnet(item.subnet, item.gateway, tuple(item.ranges)) for item in body.more_subnets),
    }


def _reservation_of(item: str | ReservationBody) -> Reservation:
    if isinstance(item, str):
        return Reservation(item)
    return Reservation(item.range, item.reason, nodes.uuid_of(item.node) if item.node else None)
