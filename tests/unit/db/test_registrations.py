from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from koguma.db import nodes, registrations
from koguma.db.models import AddressRow, NodeRow, PortRow
from koguma.db.sealing import unseal
from koguma.lifecycle.errors import IdentityConflict, NotAcceptedNow
from koguma.model.states import ProvisionState
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """All at once; each result, or the error."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        from django.db import connection

        gate.wait()
        try:
            return work(number)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_a_new_machine_becomes_a_node_with_ports_address_and_host_keys() -> None:
    factories.network()
    factories.flavor()
    row = factories.register(1)
    node = nodes.find("node-1")
    assert (node.name, node.serial, node.flavor) == ("node-1", "SER0001", "compute")
    assert (node.provision_state, node.goal) == (ProvisionState.ENROLL, ProvisionState.ACTIVE)
    assert [(port.mac, port.address, port.boot) for port in node.ports] == [(factories.mac(1), "10.77.0.2", True)]
    assert node.ports[0].lldp == {"chassis": "lab-switch", "port": "node1-eth0", "mgmt_address": None}
    assert node.ssh_host_public_key.startswith("ssh-ed25519 ")
    assert unseal(row.ssh_host_key).startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_secrets_are_sealed_in_the_table() -> None:
    row = factories.register(1)
    assert "secret-1" not in row.bmc_password
    assert "PRIVATE KEY" not in row.ssh_host_key
    assert unseal(row.bmc_password) == "secret-1"


def test_registering_again_updates_the_same_node() -> None:
    factories.network()
    first = factories.register(1)
    second = factories.register(1, memory_bytes=4 << 30, bmc={**factories.machine(1)["bmc"], "password": "new"})
    assert first.pk == second.pk
    assert NodeRow.objects.count() == AddressRow.objects.count() == 1
    row = NodeRow.objects.get()
    assert row.inventory["memory_bytes"] == 4 << 30
    assert unseal(row.bmc_password) == "new"
    assert row.ssh_host_key == first.ssh_host_key


def test_a_nic_that_went_gives_its_address_back_and_the_boot_port_keeps_its_own() -> None:
    factories.network()
    extra = {"name": "ens4", "mac": factories.mac(1, 1), "boot": False}
    factories.register(1, ports=[*factories.machine(1)["ports"], extra])
    assert PortRow.objects.count() == 2
    factories.register(1)
    assert PortRow.objects.count() == 1
    assert nodes.find("node-1").addresses == ("10.77.0.2",)


def test_another_nodes_mac_or_serial_is_a_conflict_and_nothing_is_stored() -> None:
    factories.register(1)
    with pytest.raises(IdentityConflict, match="SER0001"):
        factories.register(2, serial="SER0001")
    with pytest.raises(IdentityConflict, match=factories.mac(1)):
        factories.register(2, ports=factories.machine(1)["ports"])
    with pytest.raises(IdentityConflict, match="another serial"):
        factories.register(1, serial="OTHER")
    assert NodeRow.objects.count() == PortRow.objects.count() == 1


def test_placeholder_serials_do_not_make_two_machines_one() -> None:
    for number in (1, 2, 3):
        factories.register(number, serial="To be filled by O.E.M.")
    assert NodeRow.objects.count() == 3


@pytest.mark.parametrize("state", [ProvisionState.ACTIVE, ProvisionState.AVAILABLE, ProvisionState.WAIT_CALL_BACK])
def test_a_node_in_use_keeps_its_bmc_credentials(state: ProvisionState) -> None:
    row = factories.register(1)
    NodeRow.objects.filter(pk=row.pk).update(provision_state=state.value)
    evil = {**factories.machine(1)["bmc"], "address": "10.77.8.99", "password": "evil"}
    with pytest.raises(NotAcceptedNow, match=state.value):
        factories.register(1, bmc=evil)
    factories.register(1)  # the same again, as a machine whose answer was lost repeats it
    row.refresh_from_db()
    assert (row.bmc_address, unseal(row.bmc_password)) == ("10.77.8.11", "secret-1")
    assert row.provision_state == state.value


def test_names_fill_the_lowest_gap() -> None:
    for number in (1, 2, 3):
        factories.register(number)
    NodeRow.objects.filter(name="node-2").update(name="storage")
    factories.register(4)
    factories.register(5)
    assert set(NodeRow.objects.values_list("name", flat=True)) == {"node-1", "storage", "node-3", "node-2", "node-4"}


def test_machines_that_register_at_once_get_distinct_names_and_addresses() -> None:
    factories.network()
    results = in_threads(12, lambda number: factories.register(number + 1).name)
    assert sorted(results) == sorted(f"node-{number}" for number in range(1, 13))
    assert AddressRow.objects.count() == 12
    assert len(set(AddressRow.objects.values_list("address", flat=True))) == 12


def test_one_machine_that_registers_twice_at_once_is_one_node() -> None:
    results = in_threads(6, lambda _: factories.register(1).name)
    assert set(results) == {"node-1"}
    assert NodeRow.objects.count() == 1


def test_of_two_machines_with_one_mac_at_once_exactly_one_is_taken() -> None:
    ports = factories.machine(1)["ports"]
    results = in_threads(4, lambda number: factories.register(number + 1, ports=ports).name)
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, IdentityConflict) for result in results) == 3


def test_without_a_network_a_machine_registers_and_has_no_address_yet() -> None:
    factories.register(1)
    assert nodes.find("node-1").addresses == ()


def test_a_node_can_be_made_by_hand_and_the_machine_then_registers_as_it() -> None:
    made = registrations.create_by_hand(
        {
            "uuid": factories.machine_uuid(1),
            "name": "web-1",
            "flavor": None,
            "serial": "",
            "bmc": None,
            "ports": [{"mac": factories.mac(1), "name": "", "boot": True}],
        }
    )
    assert made.name == "web-1"
    assert factories.register(1).name == "web-1"
