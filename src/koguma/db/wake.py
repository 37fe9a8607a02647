"""Wakes nodes: marks them due, and lets the workers know at once.

The mark in the table is what counts; PostgreSQL's notification only saves the time until a worker looks by itself
(`koguma.db.dispatch`). So nothing is lost when a process dies between the two. The notification is part of the
transaction, and many that are sent before a worker listens again are one to it.
"""

from __future__ import annotations

from django.db import connection

DUE_CHANNEL = "koguma_due"
ALLOCATIONS_QUEUE = "allocations"

_WAKE = f"""
WITH due AS (UPDATE koguma_work SET wake_at = now(), woken = true WHERE node_id = %s RETURNING 1)
SELECT pg_notify('{DUE_CHANNEL}', '') FROM due
"""  # noqa: S608 - a name of ours


def wake(node_id: int) -> None:
    """Call it in the transaction that changed what the node's worker looks at."""
    with connection.cursor() as cursor:
        cursor.execute(_WAKE, [node_id])
