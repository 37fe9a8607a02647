"""The lifecycle's store on PostgreSQL.

A claim is a session-level advisory lock on the node, so it ends with the worker's connection: no lock outlives its
holder, and a dead worker's nodes are free at once. Every write checks that the operation on record is still the one
the worker runs, under the lock of the node's row, so a worker whose connection was lost, or whose operation an
operator replaced, cannot overwrite what came after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db import connection, transaction
from django.db.models import JSONField, Model
from psycopg.types.json import Jsonb

from koguma.contracts.errors import NodeGone, Superseded, UnknownSwitchDriver
from koguma.contracts.power import Access
from koguma.contracts.switches import OpenSwitch, SwitchAccess, SwitchDriver
from koguma.db import admission, node_rows, replacing, root_volumes, switches, vlan_addresses
from koguma.db.addresses import ensure_boot_address
from koguma.db.errors import NotFound
from koguma.db.models import AllocationRow, BootRow, NetworkRow, NodeRow, PowerOnRow, WorkRow
from koguma.db.rows import (
    boot_of,
    flavor_of,
    network_of,
    node_columns,
    node_of,
    operation_columns,
    operation_of,
    root_disks_of,
)
from koguma.db.sealing import unseal
from koguma.lifecycle.errors import StepFailed
from koguma.model.boot_record import BootRecord
from koguma.model.disk_image import DiskImage, wanted_image
from koguma.model.flavor import Flavor
from koguma.model.layout import layout_for, reason_not_fitting
from koguma.model.limits import Limits
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.operation import Operation, StepRecord
from koguma.model.root_disks import RootDisks
from koguma.model.states import PowerState, StatusCode
from koguma.model.switch import Placement, Switch
from koguma.model.volume import RootVolume

Row = dict[str, Any]

NODE_LOCK = 0x4B6F6E64
"""The class of the advisory locks on nodes; their object is the node's row id."""

DUE = f"""
SELECT node.uuid, work.tries FROM koguma_work AS work JOIN koguma_node AS node ON node.id = work.node_id
WHERE work.wake_at <= now() AND (%s OR work.tries = 0)
  AND NOT EXISTS (
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = {NODE_LOCK} AND objid = work.node_id::int
      AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY work.wake_at LIMIT %s
"""  # noqa: S608 - a number of ours

STUCK = f"""
SELECT pg_terminate_backend(holder.pid) FROM pg_locks AS held JOIN pg_stat_activity AS holder ON holder.pid = held.pid
WHERE held.locktype = 'advisory' AND held.classid = {NODE_LOCK} AND held.objsubid = 2 AND held.granted
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND holder.state = 'idle' AND holder.state_change < now() - %s * interval '1 second'
"""  # noqa: S608 - a number of ours

CLAIM = "SELECT id, pg_try_advisory_lock(%s, id::int) FROM koguma_node WHERE uuid = %s"

WRITE = """
WITH held AS (SELECT id, version FROM koguma_node WHERE id = %(node)s FOR NO KEY UPDATE),
work AS (
    UPDATE koguma_work SET {work},
        wake_at = CASE WHEN woken THEN koguma_work.wake_at ELSE %(wake_at)s::timestamptz END
    FROM held WHERE node_id = held.id AND operation_id IS NOT DISTINCT FROM %(expected)s
    RETURNING node_id, woken
){node}
SELECT (SELECT version FROM held), (SELECT woken FROM work), {version}
"""
"""First the node, then its work: the order of everybody who locks both. `work` finds nothing when the operation on
record is another one, and then nothing else happens either.
"""

