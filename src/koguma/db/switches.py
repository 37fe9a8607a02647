"""Switches on record: the catalog as the API changes it, what a worker needs to reach one, and what their ports were
put into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from koguma.contracts.errors import SwitchRefused
from koguma.contracts.switches import OpenSwitch, SwitchAccess, SwitchDriver
from koguma.db.errors import AlreadyExists, InUse, NotFound, Stale
from koguma.db.models import NodeRow, PlacementRow, SwitchRow
from koguma.db.sealing import seal, unseal
from koguma.model import names
from koguma.model import switch as model
from koguma.model.switch import Placement, Switch

SWITCH_LOCK = 0x4B6F7377
"""The class of the advisory locks on switches; their object is the switch's row id."""

SECRETS = ("password", "private_key")
_FIELDS = ("driver", "address", "username", "port", "host_key", "chassis", "parking_vlan")


def all_switches() -> list[Switch]:
    return [switch_of(row) for row in SwitchRow.objects.order_by("name")]


def find(name: str) -> Switch:
    """Raises NotFound."""
    return switch_of(_row(name))


def create(switch: Switch, secrets: Mapping[str, str]) -> Switch:
    """Raises InvalidValue or AlreadyExists."""
    switch = model.validated(switch)
    sealed = {key: seal(secrets.get(key, "")) for key in SECRETS}
    try:
        with transaction.atomic():
            row = SwitchRow.objects.create(name=switch.name, **_columns(switch), **sealed)
    except IntegrityError:
        raise AlreadyExists(f"a switch name belongs to one switch, {switch.name!r} exists") from None
    return switch_of(row)


def edit(name: str, changes: Mapping[str, Any], version: int | None = None) -> Switch:
    """Change fields, secrets among them. Raises NotFound, Stale or InvalidValue."""
    with transaction.atomic():
        row = _row(name, lock=True)
        if version is not None and version != row.version:
            raise Stale(f"it has changed since version {version}, it has {row.version} (switch {name})")
        plain = {key: value for key, value in changes.items() if key not in SECRETS}
        columns = _columns(model.validated(replace(switch_of(row), **plain)))
        sealed = {key: seal(changes[key] or "") for key in SECRETS if key in changes}
        SwitchRow.objects.filter(pk=row.pk).update(**columns, **sealed)
    return find(name)


def delete(name: str) -> None:
    """Raises NotFound or InUse."""
    row = _row(name)
    with transaction.atomic():
        PlacementRow.objects.filter(switch=row, node=None).delete()
        try:
            row.delete()
        except ProtectedError:
            used = PlacementRow.objects.filter(switch=row).count()
            raise InUse(f"a switch in use cannot be deleted, {used} of its ports are nodes' (switch {name})") from None


def has_secrets(name: str) -> dict[str, bool]:
    row = _row(name)
    return {key: bool(getattr(row, key)) for key in SECRETS}


def placements(*, switch: str | None = None, node: int | None = None) -> list[Placement]:
    """By switch and port."""
    rows = PlacementRow.objects.select_related("switch", "node").order_by("switch__name", "port")
    rows = rows.filter(switch__name=switch) if switch else rows
    return [_placement_of(row) for row in (rows.filter(node=node) if node else rows)]


def record(placement: Placement, node: int, *, written: bool) -> None:
    """What a port is about to be put into, and then that it was."""
    PlacementRow.objects.update_or_create(
        switch=SwitchRow.objects.get(name=placement.switch),
        port=placement.port,
        defaults={
            "node": NodeRow.objects.filter(pk=node).first(),
            "network": placement.network,
            "untagged": placement.untagged,
            "tagged": list(placement.tagged),
            "bond": placement.bond,
            "written_at": timezone.now() if written else None,
        },
    )


@contextmanager
def opened(name: str, open_switch: OpenSwitch) -> Iterator[SwitchDriver | None]:
    """The switch for this connection alone; None while another one has it. The lock ends with the connection."""
    row = SwitchRow.objects.filter(name=name).first()
    if row is None:
        raise SwitchRefused(f"a switch must be on record, {name!r} was deleted")
    if not _lock("pg_try_advisory_lock", row.pk):
        yield None
        return
    try:
        yield open_switch(access_of(row))
    finally:
        if connection.connection is not None and not connection.connection.closed:
            _lock("pg_advisory_unlock", row.pk)


def access_of(row: SwitchRow) -> SwitchAccess:
    return SwitchAccess(
        row.driver,
        row.address,
        row.username,
        unseal(row.password),
        unseal(row.private_key),
        row.host_key,
        row.port,
    )


def switch_of(row: SwitchRow) -> Switch:
    return Switch(name=row.name, version=row.version, **{key: getattr(row, key) for key in _FIELDS})


def _columns(switch: Switch) -> dict[str, Any]:
    return {key: getattr(switch, key) for key in _FIELDS}


def _placement_of(row: PlacementRow) -> Placement:
    return Placement(
        row.switch.name,
        row.port,
        str(row.node.uuid) if row.node else None,
        row.network,
        row.untagged,
        tuple(row.tagged),
        row.bond,
        row.written_at,
    )


def _row(name: str, *, lock: bool = False) -> SwitchRow:
    rows = SwitchRow.objects.select_for_update() if lock else SwitchRow.objects.all()
    row = rows.filter(name=name).first()
    if row is None:
        raise NotFound(f"a switch must exist with this name, got {names.shown(name)}")
    return row


def _lock(function: str, switch_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s, %s)", [SWITCH_LOCK, switch_id])
        return bool(cursor.fetchone()[0])
