"""Hosts that workers run on: Ironic's conductors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from koguma.api.ironic.fields import Field, Selection, by_name, chosen_fields
from koguma.api.ironic.http import Request, Response, links, missing
from koguma.api.ironic.installed import enabled_names
from koguma.db import heartbeats
from koguma.db.heartbeats import Host

CACHED_S = 2.0

FIELDS = by_name(
    (
        Field("hostname", column=None),
        Field("conductor_group", column=None),
        Field("alive", column=None),
        Field("drivers", column=None),
        Field("created_at", column=None),
        Field("updated_at", column=None),
    )
)
BRIEF = ("hostname", "conductor_group", "alive")


@dataclass(frozen=True)
class Hosts:
    """The hosts heard of, by name."""

    all: tuple[Host, ...]

    def of(self, group: str) -> str | None:
        """The host that looks after nodes of the group: any worker does a node's work, this one is named for it."""
        alive = [host for host in self.all if host.alive]
        return next((host.hostname for host in alive if host.group == group), None) or next(
            (host.hostname for host in alive), None
        )

    def groups(self, hostname: str) -> list[str]:
        return [host.group for host in self.all if host.hostname == hostname]


_cache: tuple[float, Hosts] = (0.0, Hosts(()))


def hosts() -> Hosts:
    """Those on record a moment ago; nobody in particular has to see a host at once."""
    global _cache  # noqa: PLW0603 - one value for the process, replaced as a whole
    at, known = _cache
    if time.monotonic() - at > CACHED_S or not known.all:
        known = Hosts(tuple(heartbeats.hosts()))
        _cache = (time.monotonic(), known)
    return known


def forget() -> None:
    """The next one who asks sees what is on record then."""
    global _cache  # noqa: PLW0603 - see above
    _cache = (0.0, Hosts(()))


def list_conductors(request: Request) -> Response:
    request.at_least(49)
    request.only("limit", "marker", "sort_key", "sort_dir", "fields", "detail")
    chosen = chosen_fields(request, BRIEF)
    return Response(document={"conductors": [_document(request, host, chosen) for host in hosts().all]})


def show_conductor(request: Request, hostname: str) -> Response:
    request.at_least(49)
    request.only("fields")
    host = next((host for host in heartbeats.hosts() if host.hostname == hostname), None)
    if host is None:
        missing(f"Conductor {hostname[:80]} could not be found.")
    return Response(document=_document(request, host, chosen_fields(request, None)))


def _document(request: Request, host: Host, chosen: Any) -> dict[str, Any]:
    names = Selection(FIELDS, request, chosen).names
    whole = {
        "hostname": host.hostname,
        "conductor_group": host.group,
        "alive": host.alive,
        "drivers": sorted(enabled_names()),
        "created_at": host.created_at.isoformat(),
        "updated_at": host.heard_at.isoformat(),
    }
    return {**{name: whole[name] for name in names}, "links": links(request, "conductors", host.hostname)}