_STEP_ENDS = """
WITH ended AS (
    UPDATE koguma_step SET finished_at = %(finished_at)s, outcome = %(outcome)s, reason = %(reason)s
    WHERE node_id = %(node)s AND operation = %(operation)s AND step = %(step)s AND attempt = %(attempt)s
      AND outcome = 'running' RETURNING 1
)
INSERT INTO koguma_step (node_id, operation, flow, step, attempt, started_at, finished_at, outcome, reason)
SELECT %(node)s, %(operation)s, %(flow)s, %(step)s, %(attempt)s, %(started_at)s, %(finished_at)s, %(outcome)s,
    %(reason)s WHERE NOT EXISTS (SELECT 1 FROM ended)
"""
_STEP_BEGINS = """
INSERT INTO koguma_step (node_id, operation, flow, step, attempt, started_at, outcome)
VALUES (%(node)s, %(operation)s, %(flow)s, %(step)s, %(attempt)s, %(started_at)s, 'running')
"""


def no_switch(access: SwitchAccess) -> SwitchDriver:
    """Of a store that is given no drivers."""
    raise UnknownSwitchDriver(f"this store has no switch drivers, {access.driver!r} was asked for")


class PostgresStore:
    """`koguma.contracts.store.LifecycleStore`."""

    def __init__(self, open_switch: OpenSwitch = no_switch) -> None:
        self._open_switch = open_switch

    @contextmanager
    def claim(self, uuid: str) -> Iterator[PostgresClaim | None]:
        with connection.cursor() as cursor:
            cursor.execute(CLAIM, [NODE_LOCK, uuid])
            node_id, is_mine = cursor.fetchone() or (0, False)
        if not is_mine:
            yield None
            return
        try:
            yield PostgresClaim(node_id, self._open_switch)
        finally:
            # A connection that broke has lost the lock already.
            if connection.connection is not None and not connection.connection.closed:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [NODE_LOCK, node_id])

    def admit_waiting(self, kind: str, limits: Limits) -> None:
        admission.admit(kind, limits)


def due_nodes(limit: int = 200, with_failed: bool = True) -> list[tuple[str, int]]:
    """The nodes that are due and that no worker has, and how often the present step of each has failed; without
    `with_failed`, only those whose step has not.
    """
    with connection.cursor() as cursor:
        cursor.execute(DUE, [with_failed, limit])
        return [(str(uuid), tries) for uuid, tries in cursor.fetchall()]


def free_stuck_nodes(after_s: float) -> int:
    """End the claims of workers that have said nothing to the database for so long while holding a node: the node is
    due again, whatever became of the thread that had it.
    """
    with connection.cursor() as cursor:
        cursor.execute(STUCK, [after_s])
        return len(cursor.fetchall())


