"""Keeps what only grows within bounds: boots, steps and power-ons, events, and jobs that died with their worker."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from koguma.db import events
from koguma.db.models import PowerOnRow

BOOTS_KEPT = 100
STEPS_KEPT = 500


def forget_old_history() -> None:
    """For each node the newest boots and steps stay."""
    with connection.cursor() as cursor:
        for table, kept, order in (("koguma_boot", BOOTS_KEPT, "began_at"), ("koguma_step", STEPS_KEPT, "id")):
            cursor.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"  # noqa: S608 - names stand above
                f" (PARTITION BY node_id ORDER BY {order} DESC) AS place FROM {table}) AS ranked WHERE place > %s)",
                [kept],
            )
        # Jobs only carry news: what a dead worker was doing is found due in the nodes' own table.
        cursor.execute(
            "DELETE FROM procrastinate_jobs WHERE status = 'doing' AND (worker_id IS NULL OR worker_id NOT IN"
            " (SELECT id FROM procrastinate_workers WHERE last_heartbeat > now() - interval '5 minutes'))"
        )
    events.forget_old()
    PowerOnRow.objects.filter(at__lt=timezone.now() - timedelta(days=1)).delete()
