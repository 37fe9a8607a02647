"""Machines, networks, flavors and reports for tests, each with sensible values a test can change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from koguma.db import catalog, registrations
from koguma.db.models import NodeRow
from koguma.model import registration
from koguma.model.flavor import Flavor
from koguma.model.network import Network, Purpose


def machine_uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def mac(number: int, port: int = 0) -> str:
    return f"52:54:00:{number >> 8 & 255:02x}:{number & 255:02x}:{port:02x}"


def machine(number: int = 1, **changes: Any) -> dict[str, Any]:
    """What stage 1 of machine `number` posts to register."""
    document = {
        "uuid": machine_uuid(number),
        "serial": f"SER{number:04}",
        "manufacturer": "Test",
        "product": "Machine",
        "bios_version": "1",
        "firmware": "bios",
        "architecture": "x86_64",
        "cpu": {"model": "cpu", "count": 2, "sockets": 1},
        "memory_bytes": 2 << 30,
        "disks": [],
        "ports": [
            {
                "name": "ens3",
                "mac": mac(number),
                "driver": "virtio_net",
                "link": True,
                "speed_mbps": None,
                "boot": True,
                "lldp": {"chassis": "lab-switch", "port": f"node{number}-eth0", "mgmt_address": None},
            }
        ],
        "bmc": {
            "address": f"10.77.8.{10 + number}",
            "mac": None,
            "username": "koguma",
            "password": f"secret-{number}",
            "driver": "fake",
        },
        "remote_address": "10.77.0.200",
    }
    return {**document, **changes}


def register(number: int = 1, **changes: Any) -> NodeRow:
    return registrations.register(registration.parse(machine(number, **changes)))


def network(**changes: Any) -> Network:
    values: dict[str, Any] = {
        "name": "provisioning",
        "purpose": Purpose.PROVISIONING,
        "vlan": 100,
        "subnet": "10.77.0.0/24",
        "gateway": "10.77.0.1",
        "discovery_start": "10.77.0.200",
        "discovery_end": "10.77.0.250",
    }
    return catalog.create_network(Network(**{**values, **changes}))


def flavor(**changes: Any) -> Flavor:
    values: dict[str, Any] = {"name": "compute", "label": "compute"}
    return catalog.create_flavor(Flavor(**{**values, **changes}))


def report(number: int, boot_id: str, kind: str, at: datetime | None = None, **body: Any) -> dict[str, Any]:
    return {
        "id": uuid4().hex,
        "at": (at or datetime.now(UTC)).isoformat(),
        "uuid": machine_uuid(number),
        "boot_id": boot_id,
        "kind": kind,
        "body": body,
    }
