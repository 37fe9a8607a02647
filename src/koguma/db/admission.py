"""Admits operations as far as the limits allow, and gives power actions their turn.

What was admitted is written in the operation's own row (`koguma_work.slot`) and goes with the operation. A power
action's turn is a time: the row of a scope says when the next one may begin, and whoever takes a turn moves it on.
"""

from __future__ import annotations

from datetime import datetime

from django.db import connection, transaction

from koguma.lifecycle.policy import Policy
from koguma.model.limits import CLEAN, DEPLOY, KINDS, Limits, Waiting, admitted

_TURN = 0x4B6F6702

RACK = (
    "coalesce(nullif(node.properties->>'rack', ''), nullif(node.variables->>'rack', ''),"
    " 'chassis ' || node.chassis_id, '')"
)

_UNDER_WAY = f"""
SELECT {RACK}, count(*) FROM koguma_work AS work JOIN koguma_node AS node ON node.id = work.node_id
WHERE work.operation_id IS NOT NULL AND work.flow = ANY(%s) AND work.slot <> '' GROUP BY 1
"""  # noqa: S608 - text of ours
_WAITING = f"""
SELECT work.node_id, {RACK} FROM koguma_work AS work JOIN koguma_node AS node ON node.id = work.node_id
WHERE work.operation_id IS NOT NULL AND work.flow = ANY(%s) AND work.slot = ''
ORDER BY work.started_at, work.node_id LIMIT 2000
"""  # noqa: S608 - text of ours
_ADMIT = """
UPDATE koguma_work SET slot = %s, wake_at = now(), woken = true
WHERE node_id = ANY(%s) AND operation_id IS NOT NULL AND flow = ANY(%s) AND slot = ''
"""
_TAKE = """
INSERT INTO koguma_pace AS pace (scope, next_at) VALUES (%(scope)s, %(now)s::timestamptz + %(step)s::interval)
ON CONFLICT (scope) DO UPDATE SET next_at = greatest(pace.next_at, %(now)s::timestamptz) + %(step)s::interval
RETURNING next_at - %(step)s::interval
"""


def admit(kind: str, limits: Limits) -> list[int]:
    """Let those begin that may; their nodes' ids. Nobody else admits meanwhile."""
    flows = [flow for flow, counts_as in KINDS.items() if counts_as == kind]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])
        cursor.execute(_WAITING, [flows])
        waiting = [Waiting(node, rack) for node, rack in cursor.fetchall()]
        if not waiting:
            return []
        cursor.execute(_UNDER_WAY, [flows])
        begins = admitted(limits, kind, dict(cursor.fetchall()), waiting)
        if begins:
            cursor.execute(_ADMIT, [kind, begins, flows])
            cursor.execute("SELECT pg_notify('koguma_due', '')")
    return begins


def admit_waiting(policy: Policy) -> None:
    """Whatever ended an operation, and whoever did, the next ones begin."""
    for kind in (DEPLOY, CLEAN):
        if any(policy.limits.of(kind)):
            admit(kind, policy.limits)


def power_turn(node_id: int, limits: Limits, now: datetime) -> datetime:
    """When the node's power may change: now, where nothing limits it."""
    turn = now
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {RACK} FROM koguma_node AS node WHERE id = %s", [node_id])  # noqa: S608 - text of ours
        row = cursor.fetchone()
        for scope, step_s in limits.power_paces(row[0] if row else ""):
            cursor.execute(_TAKE, {"scope": scope, "now": now, "step": f"{step_s} seconds"})
            turn = max(turn, cursor.fetchone()[0])
    return turn
