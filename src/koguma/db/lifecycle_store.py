"""The lifecycle's store on PostgreSQL.

A claim is a session-level advisory lock on the node, so it ends with the worker's connection: no lock outlives its
holder, and a dead worker's nodes are free at once. Every write checks that the operation on record is still the one
the worker runs, under the lock of the node's row, so a worker whose connection was lost, or whose operation an
operator replaced, cannot overwrite what came after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Case, F, Value, When

from koguma.contracts.errors import NodeGone, Superseded, UnknownSwitchDriver
from koguma.contracts.power import Access
from koguma.contracts.switches import OpenSwitch, SwitchAccess, SwitchDriver
from koguma.db import switches, vlan_addresses
from koguma.db.addresses import ensure_boot_address
from koguma.db.models import AllocationRow, BootRow, NetworkRow, NodeRow, PowerOnRow, StepRow, WorkRow
from koguma.db.rows import (
    boot_of,
    flavor_of,
    network_of,
    node_columns,
    node_of,
    operation_columns,
    operation_of,
    with_all,
)
from koguma.db.sealing import unseal
from koguma.lifecycle.errors import StepFailed
from koguma.model.boot_record import BootRecord
from koguma.model.flavor import Flavor
from koguma.model.layout import layout_for, reason_not_fitting
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.operation import Operation, StepRecord
from koguma.model.states import PowerState, StatusCode
from koguma.model.switch import Placement, Switch

NODE_LOCK = 0x4B6F6E64
"""The class of the advisory locks on nodes; their object is the node's row id."""

DUE = f"""
SELECT node.uuid FROM koguma_work AS work JOIN koguma_node AS node ON node.id = work.node_id
WHERE work.wake_at <= now()
  AND NOT EXISTS (
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = {NODE_LOCK} AND objid = work.node_id::int
      AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY work.wake_at LIMIT %s
"""  # noqa: S608 - a number of ours


def no_switch(access: SwitchAccess) -> SwitchDriver:
    """Of a store that is given no drivers."""
    raise UnknownSwitchDriver(f"this store has no switch drivers, {access.driver!r} was asked for")


class PostgresStore:
    """`koguma.contracts.store.LifecycleStore`."""

    def __init__(self, open_switch: OpenSwitch = no_switch) -> None:
        self._open_switch = open_switch

    @contextmanager
    def claim(self, uuid: str) -> Iterator[PostgresClaim | None]:
        node_id = NodeRow.objects.filter(uuid=uuid).values_list("pk", flat=True).first()
        if node_id is None or not _lock("pg_try_advisory_lock", node_id):
            yield None
            return
        try:
            yield PostgresClaim(node_id, self._open_switch)
        finally:
            # A connection that broke has lost the lock already.
            if connection.connection is not None and not connection.connection.closed:
                _lock("pg_advisory_unlock", node_id)


def due_nodes(limit: int = 200) -> list[str]:
    """The nodes that are due and that no worker has."""
    with connection.cursor() as cursor:
        cursor.execute(DUE, [limit])
        return [str(uuid) for (uuid,) in cursor.fetchall()]


