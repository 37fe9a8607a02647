"""Nodes for the API: find, list, change, delete; and the wishes of operators, each one transaction that starts an
operation.
"""

from __future__ import annotations

import contextlib
import secrets
import uuid as _uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, Q, QuerySet
from django.utils import timezone

from koguma.db import catalog, replacing, vlan_addresses
from koguma.db.errors import AlreadyExists, InUse, NotFound
from koguma.db.models import AllocationRow, BootRow, FlavorRow, NodeRow, StepRow, WorkRow
from koguma.db.node_rows import locked, whole, with_all, work_locked
from koguma.db.rows import boot_of, node_columns, node_of, operation_columns, operation_of, step_of
from koguma.db.sealing import seal
from koguma.db.wake import wake
from koguma.lifecycle.asked import HELD
from koguma.lifecycle.cabling import must_move
from koguma.lifecycle.errors import VerbRefused
from koguma.lifecycle.executor import NO_ORDER, begin
from koguma.lifecycle.flows import BY_STEPS, DELETABLE, FLOWS, HAND_OVER, Move, move_for, power_flow_for
from koguma.model import layout as layouts
from koguma.model import names
from koguma.model.boot_record import BootRecord
from koguma.model.layout import Access, Layout
from koguma.model.node import Node
from koguma.model.operation import Order, StepRecord
from koguma.model.states import PowerAction, ProvisionState, StatusCode, Verb

PATCHABLE = frozenset(
    {"name", "flavor", "maintenance", "maintenance_reason", "label", "kexec", "variables", "goal", "bmc"}
)

AGENT = "agent_"
"""How the keys of `driver_internal_info` begin that are about the agent in the machine."""


def find(reference: str) -> Node:
    """By UUID or name. Raises NotFound."""
    return node_of(_get(with_all(NodeRow.objects.all()), reference))


def uuid_of(reference: str) -> str:
    """The UUID of a node by name or UUID; a UUID may be of a machine that nobody has seen yet. Raises NotFound."""
    try:
        return str(_uuid.UUID(reference))
    except ValueError:
        return str(_get(NodeRow.objects.all(), reference).uuid)


def listed(
    *, state: str | None = None, flavor: str | None = None, after: str | None = None, limit: int | None = None
) -> list[Node]:
    """Nodes in the order of their names (node-2 before node-10), after the one called `after`."""
    rows = with_all(NodeRow.objects.all())
    if state is not None:
        rows = rows.filter(provision_state=state)
    if flavor is not None:
        rows = rows.filter(flavor__name=flavor)
    rows = rows.extra(select={"rank": _RANK}).order_by("rank")  # noqa: S610 - text of ours
    if after is not None:
        last = _get(NodeRow.objects.all(), after)
        rows = rows.extra(where=[f"{_RANK} > {_RANK_OF}"], params=[last.name, last.name])  # noqa: S610
    return [node_of(row) for row in (rows if limit is None else rows[:limit])]


_RANK = (
    "(regexp_replace(koguma_node.name, '[0-9]+$', ''),"
    " coalesce(substring(koguma_node.name from '([0-9]{1,18})$')::bigint, -1))"
)
_RANK_OF = "(regexp_replace(%s, '[0-9]+$', ''), coalesce(substring(%s from '([0-9]{1,18})$')::bigint, -1))"


def boots(reference: str, limit: int = 50) -> list[BootRecord]:
    """Newest first."""
    node = _get(NodeRow.objects.all(), reference)
    return [boot_of(row) for row in BootRow.objects.filter(node=node).order_by("-began_at", "-pk")[:limit]]


def steps(reference: str, limit: int = 100) -> list[StepRecord]:
    """The node's history, newest first."""
    node = _get(NodeRow.objects.all(), reference)
    return [step_of(row) for row in StepRow.objects.filter(node=node).order_by("-pk")[:limit]]


def patch(reference: str, values: Mapping[str, Any], version: int | None = None) -> Node:
    """Change what an operator may change. Raises InvalidValue, AlreadyExists, NotFound, NoFreeAddress, or Stale when
    `version` is not the node's.
    """
    with transaction.atomic():
        if values.keys() & {"flavor", "networks"}:
            vlan_addresses.take_turn()
        row = locked(reference, version)
        for field, value in values.items():
            _PATCHES[field](row, value)
        try:
            with transaction.atomic():
                row.save()
        except IntegrityError:
            raise AlreadyExists(f"a node name belongs to one node, {row.name!r} is another's") from None
        if values.keys() & {"flavor", "networks"}:
            vlan_addresses.settle(NodeRow.objects.filter(pk=row.pk))
        wake(row.pk)
    return find(str(row.uuid))


