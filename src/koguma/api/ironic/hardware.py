"""Drivers: the hardware types this site can use, with their interfaces and properties."""

from __future__ import annotations

from typing import Any

from koguma.api.ironic import workers
from koguma.api.ironic.http import Request, Response, bad, links, missing, not_acceptable
from koguma.api.ironic.installed import enabled
from koguma.model.hardware import KINDS, NO_BMC, HardwareType
from koguma.model.names import shown

_KIND_SINCE = {"storage": 33, "rescue": 38, "bios": 40, "firmware": 86}


def on_record(driver: Any) -> str:
    """The driver as the node's record has it. Raises Refused."""
    if driver not in enabled():
        bad(f"No valid host was found. Reason: No conductor service registered which supports driver {shown(driver)}.")
    return "" if driver == NO_BMC else str(driver)


def list_drivers(request: Request) -> Response:
    request.only("type", "detail", "fields")
    detail = bool(request.flag("detail"))
    if "type" in request.query and request.query["type"] not in ("classic", "dynamic"):
        bad(f'"type" filter must be one of "classic" or "dynamic", if specified, got {request.query["type"][:20]!r}')
    if ("type" in request.query or detail) and request.minor < 30:
        not_acceptable()
    chosen = _chosen(request)
    wanted = [] if request.query.get("type") == "classic" else list(enabled())
    return Response(document={"drivers": [_document(request, name, detail, chosen) for name in wanted]})


def show_driver(request: Request, name: str) -> Response:
    request.only("fields")
    _check(name)
    return Response(document=_document(request, name, True, _chosen(request)))


def driver_properties(request: Request, name: str) -> Response:
    request.only()
    return Response(document=dict(_check(name).properties))


def list_driver_properties(request: Request) -> Response:
    """`GET /v1/drivers/properties?driver_name=NAME`, the older form."""
    return driver_properties(Request(**{**vars(request), "query": {}}), request.query.get("driver_name", ""))


def logical_disk_properties(request: Request, name: str) -> Response:
    request.at_least(12)
    _check(name)
    return Response(document={})


def vendor_methods(request: Request, name: str) -> Response:
    request.only()
    _check(name)
    return Response(document={})


def vendor_call(request: Request, name: str) -> Response:
    _check(name)
    bad(f"driver {name} has no vendor methods, got {request.query.get('method', '')[:40]!r}")


def _check(name: str) -> HardwareType:
    found = enabled().get(name)
    if found is None:
        missing(f"Could not find the following driver(s) or hardware type(s): {name[:80]}.")
    return found


def _chosen(request: Request) -> list[str] | None:
    if "fields" not in request.query:
        return None
    if request.minor < 77:
        not_acceptable()
    return [name.strip() for name in request.query["fields"].split(",") if name.strip()]


def _document(request: Request, name: str, detail: bool, chosen: list[str] | None) -> dict[str, Any]:
    hosts = [host.hostname for host in workers.hosts().all if host.alive]
    document: dict[str, Any] = {"name": name, "hosts": hosts, "links": links(request, "drivers", name)}
    if request.minor >= 14:
        document["properties"] = links(request, "drivers", f"{name}/properties")
    if request.minor >= 30:
        document["type"] = "dynamic"
        if detail:
            for kind in KINDS:
                if request.minor >= _KIND_SINCE.get(kind, 30):
                    names = enabled()[name].interfaces[kind]
                    document[f"default_{kind}_interface"] = names[0]
                    document[f"enabled_{kind}_interfaces"] = list(names)
    if chosen is None:
        return document
    if unknown := [field for field in chosen if field not in document]:
        bad(f'Field(s) "{", ".join(unknown)}" are not valid')
    return {key: value for key, value in document.items() if key in (*chosen, "links")}
