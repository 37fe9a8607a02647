"""The address manager under load, with both families, and its reservations."""

from __future__ import annotations

import ipaddress
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import IntegrityError

from koguma.db import addresses, catalog, nodes
from koguma.db.errors import AlreadyExists, NotFound, Stale
from koguma.db.models import AddressRow, NetworkRow, NodeRow
from koguma.model.layout import Access, Layout
from koguma.model.network import Purpose
from koguma.model.subnet import Reservation, Subnet
from tests.unit import factories
from tests.unit.db.test_addresses import ports
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")

SEED = int(os.environ.get("KOGUMA_TEST_SEED", "4"))


def tenant(name: str = "red", vlan: int = 301, subnet: str = "10.90.1.0/24", **changes: object) -> None:
    values = {"purpose": Purpose.TENANT, "gateway": None, "discovery_start": None, "discovery_end": None}
    factories.network(**{**values, "name": name, "vlan": vlan, "subnet": subnet, **changes})


def test_processes_that_allocate_give_back_and_reserve_at_once_never_share_an_address(database: str) -> None:
    """Four processes with connections of their own; the seed decides who does what."""
    factories.network()
    wanted = ports(60)
    random.Random(SEED).shuffle(wanted)
    program = Path(__file__).with_name("address_process.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(program), str(SEED + number), *(str(port.pk) for port in wanted[number::4])],
            env={**os.environ, "KOGUMA_DB_DSN": database},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    rows = list(AddressRow.objects.values_list("address", "port_id"))
    assert len(rows) == 60
    assert len({address for address, _ in rows}) == 60
    assert sum(len(text.splitlines()) for text in said) > 60, "addresses were given back and taken again"
    network = catalog.network("provisioning")
    assert [address for address, _ in rows if network.reason_not_for_ports(address)] == [], "given though reserved"


def test_nodes_that_settle_at_once_share_no_address_of_either_family() -> None:
    factories.network()
    tenant(more_subnets=(Subnet("fd00:301::/64", "fd00:301::1"),))
    factories.flavor(layout=Layout(networks=(Access("red"),)))
    in_threads(12, lambda number: factories.register(number + 1))
    rows = AddressRow.objects.filter(network__name="red")
    for family in (4, 6):
        mine = [row.address for row in rows if row.family == family]
        assert len(set(mine)) == 12
        assert {ipaddress.ip_address(address).version for address in mine} == {family}


def test_the_database_refuses_a_second_owner_and_a_second_spelling() -> None:
    factories.network()
    network = NetworkRow.objects.get()
    first, second = ports(2)
    AddressRow.objects.create(network=network, address="10.77.0.5", port=first)
    with pytest.raises(IntegrityError, match="koguma_address_unique"):
        AddressRow.objects.create(network=network, address="10.77.0.5", port=second)
    for spelling, family in (("fd00::0", 6), ("FD00::1", 6), ("10.77.0.6", 6)):
        with pytest.raises(IntegrityError, match="koguma_address_normal"):
            AddressRow.objects.create(network=network, address=spelling, family=family, port=second)


def test_an_address_reserved_for_a_node_waits_for_it() -> None:
    factories.network()
    kept = Reservation("10.77.0.2", "its licence names it", factories.machine_uuid(7))
    assert catalog.reserve("provisioning", kept) == catalog.reserve("provisioning", kept), "repeating changes nothing"
    factories.register(1)
    factories.register(7)
    assert nodes.find(factories.machine_uuid(1)).addresses == ("10.77.0.3",)
    assert nodes.find(factories.machine_uuid(7)).addresses == ("10.77.0.2",)
    assert [(item.address, item.node) for item in addresses.given("provisioning")] == [
        ("10.77.0.2", "node-2"),
        ("10.77.0.3", "node-1"),
    ]
    catalog.release("provisioning", "10.77.0.2")
    with pytest.raises(NotFound, match=r"'10\.77\.0\.2' is none"):
        catalog.release("provisioning", "10.77.0.2")


def test_what_somebody_has_is_not_reserved_for_another() -> None:
    factories.network()
    factories.register(1)
    with pytest.raises(AlreadyExists, match=r"10\.77\.0\.2 is node"):
        catalog.reserve("provisioning", Reservation("10.77.0.2-10.77.0.4", "printers"))
    version = catalog.network("provisioning").version
    catalog.reserve("provisioning", Reservation("10.77.0.9", "printers"), version)
    with pytest.raises(Stale):
        catalog.reserve("provisioning", Reservation("10.77.0.10"), version)


def test_a_network_that_gets_ipv6_gives_it_to_who_is_in_it() -> None:
    factories.network()
    tenant()
    factories.flavor(layout=Layout(networks=(Access("red"),)))
    factories.register(1)
    more = (Subnet("fd00:301::/64", None, ("fd00:301::100-fd00:301::1ff",)),)
    catalog.edit_network("red", lambda network: replace(network, more_subnets=more))
    held = {item.address for item in nodes.find("node-1").vlan_addresses}
    assert held == {"10.90.1.1", "fd00:301::100"}


def test_rows_from_before_reservations_had_reasons_are_read() -> None:
    factories.network()
    NetworkRow.objects.update(reserved=["10.77.0.2", "10.77.0.3-10.77.0.9"])
    factories.register(1)
    assert nodes.find("node-1").addresses == ("10.77.0.10",)


def test_a_node_that_is_forgotten_gives_everything_back() -> None:
    factories.network()
    tenant(more_subnets=(Subnet("fd00:301::/64"),))
    factories.flavor(layout=Layout(networks=(Access("red"),)))
    factories.register(1)
    assert AddressRow.objects.count() == 3
    nodes.delete("node-1", force=True)
    assert AddressRow.objects.count() == 0
    assert NodeRow.objects.count() == 0