def delete(reference: str, version: int | None = None, *, force: bool = False) -> None:
    """Forget a node and give its addresses back. Raises VerbRefused while it is in use, unless `force` is set."""
    with transaction.atomic():
        vlan_addresses.take_turn()
        row = locked(reference, version)
        if not (force or row.maintenance or ProvisionState(row.provision_state) in DELETABLE):
            allowed = ", ".join(sorted(state.value for state in DELETABLE))
            raise VerbRefused(
                f"a node is forgotten in {allowed}, in maintenance or by force; it is {row.provision_state!r}"
                f" (node {row.name})"
            )
        AllocationRow.objects.filter(node=row).delete()
        try:
            row.delete()
        except ProtectedError:
            raise InUse(f"a node that others are part of cannot be forgotten (node {row.name})") from None


def request_verb(
    reference: str,
    verb: Verb,
    version: int | None = None,
    order: Order = NO_ORDER,
    columns: Mapping[str, Any] | None = None,
) -> Node:
    """As `ask_verb`; the node as it is then."""
    return find(ask_verb(reference, verb, version, order, columns))


def ask_verb(
    reference: str,
    verb: Verb,
    version: int | None = None,
    order: Order = NO_ORDER,
    columns: Mapping[str, Any] | None = None,
) -> str:
    """Start what the verb asks for; a worker goes on. `columns` are changed with it. The node's UUID. Raises
    VerbRefused.
    """
    with transaction.atomic():
        row = locked(reference, version)
        node, work = node_of(row), work_locked(row.pk)
        move = move_for(node, verb, busy=operation_of(work) is not None)
        if verb in (Verb.CLEAN, Verb.SERVICE) and not order.steps:
            raise VerbRefused(f"{verb.value!r} needs the steps to run, none was given (node {node.name})")
        if columns:
            NodeRow.objects.filter(pk=row.pk).update(**columns)
        if move.resumes:
            _resume(row, work, move.state or node.provision_state)
            return node.uuid
        _close_steps(row, work, f"replaced by {verb.value}")
        if move.flow is not None and move.state is None:
            flow = BY_STEPS.get(move.flow, move.flow) if order.steps else move.flow
            _start(row, work, replace(node, goal=None), flow, {"goal": None, "last_error": None}, order)
        else:
            _end(row, node, verb, move)
    return node.uuid


def request_replacement(reference: str, with_reference: str | None, version: int | None = None) -> Node:
    """Let another machine take the node's place: the one named, or any spare of its flavor. Raises VerbRefused."""
    with transaction.atomic():
        row = locked(reference, version)
        named = _get(with_all(NodeRow.objects.all()), with_reference) if with_reference else None
        data = replacing.request(row, named)
        work = work_locked(row.pk)
        _close_steps(row, work, "replaced by another machine")
        _start(row, work, replace(node_of(row), goal=None), "replace", {"goal": None, "last_error": None})
        WorkRow.objects.filter(pk=work.pk).update(data=data)
    return find(str(row.uuid))


def request_power(reference: str, action: PowerAction, version: int | None = None) -> Node:
    """Start a power action; a worker goes on. Raises VerbRefused while something else is under way."""
    with transaction.atomic():
        row = locked(reference, version)
        node, work = node_of(row), work_locked(row.pk)
        flow = power_flow_for(node, action, busy=operation_of(work) is not None)
        _start(row, work, node, flow.name, {})
    return find(node.uuid)


def hand_over(row: NodeRow) -> None:
    """Move a machine in use that has installed to its networks, unless something else is under way, which does so. It
    has left the provisioning network by itself already.
    """
    if row.provision_state != ProvisionState.ACTIVE.value:
        return
    node = node_of(whole(row.pk))
    flavor = catalog.flavor(node.flavor) if node.flavor else None
    work = work_locked(row.pk)
    if work.operation_id or flavor is None or not layouts.is_switched(node):
        return
    if must_move(layouts.layout_for(node, flavor.layout)):
        _start(row, work, node, HAND_OVER, {})


def set_boot_label(reference: str, label: str | None, version: int | None = None, *, once: bool, reboot: bool) -> Node:
    """What the node boots: from now on, or once; None takes the flavor's label again. An active node is rebooted when
    `reboot` is set.
    """
    if label is not None:
        names.boot_label(label)
    with transaction.atomic():
        row = locked(reference, version)
        if once:
            row.once_id, row.once_label = (secrets.token_hex(16), label) if label else (None, None)
        else:
            row.label, row.once_id, row.once_label = label, None, None
        row.save()
        if reboot and row.provision_state == ProvisionState.ACTIVE.value:
            node, work = node_of(row), work_locked(row.pk)
            flow = power_flow_for(node, PowerAction.REBOOT, busy=operation_of(work) is not None)
            _start(row, work, node, flow.name, {})
    return find(str(row.uuid))


