"""Wakes nodes: marks them due, and tells a worker at once.

The mark in the table is what counts; the job only saves the time until a worker looks (`jobs.watch_due_nodes`). So
nothing is lost when a process dies between the two, and nothing is done twice when a job arrives late.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import OperationalError, transaction
from django.db.models.functions import Now
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

from koguma.db.models import WorkRow

log = logging.getLogger(__name__)

ADVANCE_TASK = "koguma.advance"
NODES_QUEUE = "nodes"


def wake(node_id: int, uuid: str) -> None:
    """Call it in the transaction that changed what the node's worker looks at."""
    WorkRow.objects.filter(pk=node_id).update(wake_at=Now(), woken=True)
    transaction.on_commit(lambda: tell_workers([uuid]), robust=True)


def tell_workers(uuids: Sequence[str]) -> None:
    """Queue a job for each node that has none waiting. Call it outside of transactions."""
    locks = {f"advance {uuid}": uuid for uuid in uuids}
    waiting = ProcrastinateJob.objects.filter(queueing_lock__in=locks, status="todo")
    for lock in set(locks) - set(waiting.values_list("queueing_lock", flat=True)):
        try:
            app.configure_task(ADVANCE_TASK, queue=NODES_QUEUE, queueing_lock=lock).defer(uuid=locks[lock])
        except AlreadyEnqueued:
            continue
        except (ConnectorException, OperationalError) as error:
            log.warning("no job could be queued; the node is found due later", extra={"error": str(error)})
