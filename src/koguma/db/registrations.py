"""Takes the registration of a machine: one transaction that makes or updates its node.

Registrations take turns, so that two machines with one identifier, or two that want the same next name, cannot both be
right.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from koguma.db import host_keys, vlan_addresses
from koguma.db.addresses import ensure_boot_address
from koguma.db.errors import AlreadyExists, NoFreeAddress, NoNetwork, NotFound
from koguma.db.models import FlavorRow, NodeRow, PortRow
from koguma.db.node_rows import whole
from koguma.db.rows import node_of
from koguma.db.sealing import seal, unseal
from koguma.db.wake import wake
from koguma.lifecycle.identity import Known, reject_unless_open, which_node
from koguma.model import names
from koguma.model.node import Node
from koguma.model.registration import Registration
from koguma.model.states import ProvisionState, StatusCode

log = logging.getLogger(__name__)

_TURN = 0x4B6F6701


def register(registration: Registration) -> NodeRow:
    """The node of the machine. Raises IdentityConflict or NotAcceptedNow, and then nothing was stored."""
    with transaction.atomic():
        _take_turn()
        node = _known_node(registration)
        if node is None:
            node = _create(registration)
        elif not _may_change(node, registration):
            return node
        _store_hardware(node, registration)
        _store_ports(node, registration)
        _give_addresses(node, registration.remote_address)
        wake(node.pk)
    return node


def next_name() -> str:
    """`node-1`, `node-2` …: the lowest number nobody has."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH taken AS (SELECT substring(name FROM 6)::int AS number FROM koguma_node"
            "               WHERE name ~ '^node-[1-9][0-9]{0,8}$')"
            " SELECT coalesce(min(number), 0) + 1 FROM (SELECT 0 AS number UNION ALL SELECT number FROM taken) AS have"
            " WHERE NOT EXISTS (SELECT 1 FROM taken WHERE taken.number = have.number + 1)"
        )
        (number,) = cursor.fetchone()
    return f"node-{number}"


def add_node(uuid: str, name: str, **columns: object) -> NodeRow:
    """A node with what every node has: host keys, a place for its work and its heartbeats."""
    private, public = host_keys.make(name)
    node = NodeRow(uuid=uuid, name=name, ssh_host_key=seal(private), ssh_host_public_key=public, **columns)
    sql, fields = _insert()
    values = json.dumps({field.column: getattr(node, field.attname) for field in fields}, default=str)
    with connection.cursor() as cursor:
        cursor.execute(sql, [values])
        node.pk, node.created_at, node.updated_at = cursor.fetchone()
    node._state.adding, node._state.db = False, connection.alias
    return node


@lru_cache(maxsize=1)
def _insert() -> tuple[str, list[Any]]:
    """A new node's SQL, one statement that needs no transaction; and the fields of its values, which go as one JSON
    object: 77 parameters would take the driver longer than the insertion takes PostgreSQL.
    """
    fields = [field for field in NodeRow._meta.concrete_fields if not field.primary_key and not field.has_db_default()]
    names = ", ".join(f'"{field.column}"' for field in fields)
    return _INSERT.replace("COLUMNS", names), fields


_INSERT = """
WITH node AS (
    INSERT INTO koguma_node (COLUMNS) SELECT COLUMNS FROM jsonb_populate_record(NULL::koguma_node, %s::jsonb)
    RETURNING id, created_at, updated_at
),
work AS (
    INSERT INTO koguma_work (node_id, woken, flow, step, tries, attempt, data, slot)
    SELECT id, false, '', '', 0, 1, '{}', '' FROM node
),
pulse AS (INSERT INTO koguma_pulse (node_id) SELECT id FROM node)
SELECT id, created_at, updated_at FROM node
"""


def _known_node(registration: Registration) -> NodeRow | None:
    same = Q(uuid=registration.uuid) | Q(pk__in=_owners(registration))
    if registration.serial:
        same |= Q(serial=registration.serial)
    rows = {
        str(row.uuid): row
        for row in NodeRow.objects.filter(same).prefetch_related("ports").select_for_update(no_key=True)
    }
    known = [Known(uuid, row.serial, frozenset(port.mac for port in row.ports.all())) for uuid, row in rows.items()]
    match = which_node(registration.uuid, registration.serial, registration.macs, known)
    return rows[match.uuid] if match else None


def _owners(registration: Registration) -> QuerySet[PortRow, int]:
    return PortRow.objects.filter(mac__in=registration.macs).values_list("node_id", flat=True)


def _create(registration: Registration) -> NodeRow:
    auto = settings.KOGUMA_ENROLLMENT_AUTO
    node = add_node(
        registration.uuid,
        next_name(),
        flavor=FlavorRow.objects.filter(name=settings.KOGUMA_ENROLLMENT_FLAVOR).first(),
        goal=ProvisionState.ACTIVE.value if auto else None,
        status_code=StatusCode.REGISTERED.value,
        status="registered",
    )
    log.info(
        "a machine registered", extra={"node": node.name, "uuid": registration.uuid, "serial": registration.serial}
    )
    return node