def _end(row: NodeRow, node: Node, verb: Verb, move: Move) -> None:
    """The node is in the verb's state at once; what has to be done for a real machine there is begun."""
    state = move.state or node.provision_state
    is_abort = verb is Verb.ABORT
    why = "aborted by an operator" if is_abort else ""
    changes: dict[str, Any] = {
        "provision_state": state,
        "target_provision_state": None,
        "goal": None,
        "status_code": StatusCode.ABORTED if is_abort else StatusCode.READY,
        "status": why,
        "asked_step": None,
        **({"last_error": why} if is_abort else {}),
    }
    flow = FLOWS[move.flow] if move.flow else None
    operation = None
    if flow is not None and flow.applies(node):
        operation, _ = begin(replace(node, provision_state=state), flow, timezone.now())
    NodeRow.objects.filter(pk=row.pk).update(**node_columns(changes))
    WorkRow.objects.filter(pk=row.pk).update(**operation_columns(operation))
    wake(row.pk)


def _resume(row: NodeRow, work: WorkRow, state: ProvisionState) -> None:
    NodeRow.objects.filter(pk=row.pk).update(provision_state=state.value)
    WorkRow.objects.filter(pk=work.pk).update(data={**work.data, HELD: False})
    wake(row.pk)


def _start(
    row: NodeRow, work: WorkRow, node: Node, flow: str, more: Mapping[str, Any], order: Order = NO_ORDER
) -> None:
    operation, changes = begin(node, FLOWS[flow], timezone.now(), order)
    columns = node_columns({**changes, **more})
    internal = row.driver_internal_info
    if FLOWS[flow].success and any(key.startswith(AGENT) for key in internal):
        # Another system boots now: the agent that proved itself before is gone.
        columns["driver_internal_info"] = {key: value for key, value in internal.items() if not key.startswith(AGENT)}
    NodeRow.objects.filter(pk=row.pk).update(**columns)
    WorkRow.objects.filter(pk=work.pk).update(**operation_columns(operation))
    wake(row.pk)


def _close_steps(row: NodeRow, work: WorkRow, reason: str) -> None:
    if work.operation_id:
        StepRow.objects.filter(node=row, operation=work.operation_id, outcome="running").update(
            outcome="superseded", reason=reason, finished_at=timezone.now()
        )


def _get(rows: QuerySet[NodeRow], reference: str) -> NodeRow:
    same = Q(name=reference)
    with contextlib.suppress(ValueError):
        same |= Q(uuid=_uuid.UUID(reference))
    row = rows.filter(same).first()
    if row is None:
        raise NotFound(f"a node must exist with this name or UUID, got {names.shown(reference)}")
    return row


def _set_flavor(row: NodeRow, value: str | None) -> None:
    if value is None:
        row.flavor = None
        return
    flavor = FlavorRow.objects.filter(name=value).first()
    if flavor is None:
        raise NotFound(f"a flavor must exist with this name, got {names.shown(value)}")
    row.flavor = flavor


def _set_bmc(row: NodeRow, value: Mapping[str, str] | None) -> None:
    value = value or {"driver": "", "address": "", "username": "", "password": ""}
    row.bmc_driver, row.bmc_address = value["driver"], value["address"]
    row.bmc_username = value.get("username", "")
    if "password" in value:
        row.bmc_password = seal(value["password"])


def _setter(field: str) -> Any:
    def set_field(row: NodeRow, value: Any) -> None:
        setattr(row, field, value)

    return set_field


def _set_name(row: NodeRow, value: str) -> None:
    row.name = names.host_name(value)


def _set_label(row: NodeRow, value: str | None) -> None:
    row.label = names.boot_label(value) if value else None


def _set_networks(row: NodeRow, value: list[str]) -> None:
    """Attach networks in place of the flavor's. Raises InvalidValue."""
    known = {network.name: network for network in catalog.all_networks()}
    place = f"(node {row.name})"
    layouts.check(
        Layout(networks=tuple(Access(name, f"eth{number}") for number, name in enumerate(value))), known, place
    )
    row.vifs = [{"id": name} for name in value]


_PATCHES = {
    "networks": _set_networks,
    "name": _set_name,
    "flavor": _set_flavor,
    "label": _set_label,
    "bmc": _set_bmc,
    **{field: _setter(field) for field in ("maintenance", "maintenance_reason", "kexec", "variables", "goal")},
}
