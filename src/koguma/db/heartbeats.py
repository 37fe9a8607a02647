"""Which hosts workers run on: each worker says so, and how long ago it last did tells whether it lives."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from koguma.db.models import WorkerRow

INTERVAL_S = 10.0
ALIVE_FOR = timedelta(seconds=60)


@dataclass(frozen=True)
class Host:
    hostname: str
    group: str
    alive: bool
    created_at: datetime
    heard_at: datetime


def say_alive() -> None:
    """This host has a worker now."""
    WorkerRow.objects.update_or_create(hostname=socket.gethostname(), defaults={"heard_at": timezone.now()})


def hosts() -> list[Host]:
    since = timezone.now() - ALIVE_FOR
    return [
        Host(row.hostname, row.conductor_group, row.heard_at > since, row.created_at, row.heard_at)
        for row in WorkerRow.objects.order_by("hostname")
    ]
