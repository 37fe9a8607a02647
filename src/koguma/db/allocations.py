"""Finds nodes for allocations. A node that is taken is locked while it is, so that two allocations never get one.

What is on record counts: an allocation in state `allocating` is looked at again until it has a node or there is none,
whatever became of the job that carried the news.
"""

from __future__ import annotations

import logging
import random
from typing import Any

from django.db import OperationalError, transaction
from django.db.models import Q
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

from koguma.db.models import AllocationRow, NodeRow
from koguma.db.wake import ALLOCATIONS_QUEUE
from koguma.model.states import PowerState, ProvisionState

log = logging.getLogger(__name__)

ALLOCATE_TASK = "koguma.allocate"
CANDIDATES_MAX = 50


def tell_workers(uuid: str) -> None:
    """Queue a job for the allocation. Call it outside of transactions."""
    try:
        app.configure_task(ALLOCATE_TASK, queue=ALLOCATIONS_QUEUE, queueing_lock=f"allocate {uuid}").defer(uuid=uuid)
    except AlreadyEnqueued:
        pass
    except (ConnectorException, OperationalError) as error:
        log.warning("no job could be queued; the allocation is found later", extra={"error": str(error)})


def allocate_pending() -> None:
    """Those whose job was lost."""
    for uuid in list(AllocationRow.objects.filter(state="allocating").values_list("uuid", flat=True)[:100]):
        allocate(str(uuid))


def allocate(uuid: str) -> None:
    """Give the allocation a node, or say why there is none."""
    with transaction.atomic():
        row = AllocationRow.objects.select_for_update().filter(uuid=uuid, state="allocating").first()
        if row is None:
            return
        node = _free_node(row)
        row.updated_at = timezone.now()
        if node is None and NodeRow.objects.filter(_matching(row), instance_uuid=None, allocation=None).exists():
            return  # others hold them at this moment; looked at again
        if node is None:
            row.state, row.last_error = "error", _why_none(row)
            row.save()
            return
        row.node, row.state, row.last_error = node, "active", None
        row.save()
        _mark(row, node)


def take(uuid: str) -> None:
    """Note on the node that the allocation has it."""
    row = AllocationRow.objects.select_related("node").get(uuid=uuid)
    if row.node is not None:
        _mark(row, row.node)


def release(uuid: str) -> None:
    """The allocation is gone: what it had noted on its node goes, too."""
    NodeRow.objects.filter(instance_uuid=uuid).update(instance_uuid=None, instance_name=None, instance_info={})


def _mark(row: AllocationRow, node: NodeRow) -> None:
    info: dict[str, Any] = {**node.instance_info}
    if row.traits:
        info["traits"] = row.traits
    if row.name:
        info.setdefault("display_name", row.name)
    NodeRow.objects.filter(pk=node.pk).update(
        instance_uuid=node.instance_uuid or row.uuid,
        instance_info=info,
        instance_name=node.instance_name or info.get("display_name"),
    )


def _matching(row: AllocationRow) -> Q:
    wanted = Q(resource_class=row.resource_class, maintenance=False, retired=False)
    if row.traits:
        wanted &= Q(traits__contains=row.traits)
    if row.candidate_nodes:
        wanted &= Q(uuid__in=row.candidate_nodes)
    if row.owner:
        wanted &= Q(owner=row.owner) | Q(lessee=row.owner)
    return wanted & Q(provision_state=ProvisionState.AVAILABLE.value) & ~Q(power_state=PowerState.UNKNOWN.value)


def _free_node(row: AllocationRow) -> NodeRow | None:
    free = NodeRow.objects.filter(_matching(row), instance_uuid=None, allocation=None)
    keys = list(free.values_list("pk", flat=True)[:CANDIDATES_MAX])
    named = set(NodeRow.objects.filter(pk__in=keys, name=row.name or "").values_list("pk", flat=True))
    random.shuffle(keys)
    for key in sorted(keys, key=lambda pk: pk not in named):
        # Another worker may be taking it at this moment: it is passed over, not waited for.
        taken = NodeRow.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
        node = taken.filter(_matching(row), pk=key, instance_uuid=None, allocation=None).first()
        if node is not None:
            return node
    return None


def _why_none(row: AllocationRow) -> str:
    why = f"no available nodes match the resource class {row.resource_class}"
    if row.traits:
        why += f" and the traits {', '.join(row.traits)}"
    if row.candidate_nodes:
        why += " among the candidate nodes"
    return f"Failed to process allocation {row.uuid}: {why}"
