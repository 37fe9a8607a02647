"""Microversions: what a client may ask for, and the documents at the root that say so."""

from __future__ import annotations

import re
from typing import Any

from koguma.api.ironic.http import Request, not_acceptable

MINOR_MIN = 1
MINOR_MAX = 115

HEADER = "X-OpenStack-Ironic-API-Version"
LIMITS = {
    "X-OpenStack-Ironic-API-Minimum-Version": f"1.{MINOR_MIN}",
    "X-OpenStack-Ironic-API-Maximum-Version": f"1.{MINOR_MAX}",
}

SINCE = {
    "chassis": 1, "nodes": 1, "ports": 1, "drivers": 1, "portgroups": 23, "volume": 32, "lookup": 22, "heartbeat": 22,
    "conductors": 49, "allocations": 52, "events": 54, "deploy_templates": 55, "shards": 82, "continue_inspection": 84,
    "runbooks": 92, "inspection_rules": 96,
}  # fmt: skip
"""From which microversion on a resource is listed at /v1."""

_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


def negotiate(request: Request) -> int:
    """The minor number asked for, by either header; the lowest where none is given. Raises Refused (406)."""
    text = _asked(request)
    if not text:
        return MINOR_MIN
    if text.lower() == "latest":
        return MINOR_MAX
    match = _VERSION.fullmatch(text)
    if match is None:
        not_acceptable(f"Invalid value for {HEADER} header: {text[:40]!r}")
    major, minor = int(match[1]), int(match[2])
    supported = f"The supported version range is: [1.{MINOR_MIN}, 1.{MINOR_MAX}]."
    if major != 1:
        not_acceptable(
            f"Mutually exclusive versions requested. Version {text} requested but not supported by this service."
            f" {supported}"
        )
    if not MINOR_MIN <= minor <= MINOR_MAX:
        not_acceptable(
            f"Version {text} was requested but the minor version is not supported by this service. {supported}"
        )
    return minor


def _asked(request: Request) -> str:
    for item in request.headers.get("openstack-api-version", "").split(","):
        service, _, version = item.strip().partition(" ")
        if service.lower() == "baremetal" and version.strip():
            return version.strip()
    return request.headers.get(HEADER.lower(), "").strip()


def root(request: Request) -> dict[str, Any]:
    version = _version(request)
    return {
        "name": "OpenStack Ironic API",
        "description": "Koguma provisions and manages bare-metal machines, and speaks Ironic's API.",
        "default_version": version,
        "versions": [version],
    }


def v1(request: Request) -> dict[str, Any]:
    resources = {
        name: [
            {"href": f"{request.url}/v1/{name}/", "rel": "self"},
            {"href": f"{request.url}/{name}/", "rel": "bookmark"},
        ]
        for name, since in SINCE.items()
        if request.minor >= since
    }
    return {
        "id": "v1",
        "links": [{"href": f"{request.url}/v1/", "rel": "self"}],
        "media_types": {"base": "application/json", "type": "application/vnd.openstack.ironic.v1+json"},
        **resources,
        "version": _version(request),
    }


def _version(request: Request) -> dict[str, Any]:
    return {
        "id": "v1",
        "links": [{"href": f"{request.url}/v1/", "rel": "self"}],
        "status": "CURRENT",
        "min_version": f"1.{MINOR_MIN}",
        "version": f"1.{MINOR_MAX}",
    }