class PostgresClaim:
    """`koguma.contracts.store.Claim`."""

    def __init__(self, node_id: int, open_switch: OpenSwitch = no_switch) -> None:
        self._id = node_id
        self._open_switch = open_switch
        self._row: NodeRow | None = None
        self._woken = False

    def look(self) -> tuple[Node, Operation | None]:
        try:
            row = node_rows.whole(self._id)
        except NotFound as error:
            raise NodeGone(str(error)) from None
        if row.work.woken:
            WorkRow.objects.filter(pk=self._id).update(woken=False)
        self._row, self._woken = row, False
        return node_of(row), operation_of(row.work)

    def node(self) -> Node:
        if self._row is None:
            return self.look()[0]
        return node_of(self._row)

    def woken(self) -> bool:
        return self._woken

    def write(
        self,
        *,
        expected: str | None,
        operation: Operation | None,
        changes: Mapping[str, Any] | None = None,
        steps: Sequence[StepRecord] = (),
        wake_at: datetime | None,
    ) -> None:
        columns = node_columns(changes) if changes else {}
        with transaction.atomic() if steps or (changes and "instance" in changes) else nullcontext():
            work = operation_columns(operation)
            if operation is not None and not operation.slot:
                del work["slot"]  # it may have been admitted since it was looked at
            version = self._write(expected, work, columns, wake_at)
            if changes and "instance" in changes:
                AllocationRow.objects.filter(node=self._id).delete()
            self._write_steps(steps)
        self._remember(columns, version)

    def _write(self, expected: str | None, work: Row, columns: Row, wake_at: datetime | None) -> int:
        """The node's version afterwards. Raises NodeGone or Superseded."""
        values = {**{f"w_{key}": _bound(WorkRow, key, value) for key, value in work.items()},
                  **{f"n_{key}": _bound(NodeRow, key, value) for key, value in columns.items()},
                  "node": self._id, "expected": expected, "wake_at": wake_at}  # fmt: skip
        sql = _write_sql(tuple(work), tuple(columns))
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            before, woken, after = cursor.fetchone()
        if before is None:
            raise NodeGone("the node was forgotten")
        if woken is None:
            raise Superseded(f"the operation {expected} was replaced")
        self._woken = woken
        return int(after if after is not None else before)

    def _remember(self, columns: Row, version: int) -> None:
        """The row as it is now, unless somebody else has changed it meanwhile: then it is read again."""
        row = self._row
        if row is None or version > row.version + (1 if columns else 0):
            self._row = None
            return
        row.version = version
        for name, value in columns.items():
            setattr(row, name, value)

    def flavor(self) -> Flavor | None:
        row = NodeRow.objects.select_related("flavor").get(pk=self._id)
        return flavor_of(row.flavor) if row.flavor else None

    def access(self) -> Access | None:
        return access_of(self._row or NodeRow.objects.get(pk=self._id))

    def admit(self, kind: str, limits: Limits) -> bool:
        return self._id in admission.admit(kind, limits)

    def power_turn(self, limits: Limits, now: datetime) -> datetime:
        return admission.power_turn(self._id, limits, now)

    def ensure_addresses(self) -> None:
        with transaction.atomic():
            vlan_addresses.take_turn()
            ensure_boot_address(NodeRow.objects.get(pk=self._id))
            vlan_addresses.settle(NodeRow.objects.filter(pk=self._id))
        self._row = None
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

    def wanted_image(self) -> DiskImage | None:
        return wanted_image(NodeRow.objects.values_list("instance_info", flat=True).get(pk=self._id))

    def root_disks(self, flavor: Flavor) -> RootDisks:
        return root_disks_of(NodeRow.objects.get(pk=self._id), flavor)

    def volume(self) -> RootVolume | None:
        return root_volumes.of_node(self._id)

    def keep_volume(self, volume: RootVolume) -> None:
        with transaction.atomic():
            root_volumes.keep(NodeRow.objects.select_for_update(no_key=True).get(pk=self._id), volume)

    def forget_volume(self) -> None:
        root_volumes.forget(self._id)

    def hand_over(self, named: str | None, operation: str) -> None:
        replacing.hand_over(self._id, named, operation)

    def record_power_on(self, at: datetime) -> None:
        PowerOnRow.objects.create(node_id=self._id, at=at)

    def boots_since(self, since: datetime) -> list[BootRecord]:
        rows = BootRow.objects.filter(node_id=self._id, began_at__gte=since).order_by("-began_at", "-pk")
        return [boot_of(row) for row in rows]

    def _write_steps(self, steps: Sequence[StepRecord]) -> None:
        with connection.cursor() as cursor:
            for step in steps:
                sql = _STEP_BEGINS if step.outcome == "running" else _STEP_ENDS
                cursor.execute(sql, {**vars(step), "node": self._id})


@lru_cache(maxsize=256)
def _write_sql(work: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """Names of columns are ours; values come as parameters."""
    node = ""
    if columns:
        changed = ", ".join(f"{name} = %(n_{name})s" for name in columns)
        node = f""",
node AS (UPDATE koguma_node SET {changed} FROM work WHERE id = work.node_id RETURNING koguma_node.version)"""  # noqa: S608
    return WRITE.format(
        work=", ".join(f"{name} = %(w_{name})s" for name in work),
        node=node,
        version="(SELECT version FROM node)" if columns else "NULL",
    )


def _bound(model: type[Model], column: str, value: Any) -> Any:
    """The value as PostgreSQL takes it for the column."""
    return Jsonb(value) if column in _json_columns(model) else value


@lru_cache(maxsize=8)
def _json_columns(model: type[Model]) -> frozenset[str]:
    return frozenset(field.attname for field in model._meta.concrete_fields if isinstance(field, JSONField))


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
