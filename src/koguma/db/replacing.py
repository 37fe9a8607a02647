"""Puts one node in another's place: `koguma.lifecycle.replacing` says when.

What a node is to others (name, host keys, addresses, instance, volume, label, variables) changes sides in one
transaction; what a machine is (UUID, serial, MACs, BMC) stays where it is. Both rows are locked, the lower id first.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from koguma.db import vlan_addresses
from koguma.db.models import AddressRow, AllocationRow, NodeRow, PortRow, VolumeTargetRow, WorkRow
from koguma.db.node_rows import whole, with_all, work_locked
from koguma.db.rows import flavor_of, node_columns, node_of, operation_columns, operation_of
from koguma.db.wake import wake
from koguma.lifecycle.errors import NodeBusy, StepFailed, VerbRefused
from koguma.lifecycle.executor import begin
from koguma.lifecycle.flows import FLOWS, INTERRUPTIBLE
from koguma.lifecycle.replacing import BY, OPERATION, reason_not_a_replacement, require_replaceable
from koguma.model.node import Node
from koguma.model.states import ProvisionState, StatusCode

IDENTITY = (
    "name", "ssh_host_key", "ssh_host_public_key", "label", "variables", "instance_uuid", "instance_info",
    "instance_name", "lessee", "vifs", "network_data", "protected", "protected_reason", "traits",
)  # fmt: skip
"""The columns that are the node's and not the machine's."""
DONE = "koguma_replaced_in"
"""The operation in which the node was replaced, noted on it: a step that runs again knows by it that
the transaction was committed."""


def request(row: NodeRow, named: NodeRow | None) -> dict[str, Any]:
    """Check the wish; what the flow is started with. Call it with the row locked. Raises VerbRefused."""
    node, work = node_of(row), work_locked(row.pk)
    if operation_of(work) is not None and node.provision_state not in INTERRUPTIBLE:
        raise NodeBusy(f"a node does one thing at a time, {node.status or node.status_code.value} (node {node.name})")
    require_replaceable(node, flavor_of(row.flavor) if row.flavor else None)
    if named is not None:
        reason = reason_not_a_replacement(node_of(named), node)
    else:
        reason = None if _spares(row) else f"no other node of flavor {node.flavor} is available"
    if reason:
        raise VerbRefused(f"{reason} (node {node.name})")
    return {BY: str(named.uuid) if named else None, OPERATION: uuid4().hex}


def hand_over(node_id: int, named: str | None, operation: str) -> None:
    """Give the node's identity to `named` or to any spare, and deploy it. Raises StepFailed when there is none."""
    with transaction.atomic():
        vlan_addresses.take_turn()
        if NodeRow.objects.get(pk=node_id).driver_internal_info.get(DONE) == operation:
            return
        other_id = _choose(NodeRow.objects.get(pk=node_id), named)
        rows = {
            row.pk: row
            for row in with_all(
                NodeRow.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=(node_id, other_id))
            ).order_by("pk")
        }
        old, other = rows[node_id], rows[other_id]
        work = work_locked(other_id)
        if (reason := reason_not_a_replacement(node_of(other), node_of(old))) or work.operation_id:
            raise StepFailed(StatusCode.STEP_FAILED, reason or f"{other.name} is busy with something else")
        _swap_addresses(old, other)
        _swap_columns(old, other)
        VolumeTargetRow.objects.filter(node=old).exclude(sealed="").update(node=other)
        AllocationRow.objects.filter(node=old).update(node=other)
        _retire(old, other, operation)
        _deploy(other_id, work)


def _choose(node: NodeRow, named: str | None) -> int:
    if named:
        found = NodeRow.objects.filter(uuid=named).values_list("pk", flat=True).first()
        if found is None:
            raise StepFailed(StatusCode.STEP_FAILED, f"the replacement {named} was forgotten meanwhile")
        return found
    spares = _spares(node)
    if not spares:
        raise StepFailed(StatusCode.STEP_FAILED, "no other node of its flavor is available")
    return spares[0]


def _spares(node: NodeRow) -> list[int]:
    """Available nodes of the flavor that nobody has, in the order of their names."""
    return list(
        NodeRow.objects.filter(
            flavor=node.flavor,
            provision_state=ProvisionState.AVAILABLE.value,
            maintenance=False,
            retired=False,
            instance_uuid=None,
            work__operation_id=None,
        )
        .exclude(pk=node.pk)
        .order_by("name")
        .values_list("pk", flat=True)[:50]
    )


def _swap_columns(old: NodeRow, other: NodeRow) -> None:
    olds = {column: getattr(old, column) for column in IDENTITY}
    others = {column: getattr(other, column) for column in IDENTITY}
    # Names and instances are unique: a row holds something else for the moment in which the other takes them.
    NodeRow.objects.filter(pk=other.pk).update(name=str(other.uuid), instance_uuid=None)
    NodeRow.objects.filter(pk=old.pk).update(**others | {"instance_uuid": None})
    NodeRow.objects.filter(pk=other.pk).update(**olds)


def _swap_addresses(old: NodeRow, other: NodeRow) -> None:
    """Ports give each other their addresses by rank: the boot port first, then by name. So do the nodes' VLANs."""
    for mine, theirs in zip(_ports(old), _ports(other), strict=False):
        _swap("port", mine, theirs)
    _swap("node", old, other)


def _ports(node: NodeRow) -> list[PortRow]:
    return list(PortRow.objects.filter(node=node).order_by("-boot", "name", "id"))


def _swap(owner: str, old: NodeRow | PortRow, other: NodeRow | PortRow) -> None:
    """No owner may have two of a kind at any moment: what the other had is given anew."""
    theirs = list(AddressRow.objects.filter(**{owner: other}).values("network_id", "address", "family", "released_at"))
    AddressRow.objects.filter(**{owner: other}).delete()
    AddressRow.objects.filter(**{owner: old}).update(**{owner: other})
    AddressRow.objects.bulk_create(AddressRow(**values, **{owner: old}) for values in theirs)


def _retire(old: NodeRow, other: NodeRow, operation: str) -> None:
    NodeRow.objects.filter(pk=old.pk).update(
        maintenance=True,
        maintenance_reason=f"replaced by the machine {other.uuid} (serial {other.serial or 'unknown'})",
        driver_internal_info={**old.driver_internal_info, DONE: operation},
        **node_columns({"once": None, "installed": None, "goal": None}),
    )


def _deploy(node_id: int, work: WorkRow) -> None:
    row = whole(node_id)
    node: Node = node_of(row)
    operation, changes = begin(node, FLOWS["deploy"], timezone.now())
    NodeRow.objects.filter(pk=node_id).update(**node_columns({**changes, "goal": None, "last_error": None}))
    WorkRow.objects.filter(pk=work.pk).update(**operation_columns(operation))
    wake(node_id)