def _may_change(node: NodeRow, registration: Registration) -> bool:
    """False when the machine only repeats what is on record. Raises NotAcceptedNow."""
    bmc = registration.bmc
    told = (bmc.driver, bmc.address, bmc.username) if bmc else None
    changes = told is not None and told != (node.bmc_driver, node.bmc_address, node.bmc_username)
    changes = changes or (bmc is not None and bmc.password != unseal(node.bmc_password))
    return reject_unless_open(ProvisionState(node.provision_state), changes_bmc=changes)


def _store_hardware(node: NodeRow, registration: Registration) -> None:
    node.serial = registration.serial or node.serial
    node.manufacturer = registration.manufacturer
    node.product = registration.product
    node.architecture = registration.architecture
    node.firmware = registration.firmware
    node.inventory = registration.inventory
    node.registered_at = timezone.now()
    if bmc := registration.bmc:
        node.bmc_driver, node.bmc_address, node.bmc_username = bmc.driver, bmc.address, bmc.username
        node.bmc_mac, node.bmc_password = bmc.mac, seal(bmc.password)
    node.save()


def _store_ports(node: NodeRow, registration: Registration) -> None:
    """Ports are kept by MAC, so that a port keeps its address; those the machine no longer has go, with theirs."""
    PortRow.objects.filter(node=node).exclude(mac__in=registration.macs).delete()
    boot = next((port.mac for port in registration.ports if port.boot), registration.ports[0].mac)
    for port in registration.ports:
        PortRow.objects.update_or_create(
            mac=port.mac,
            defaults={
                "node": node,
                "name": port.name,
                "driver": port.driver or "",
                "boot": port.mac == boot,
                "link": port.link,
                "speed_mbps": port.speed_mbps,
                "lldp": port.lldp.model_dump() if port.lldp else None,
            },
        )


def _give_addresses(node: NodeRow, remote_address: str | None) -> None:
    """At once, so that its next DHCP exchange is answered with the address it keeps. Deploying looks again."""
    for give in (
        lambda: ensure_boot_address(node, remote_address),
        lambda: vlan_addresses.settle(NodeRow.objects.filter(pk=node.pk)),
    ):
        try:
            with transaction.atomic():
                give()
        except (NoNetwork, NoFreeAddress) as error:
            log.warning("a node registered without getting an address", extra={"node": node.name, "reason": str(error)})


def create_by_hand(values: dict[str, Any]) -> Node:
    """A node that did not register by itself: uuid, name, flavor, serial, bmc and ports, each optional.

    Raises InvalidValue, NotFound, AlreadyExists, IdentityConflict or NoFreeAddress.
    """
    uuid = names.machine_uuid(values["uuid"]) if values["uuid"] else str(uuid4())
    macs = [names.mac(port["mac"]) for port in values["ports"]]
    serial = names.serial(values["serial"])
    name = names.host_name(values["name"]) if values["name"] else None
    flavor = FlavorRow.objects.filter(name=values["flavor"]).first()
    if values["flavor"] and flavor is None:
        raise NotFound(f"a flavor must exist with this name, got {names.shown(values['flavor'])}")
    bmc = values["bmc"] or {"driver": "", "address": "", "username": "", "password": ""}
    with transaction.atomic():
        _take_turn()
        if NodeRow.objects.filter(Q(uuid=uuid) | (Q(name=name) if name else Q(pk=None))).exists():
            raise AlreadyExists(f"a node must have its own UUID and name, got {uuid} and {name!r}")
        _reject_known(uuid, serial, macs)
        node = add_node(
            uuid,
            name or next_name(),
            flavor=flavor,
            serial=serial,
            known_by_mac=not values["uuid"],
            bmc_driver=bmc["driver"],
            bmc_address=bmc["address"],
            bmc_username=bmc["username"],
            bmc_password=seal(bmc["password"]),
        )
        PortRow.objects.bulk_create(
            PortRow(node=node, mac=mac, name=port["name"], boot=port["boot"])
            for mac, port in zip(macs, values["ports"], strict=True)
        )
        vlan_addresses.settle(NodeRow.objects.filter(pk=node.pk))
    return node_of(whole(node.pk))


def _take_turn() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])
    vlan_addresses.take_turn()


def _reject_known(uuid: str, serial: str, macs: list[str]) -> None:
    owners = NodeRow.objects.filter(Q(ports__mac__in=macs) | (Q(serial=serial) if serial else Q(pk=None))).distinct()
    known = [Known(str(row.uuid), row.serial, frozenset(row.ports.values_list("mac", flat=True))) for row in owners]
    which_node(uuid, serial, macs, known)
