from __future__ import annotations

import pytest

from koguma.db import addresses, catalog, nodes
from koguma.db.errors import AlreadyExists, InUse, NoFreeAddress
from koguma.db.models import AddressRow, NetworkRow, NodeRow, PortRow
from koguma.model.errors import InvalidValue
from koguma.model.network import Purpose
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")


def ports(count: int) -> list[PortRow]:
    made = []
    for number in range(1, count + 1):
        node = NodeRow.objects.create(uuid=factories.machine_uuid(number), name=f"n{number}")
        made.append(PortRow.objects.create(node=node, mac=factories.mac(number)))
    return made


def test_however_many_ask_at_once_no_address_is_given_twice_and_none_is_left_out() -> None:
    factories.network(subnet="10.77.0.0/27", discovery_start=None, discovery_end=None)
    network = NetworkRow.objects.get()
    wanted = ports(32)
    results = in_threads(32, lambda number: addresses.allocate(network, wanted[number]).address)
    given = [result for result in results if isinstance(result, str)]
    assert len(given) == len(set(given)) == 29  # 32 less network, broadcast and gateway
    assert [type(result) for result in results if not isinstance(result, str)] == [NoFreeAddress] * 3


def test_an_address_given_back_is_given_again() -> None:
    factories.network()
    network = NetworkRow.objects.get()
    first, second = ports(2)
    addresses.allocate(network, first)
    nodes.delete("n1")
    assert addresses.allocate(network, second).address == "10.77.0.2"


def test_an_address_asked_for_is_given_unless_it_is_taken_or_kept_free() -> None:
    factories.network()
    network = NetworkRow.objects.get()
    first, second = ports(2)
    addresses.allocate_exactly(network, first, "10.77.0.77")
    with pytest.raises(AlreadyExists):
        addresses.allocate_exactly(network, second, "10.77.0.77")
    for kept, reason in (("10.77.0.1", "gateway"), ("10.77.0.210", "discovery"), ("10.78.0.1", "outside")):
        with pytest.raises(InvalidValue, match=reason):
            addresses.allocate_exactly(network, second, kept)


def test_the_machine_gets_its_address_from_the_network_it_asked_from() -> None:
    factories.network()
    factories.network(
        name="provisioning-b", subnet="10.78.0.0/24", gateway=None, discovery_start=None, discovery_end=None
    )
    factories.register(1, remote_address="10.78.0.222")
    assert nodes.find("node-1").addresses == ("10.78.0.1",)


def test_a_network_is_not_changed_or_deleted_under_its_ports() -> None:
    network = factories.network()
    factories.register(1)
    with pytest.raises(InUse, match="1 of its addresses"):
        catalog.delete_network("provisioning")
    from dataclasses import replace

    with pytest.raises(InvalidValue, match="then it is the gateway"):
        catalog.change_network(replace(network, gateway="10.77.0.2"))
    assert AddressRow.objects.count() == 1


def test_networks_may_not_overlap() -> None:
    factories.network()
    with pytest.raises(AlreadyExists, match="overlaps"):
        factories.network(name="other", subnet="10.0.0.0/8", purpose=Purpose.BMC, gateway=None)
