"""Where a node's switch ports are in each phase of its life: the real database, simulated time, switches in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from django.db import connection

from koguma.contracts.errors import SwitchRefused, SwitchUnreachable
from koguma.contracts.power import Access, FakePower
from koguma.contracts.switches import FakeSwitch, PortVlans, SwitchAccess
from koguma.db import catalog, nodes, power_polls, registrations, snapshots, switches
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import AddressRow, NodeRow, PlacementRow, PortRow
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.layout import Access as Untagged
from koguma.model.layout import Bond, BondMode, Layout, Vlan
from koguma.model.network import Purpose
from koguma.model.node import Node
from koguma.model.states import PowerAction, PowerState, ProvisionState, StatusCode, Verb
from koguma.model.subnet import Subnet
from koguma.model.switch import Switch
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site as MachineSite

S = ProvisionState
PROVISIONING, RED, BLUE, STORAGE, PARKING = (PortVlans.access(vlan) for vlan in (100, 301, 302, 200, 999))


class Site(MachineSite):
    """With a switch that node N is cabled to by the ports nodeN-eth0 and nodeN-eth1."""

    def __init__(self) -> None:
        self.switch = FakeSwitch([f"node{number}-eth{nic}" for number in (1, 2) for nic in (0, 1)], sleep=self.sleep)
        super().__init__()
        self.policy = Policy(boot_timeout_s=900, boot_attempts_max=3, self_power_off_s=90, switch_step_timeout_s=120)
        self.new_worker()

    def new_worker(self) -> Executor:
        store = PostgresStore(self.open_switch)
        self.executor = Executor(store, self.open_power, self.policy, lambda: self.now, self._stopping)
        return self.executor

    def open_switch(self, access: SwitchAccess) -> FakeSwitch:
        assert access.password == "geheim"
        return self.switch

    def open_power(self, access: Access) -> FakePower:
        return self.machines.setdefault(access.address, FakePower(PowerState.OFF, sleep=self.sleep))

    def vlans(self, number: int = 1, nic: int = 0) -> PortVlans | None:
        return self.switch.observed.ports[f"node{number}-eth{nic}"]

    def register(self, number: int = 1) -> None:
        port = factories.machine(number)["ports"][0]
        second = {**port, "mac": factories.mac(number, 1), "name": "ens4", "boot": False,
                  "lldp": {**port["lldp"], "port": f"node{number}-eth1"}}  # fmt: skip
        factories.register(number, ports=[port, second])

    def deploying(self, number: int = 1) -> Node:
        self.register(number)
        self.sleep(120)
        return self.to_call_back(number)

    def to_call_back(self, number: int) -> Node:
        node = self.advance(number)
        for _ in range(20):
            if node.provision_state is S.WAIT_CALL_BACK:
                return node
            self.sleep(5)
            node = self.advance(number)
        raise AssertionError(f"{node.provision_state} {node.status}")

    def installed(self, number: int = 1) -> Node:
        boot = self.boot(number)
        self.sleep(20)
        self.report(boot, "installed", number, memory={"total_bytes": 1})
        return self.advance(number)

    def active(self, number: int = 1) -> Node:
        self.deploying(number)
        self.sleep(5)
        return self.installed(number)


@pytest.fixture
def site(db: str) -> Site:
    factories.network()
    tenant("red", 301, "10.90.1.0/24", more_subnets=(Subnet("fd00:301::/64", "fd00:301::1"),))
    tenant("blue", 302, "10.90.2.0/24")
    tenant("storage", 200, "10.88.0.0/24", purpose=Purpose.STORAGE)
    switches.create(Switch("lab-switch", "fake", "here"), {"password": "geheim"})
    return Site()


def tenant(name: str, vlan: int, subnet: str, **changes: object) -> None:
    values = {"purpose": Purpose.TENANT, "gateway": None, "discovery_start": None, "discovery_end": None}
    factories.network(**{**values, "name": name, "vlan": vlan, "subnet": subnet, **changes})


def flavor(*networks: str, **layout: object) -> None:
    factories.flavor(layout=Layout(networks=tuple(Untagged(name) for name in networks), **layout))  # type: ignore[arg-type]


def recorded() -> dict[str, tuple[str, int | None]]:
    return {item.port: (item.network, item.untagged) for item in switches.placements(switch="lab-switch")}


def test_a_node_is_in_provisioning_while_it_is_deployed_and_then_in_its_tenants_network(site: Site) -> None:
    flavor("red")
    node = site.deploying()
    assert (site.vlans(), site.vlans(nic=1)) == (PROVISIONING, PARKING)
    assert "VLAN 301" not in " ".join(site.switch.calls)
    node = site.installed()
    assert (node.provision_state, site.vlans(), site.vlans(nic=1)) == (S.ACTIVE, RED, PARKING)
    assert {item.address for item in node.vlan_addresses} == {"10.90.1.1", "fd00:301::2"}
    assert recorded() == {"node1-eth0": ("red", 301), "node1-eth1": ("parking", 999)}
    assert all(item.written_at for item in switches.placements())


def test_two_tenants_nodes_are_apart(site: Site) -> None:
    flavor("red")
    site.active(1)
    site.register(2)
    nodes.patch(factories.machine_uuid(2), {"networks": ["blue"]})
    site.sleep(120)
    site.to_call_back(2)
    site.installed(2)
    assert (site.vlans(1), site.vlans(2)) == (RED, BLUE)
    assert AddressRow.objects.filter(node__name="node-2").values_list("network__name", "address")[0][0] == "blue"


def test_after_its_use_a_nodes_ports_are_back_and_nothing_is_left(site: Site) -> None:
    factories.flavor()
    site.register()
    nodes.patch("node-1", {"networks": ["red"]})
    site.sleep(120)
    site.to_call_back(1)
    site.installed()
    assert site.vlans() == RED
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    site.power().state = PowerState.OFF
    site.sleep(90)
    node = site.advance_until(S.AVAILABLE)
    assert (site.vlans(), site.vlans(nic=1), node.vifs) == (PROVISIONING, PARKING, ())
    assert not AddressRow.objects.filter(network__name="red").exists()
    assert {network for network, _ in recorded().values()} <= {"provisioning", "parking"}


def test_a_flavor_without_networks_leaves_other_ports_as_they_are(site: Site) -> None:
    factories.flavor()
    site.active()
    assert (site.vlans(), site.vlans(nic=1)) == (PROVISIONING, PortVlans.access(1))


def test_bonds_and_tagged_vlans_follow_the_layout(site: Site) -> None:
    bond = Bond("bond0", BondMode.LACP, ("eth0", "eth1"))
    flavor("red", bonds=(bond,), vlans=(Vlan("storage", "bond0"),))
    site.deploying()
    assert (site.vlans(), site.switch.observed.bonds) == (PROVISIONING, {})
    site.installed()
    (made,) = site.switch.observed.bonds.values()
    assert (made.members, made.vlans) == (("node1-eth0", "node1-eth1"), PortVlans.trunk([200], native=301))
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    site.power().state = PowerState.OFF
    site.advance_until(S.AVAILABLE)
    assert (site.switch.observed.bonds, site.vlans(), site.vlans(nic=1)) == ({}, PROVISIONING, PARKING)


def test_a_trunk_keeps_the_provisioning_network_native(site: Site) -> None:
    flavor(vlans=(Vlan("storage", "eth0"),))
    site.active()
    assert site.vlans() == PortVlans.trunk([200], native=100)


def test_a_switch_that_does_not_answer_makes_the_node_wait_and_then_fail_with_the_reason(site: Site) -> None:
    flavor("red")
    site.register()
    site.sleep(120)
    site.switch.failures = [SwitchUnreachable("the switch must answer (switch here)")] * 100
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.CLEANING, StatusCode.WAITING_FOR_SWITCH_PORT)
    assert "lab-switch, try 1: the switch must answer" in node.status
    for _ in range(20):
        site.sleep(30)
        node = site.advance()
    assert (node.provision_state, node.status_code) == (S.CLEAN_FAILED, StatusCode.SWITCH_PORT_TIMED_OUT)
    assert "the switch must answer" in (node.last_error or "")
    site.switch.failures = []
    nodes.request_verb("node-1", Verb.MANAGE)
    nodes.request_verb("node-1", Verb.PROVIDE)
    assert site.advance_until(S.AVAILABLE).last_error is None


def test_a_switch_that_refuses_fails_the_deployment(site: Site) -> None:
    flavor("red")
    site.deploying()
    site.switch.failures = [SwitchRefused("VLAN 301 is not allowed here")]
    node = site.installed()
    assert (node.provision_state, node.status_code) == (S.DEPLOY_FAILED, StatusCode.SWITCH_REFUSED)
    assert "VLAN 301 is not allowed here" in (node.last_error or "")
    assert site.vlans() == PROVISIONING, "who was not moved stays where it booted"


def test_a_node_whose_switch_is_not_on_record_is_not_booted_for_a_tenant(site: Site) -> None:
    flavor("red")
    switches.delete("lab-switch")
    site.register()
    site.sleep(120)
    for _ in range(10):
        site.sleep(5)
        node = site.advance()
    assert (node.provision_state, node.status_code) == (S.DEPLOY_FAILED, StatusCode.SWITCH_REFUSED)
    assert "network red needs the switch of eth0 on record" in (node.last_error or "")
    assert "set power on" not in site.power().calls


def test_a_reboot_through_koguma_comes_back_to_provisioning_and_returns(site: Site) -> None:
    flavor("red")
    site.active()
    nodes.request_power("node-1", PowerAction.REBOOT)
    site.advance()
    site.power().state = PowerState.OFF
    site.sleep(5)
    node = site.advance()
    assert (site.vlans(), node.provision_state, node.status_code) == (
        PROVISIONING,
        S.ACTIVE,
        StatusCode.WAITING_FOR_INSTALLED,
    )
    node = site.installed()
    assert (site.vlans(), node.target_power_state, node.status_code) == (RED, None, StatusCode.RUNNING)


def test_power_on_of_a_machine_that_is_on_moves_nothing(site: Site) -> None:
    flavor("red")
    site.active()
    before = len(site.switch.calls)
    nodes.request_power("node-1", PowerAction.ON)
    site.advance()
    assert (len(site.switch.calls), site.vlans()) == (before, RED)


def test_a_worker_that_dies_between_write_and_record_is_made_good(site: Site) -> None:
    flavor("red")
    site.deploying()
    site.switch.set_port("node1-eth0", RED, timeout_s=1)  # written by the one that died
    PlacementRow.objects.filter(port="node1-eth0").update(untagged=301, network="red", written_at=None)
    node = site.installed()
    assert (node.provision_state, site.vlans(), recorded()["node1-eth0"]) == (S.ACTIVE, RED, ("red", 301))


def test_a_forgotten_nodes_port_stays_on_record(site: Site) -> None:
    flavor("red")
    site.active()
    nodes.delete("node-1", force=True)
    (left,) = [item for item in switches.placements() if item.port == "node1-eth0"]
    assert (left.node, left.untagged) == (None, 301)


def test_noop_nodes_are_left_alone_and_never_handed_to_a_tenant(site: Site) -> None:
    flavor("red")
    site.register()
    NodeRow.objects.update(interfaces={"network": "noop"})
    site.sleep(120)
    for _ in range(10):
        site.sleep(5)
        node = site.advance()
    assert (node.provision_state, node.status_code) == (S.DEPLOY_FAILED, StatusCode.NOT_BOOTABLE)
    assert "'noop' leaves switches alone" in (node.last_error or "")
    assert site.switch.calls == []


def test_the_detail_tells_the_machine_what_it_has_after_the_hand_over(site: Site) -> None:
    flavor("red")
    site.register()
    catalog.edit_network("red", lambda network: replace(network, gateway="10.90.1.254", dns_servers=("10.90.1.253",)))
    detail = snapshots.render().nodes[0].detail
    (boot,) = detail["interfaces"]
    assert (boot["addresses"], boot["gateway"]) == (["10.77.0.2/24"], "10.77.0.1")
    (after,) = detail["handover"]["interfaces"]
    assert (after["addresses"], after["gateway"], after["gateway6"], detail["handover"]["dns_servers"]) == (
        ["10.90.1.1/24", "fd00:301::2/64"],
        "10.90.1.254",
        "fd00:301::1",
        ["10.90.1.253"],
    )


def test_a_machine_that_powers_itself_off_where_it_should_reboot_is_brought_back(site: Site) -> None:
    flavor("red")
    site.active()
    site.power().state = PowerState.OFF
    power_polls.poll(factories.machine_uuid(1), site.open_power)
    node = site.advance()
    assert (site.vlans(), node.power_state) == (PROVISIONING, PowerState.ON)
    site.sleep(5)
    site.installed()
    assert site.vlans() == RED


def test_a_machine_that_koguma_powered_off_stays_off(site: Site) -> None:
    flavor("red")
    site.active()
    nodes.request_power("node-1", PowerAction.OFF)
    site.advance()
    power_polls.poll(factories.machine_uuid(1), site.open_power)
    assert (site.advance().power_state, site.vlans()) == (PowerState.OFF, RED)


def test_fake_hardware_that_is_switched_is_placed_as_any_other(site: Site) -> None:
    node = registrations.add_node(
        factories.machine_uuid(2), "n2", bmc_driver="fake-hardware", interfaces={"network": "koguma"},
        provision_state=S.AVAILABLE.value, vifs=[{"id": "red"}],
    )  # fmt: skip
    said = {"switch_info": "lab-switch", "port_id": "node2-eth0"}
    PortRow.objects.create(node=node, mac=factories.mac(2), local_link_connection=said)
    nodes.request_verb("n2", Verb.DEPLOY)
    assert site.advance_until(S.ACTIVE, 2).provision_state is S.ACTIVE
    assert (site.vlans(2), recorded()["node2-eth0"]) == (RED, ("red", 301))
    nodes.request_verb("n2", Verb.UNDEPLOY)
    site.advance_until(S.AVAILABLE, 2)
    assert (site.vlans(2), recorded()["node2-eth0"]) == (PROVISIONING, ("provisioning", 100))
    assert list(AddressRow.objects.values_list("network__name", flat=True)) == ["provisioning"]


def test_a_machine_in_use_that_boots_by_itself_is_handed_over_again(site: Site) -> None:
    factories.flavor()
    site.active()
    assert site.vlans() == PROVISIONING
    nodes.patch("node-1", {"networks": ["red"]})  # for its next use; and then somebody presses the button
    site.sleep(60)
    node = site.installed()
    assert (site.vlans(), node.provision_state, node.status_code) == (RED, S.ACTIVE, StatusCode.RUNNING)


def test_a_node_whose_switch_is_taken_waits_without_keeping_its_worker(site: Site) -> None:
    flavor("red")
    site.register()
    site.sleep(120)
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with switches.opened("lab-switch", site.open_switch) as driver:
            assert driver is not None
            taken.set()
            over.wait(60)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    node = site.advance()
    over.set()
    holder.join(60)
    assert (node.status_code, node.status) == (
        StatusCode.WAITING_FOR_SWITCH_PORT,
        "switch lab-switch serves another node",
    )
    assert site.switch.calls == []
    site.sleep(1)
    assert site.advance().status_code is not StatusCode.WAITING_FOR_SWITCH_PORT
