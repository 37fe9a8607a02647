"""Events: every transition of every node, in one order, from any place on.

A place is `(tx, id)`, written `tx-id`: it is the event's id for clients. Events of transactions that still run are not
shown, and neither are those of later transactions, so that what was shown once is complete for ever: a client that
goes on from its last place misses nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db import connection

from koguma.model.errors import InvalidValue

KINDS = ("created", "deleted", "provision", "power", "maintenance", "status")
DAYS_KEPT = 14

_COLUMNS = (
    "at", "kind", "node", "name", "provision_state", "previous_provision_state", "target_provision_state",
    "power_state", "status_code", "status", "last_error", "maintenance", "version",
)  # fmt: skip
_SETTLED = "tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_AFTER = f"""
SELECT tx, id, {", ".join(_COLUMNS)} FROM koguma_event
WHERE (tx, id) > (%s, %s) AND {_SETTLED} AND (%s::text[] IS NULL OR kind = ANY(%s)) AND (%s::uuid IS NULL OR node = %s)
ORDER BY tx, id LIMIT %s
"""  # noqa: S608 - names of ours


@dataclass(frozen=True, order=True)
class Place:
    """After this event."""

    tx: int
    id: int

    def __str__(self) -> str:
        return f"{self.tx}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises InvalidValue."""
        match = re.fullmatch(r"(\d{1,18})-(\d{1,18})", text.strip())
        if match is None:
            raise InvalidValue(f"an event's id must be two numbers like 812-95, got {text[:40]!r}")
        return cls(int(match[1]), int(match[2]))


BEGINNING = Place(0, 0)


def newest() -> Place:
    """The place after everything that is settled."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tx, id FROM koguma_event WHERE {_SETTLED} ORDER BY tx DESC, id DESC LIMIT 1")  # noqa: S608
        row = cursor.fetchone()
    return Place(*row) if row else BEGINNING


def after(
    place: Place, limit: int, *, kinds: list[str] | None = None, node: str | None = None
) -> list[tuple[Place, dict[str, Any]]]:
    """At most `limit` events after the place, each with its own, as the API shows them."""
    with connection.cursor() as cursor:
        cursor.execute(_AFTER, [place.tx, place.id, kinds, kinds, node, node, limit])
        return [_event(row) for row in cursor.fetchall()]


def forget_old() -> None:
    """Clients that were away for longer begin with the oldest that is left."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM koguma_event WHERE at < now() - make_interval(days => %s)", [DAYS_KEPT])


def _event(row: tuple[Any, ...]) -> tuple[Place, dict[str, Any]]:
    place = Place(row[0], row[1])
    values = dict(zip(_COLUMNS, row[2:], strict=True))
    return place, {"id": str(place), **values, "at": values["at"].isoformat(), "node": str(values["node"])}