class PostgresClaim:
    """`koguma.contracts.store.Claim`."""

    def __init__(self, node_id: int, open_switch: OpenSwitch = no_switch) -> None:
        self._id = node_id
        self._open_switch = open_switch

    def node(self) -> Node:
        row = with_all(NodeRow.objects.filter(pk=self._id)).first()
        if row is None:
            raise NodeGone("the node was forgotten")
        return node_of(row)

    def operation(self) -> Operation | None:
        row = WorkRow.objects.filter(pk=self._id).first()
        if row is None:
            raise NodeGone("the node was forgotten")
        return operation_of(row)

    def take_wake_up(self) -> None:
        WorkRow.objects.filter(pk=self._id, woken=True).update(woken=False)

    def woken(self) -> bool:
        return WorkRow.objects.filter(pk=self._id, woken=True).exists()

    def write(
        self,
        *,
        expected: str | None,
        operation: Operation | None,
        changes: Mapping[str, Any] | None = None,
        steps: Sequence[StepRecord] = (),
        wake_at: datetime | None,
    ) -> None:
        with transaction.atomic():
            # First the node, then its work: the order of everybody who locks both.
            if not NodeRow.objects.select_for_update(no_key=True).only("pk").filter(pk=self._id).first():
                raise NodeGone("the node was forgotten")
            work = WorkRow.objects.select_for_update(no_key=True).get(pk=self._id)
            if work.operation_id != expected:
                raise Superseded(f"the operation {expected} was replaced by {work.operation_id}")
            WorkRow.objects.filter(pk=self._id).update(
                **operation_columns(operation),
                # Whatever woke the node while the step ran must be looked at: it stays due then.
                wake_at=Case(When(woken=True, then=F("wake_at")), default=Value(wake_at)),
            )
            if changes:
                if "instance" in changes:
                    AllocationRow.objects.filter(node=self._id).delete()
                NodeRow.objects.filter(pk=self._id).update(**node_columns(changes))
            self._write_steps(steps)

    def flavor(self) -> Flavor | None:
        row = NodeRow.objects.select_related("flavor").get(pk=self._id)
        return flavor_of(row.flavor) if row.flavor else None

    def access(self) -> Access | None:
        row = NodeRow.objects.get(pk=self._id)
        return access_of(row)

    def ensure_addresses(self) -> None:
        with transaction.atomic():
            vlan_addresses.take_turn()
            ensure_boot_address(NodeRow.objects.get(pk=self._id))
            vlan_addresses.settle(NodeRow.objects.filter(pk=self._id))
        node, flavor = self.node(), self.flavor()
        if flavor and (reason := reason_not_fitting(layout_for(node, flavor.layout), node)):
            raise StepFailed(
                StatusCode.NOT_BOOTABLE, f"flavor {flavor.name} does not fit the node: {reason} (node {node.name})"
            )

    def networks(self) -> dict[str, Network]:
        return {row.name: network_of(row) for row in NetworkRow.objects.order_by("id")}

    def switches(self) -> list[Switch]:
        return switches.all_switches()

    def switch(self, name: str) -> AbstractContextManager[SwitchDriver | None]:
        return switches.opened(name, self._open_switch)

    def placements(self) -> list[Placement]:
        return switches.placements(node=self._id)

    def record_placement(self, placement: Placement, *, written: bool) -> None:
        switches.record(placement, self._id, written=written)

    def end_attachments(self) -> None:
        with transaction.atomic():
            vlan_addresses.take_turn()
            if NodeRow.objects.filter(pk=self._id).exclude(vifs=[]).update(vifs=[]):
                vlan_addresses.settle(NodeRow.objects.filter(pk=self._id))

    def record_power_on(self, at: datetime) -> None:
        PowerOnRow.objects.create(node_id=self._id, at=at)

    def boots_since(self, since: datetime) -> list[BootRecord]:
        rows = BootRow.objects.filter(node_id=self._id, began_at__gte=since).order_by("-began_at", "-pk")
        return [boot_of(row) for row in rows]

    def _write_steps(self, steps: Sequence[StepRecord]) -> None:
        for step in steps:
            values = {"finished_at": step.finished_at, "outcome": step.outcome, "reason": step.reason}
            same = StepRow.objects.filter(
                node_id=self._id, operation=step.operation, step=step.step, attempt=step.attempt, outcome="running"
            )
            if step.outcome == "running" or not same.update(**values):
                StepRow.objects.create(
                    node_id=self._id,
                    operation=step.operation,
                    flow=step.flow,
                    step=step.step,
                    attempt=step.attempt,
                    started_at=step.started_at,
                    **values,
                )


def access_of(row: NodeRow) -> Access | None:
    if not row.bmc_driver:
        return None
    host, port = row.bmc_address or str(row.uuid), None
    if "://" not in host and host.count(":") == 1:
        host, _, text = host.partition(":")
        port = int(text)
    secrets = json.loads(unseal(row.driver_secrets)) if row.driver_secrets else {}
    if row.bmc_driver == "redfish":
        host = _redfish_address(host, row.driver_info)
    return Access(
        row.bmc_driver,
        host,
        row.bmc_username,
        unseal(row.bmc_password),
        port,
        PowerState(row.power_state),
        {**row.driver_info, **secrets},
    )


def _redfish_address(address: str, info: Mapping[str, Any]) -> str:
    """The driver's one address, from what Ironic says in three settings."""
    system = str(info.get("redfish_system_id") or "").rstrip("/")
    if system and "/redfish/" not in address:
        address = address.rstrip("/") + system
    verify = info.get("redfish_verify_ca")
    if verify is None or "?" in address or str(verify).lower() in ("true", "yes", "1"):
        return address
    return f"{address}?tls=any" if str(verify).lower() in ("false", "no", "0") else f"{address}?tls=ca:{verify}"


def _lock(function: str, node_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s, %s)", [NODE_LOCK, node_id])
        return bool(cursor.fetchone()[0])
