"""Watches the power of nodes at rest: few, cheap questions to BMCs, spread over time, never all at once."""

from __future__ import annotations

import contextlib
import logging
import random
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone
from procrastinate.contrib.django import app

from koguma.contracts.errors import PowerError
from koguma.contracts.power import OpenPower
from koguma.db import catalog, nodes
from koguma.db.lifecycle_store import access_of
from koguma.db.models import NodeRow, WorkRow
from koguma.lifecycle import cabling
from koguma.lifecycle.errors import VerbRefused
from koguma.model.hardware import FAKE_HARDWARE
from koguma.model.layout import is_switched, layout_for
from koguma.model.states import PowerAction, PowerState, ProvisionState

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
POLLS_PER_S_MAX = 5.0
TIMEOUT_S = 8.0
BATCH = 20
POWER_FAULT = "power failure"
"""Ironic's word for a BMC that does not do its part."""


def queue_due() -> None:
    """Queue polls of the nodes that are due, and set when each is due next."""
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM koguma_work")
        (nodes,) = cursor.fetchone()
    interval_s = max(INTERVAL_S, nodes / POLLS_PER_S_MAX)
    # Nodes with an operation are asked by their steps.
    # What exists on record only has nothing to tell.
    idle = WorkRow.objects.filter(operation_id=None).exclude(node__bmc_driver__in=("", FAKE_HARDWARE))
    due = idle.filter(power_poll_at__lte=now) | idle.filter(power_poll_at=None)
    for row in due.select_related("node").order_by("power_poll_at")[:BATCH]:
        spread = random.uniform(0.7, 1.3)  # noqa: S311 - spreads load, hides nothing
        # Conditional, so that of several workers one queues the poll.
        mine = WorkRow.objects.filter(pk=row.pk, power_poll_at=row.power_poll_at)
        if mine.update(power_poll_at=now + timedelta(seconds=interval_s * spread)):
            app.configure_task("koguma.poll_power", queue="polls").defer(uuid=str(row.node.uuid))


def _resting(row: NodeRow) -> QuerySet[NodeRow]:
    """The node, unless an operation has begun meanwhile: that one knows better."""
    return NodeRow.objects.filter(pk=row.pk, work__operation_id=None)


def poll(uuid: str, open_power: OpenPower) -> None:
    """Ask once. A BMC that does not answer is the node's fault on record (`fault`, and why in `status`), and changes
    nothing else: the node may be in use and well.
    """
    row = NodeRow.objects.filter(uuid=uuid).select_related("work").first()
    access = access_of(row) if row else None
    if row is None or access is None or row.work.operation_id:
        return
    asked_at = timezone.now()
    try:
        state = open_power(access).get_power_state(timeout_s=TIMEOUT_S)
    except PowerError as error:
        if row.fault is None:
            log.warning("the power state could not be read", extra={"node": row.name, "error": str(error)})
        _resting(row).update(fault=POWER_FAULT, status=f"its BMC does not answer as it should: {error}"[:500])
        return
    changes: dict[str, Any] = {"power_state": state.value} if state.value != row.power_state else {}
    if row.fault == POWER_FAULT:
        changes |= {"fault": None, "status": ""}
    if changes:
        # An operation that began meanwhile knows better; so does a change that was noted after the question.
        changed = _resting(row).filter(updated_at__lte=asked_at).update(**changes)
        if changed and state is PowerState.OFF and row.power_state == PowerState.ON.value:
            _bring_back(str(row.uuid))


def _bring_back(uuid: str) -> None:
    """A machine that was handed over to its networks powers itself off where it should reboot, because it cannot boot
    from them (`node/stage2/systemd/system-shutdown`). It is powered on again, by way of the provisioning network.
    """
    node = nodes.find(uuid)
    flavor = catalog.flavor(node.flavor) if node.flavor else None
    if node.provision_state is not ProvisionState.ACTIVE or node.maintenance or flavor is None:
        return
    if is_switched(node) and cabling.must_move(layout_for(node, flavor.layout)):
        log.warning("a machine powered itself off and is brought back", extra={"node": node.name})
        with contextlib.suppress(VerbRefused):
            nodes.request_power(uuid, PowerAction.ON)
