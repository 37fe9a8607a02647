"""The lifecycle's steps on a real Open vSwitch: frames between namespaces tell where two tenants' nodes are.

The nodes' hardware is fake, their switch is not. `tests/boot/test_networks.py` has the same with machines that boot.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from koguma.contracts.power import FakePower
from koguma.db import nodes, registrations, switches
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import AddressRow, PortRow
from koguma.drivers.switch import open_switch
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.network import Purpose
from koguma.model.states import ProvisionState, StatusCode, Verb
from koguma.model.switch import Switch
from tests.contract.ovs_switch import OvsBench
from tests.unit import factories

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.usefixtures("db"),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="Open vSwitch is not installed"),
]

PROVISIONING, BMC, RED, BLUE, PARKING = 100, 200, 301, 302, 999
EVERYWHERE = (PROVISIONING, BMC, RED, BLUE, PARKING)
WATCHER = "p3"
"""A port that stands in one VLAN after the other."""


@pytest.fixture(scope="module")
def bench() -> Iterator[OvsBench]:
    bench = OvsBench()
    yield bench
    bench.close()


@pytest.fixture
def executor(bench: OvsBench) -> Executor:
    bench.reset()
    factories.network()
    for name, vlan in (("red", RED), ("blue", BLUE)):
        factories.network(
            name=name, purpose=Purpose.TENANT, vlan=vlan, subnet=f"10.90.{vlan - 300}.0/24", gateway=None,
            discovery_start=None, discovery_end=None,
        )  # fmt: skip
    switches.create(Switch("leaf", "ovs", bench.target), {})
    for number, network in ((1, "red"), (2, "blue")):
        node = registrations.add_node(
            factories.machine_uuid(number), f"n{number}", bmc_driver="fake-hardware", vifs=[{"id": network}],
            interfaces={"network": "koguma"}, provision_state=ProvisionState.AVAILABLE.value,
            driver_info={"fake_deploy_delay_s": 60},
        )  # fmt: skip
        cable = {"switch_info": "leaf", "port_id": f"p{number}"}
        PortRow.objects.create(node=node, mac=factories.mac(number), local_link_connection=cable)
    return worker(datetime.now(UTC))


def worker(now: datetime) -> Executor:
    return Executor(PostgresStore(open_switch), lambda _: FakePower(), Policy(), lambda: now)


def reached_from(bench: OvsBench, port: str) -> set[int]:
    """The VLANs that the port's frames arrive in, without a tag or with one."""
    found = set()
    for vlan in EVERYWHERE:
        bench.vsctl("set", "port", WATCHER, f"tag={vlan}")
        if bench.passes(port, WATCHER) or bench.passes(port, WATCHER, vlan):
            found.add(vlan)
    return found


def test_two_tenants_nodes_reach_their_own_network_and_nothing_else(bench: OvsBench, executor: Executor) -> None:
    for number in (1, 2):
        nodes.request_verb(f"n{number}", Verb.DEPLOY)
        executor.advance(factories.machine_uuid(number))
        assert nodes.find(f"n{number}").provision_state is ProvisionState.WAIT_CALL_BACK
    assert [reached_from(bench, port) for port in ("p1", "p2")] == [{PROVISIONING}, {PROVISIONING}]
    later = worker(datetime.now(UTC) + timedelta(seconds=61))
    for number in (1, 2):
        later.advance(factories.machine_uuid(number))
        assert nodes.find(f"n{number}").provision_state is ProvisionState.ACTIVE
    assert [reached_from(bench, port) for port in ("p1", "p2")] == [{RED}, {BLUE}]
    assert not bench.passes("p1", "p2")
    for number in (1, 2):
        nodes.request_verb(f"n{number}", Verb.UNDEPLOY)
        later.advance(factories.machine_uuid(number))
        assert nodes.find(f"n{number}").provision_state is ProvisionState.AVAILABLE
    assert [reached_from(bench, port) for port in ("p1", "p2")] == [{PROVISIONING}, {PROVISIONING}]
    assert not AddressRow.objects.filter(network__name__in=("red", "blue")).exists()


def test_a_switch_that_is_away_makes_its_nodes_wait(bench: OvsBench, executor: Executor) -> None:
    switches.edit("leaf", {"address": f"unix:{bench.directory}/nobody"})
    nodes.request_verb("n1", Verb.DEPLOY)
    executor.advance(factories.machine_uuid(1))
    node = nodes.find("n1")
    assert (node.provision_state, node.status_code) == (ProvisionState.DEPLOYING, StatusCode.WAITING_FOR_SWITCH_PORT)
    assert "the switch must answer" in node.status
    switches.edit("leaf", {"address": bench.target})
    executor.advance(factories.machine_uuid(1))
    assert nodes.find("n1").provision_state is ProvisionState.WAIT_CALL_BACK
