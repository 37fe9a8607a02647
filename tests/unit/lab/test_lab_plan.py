"""Names, addresses and limits of a lab."""

from __future__ import annotations

import uuid
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from koguma.lab.errors import NoSuchNodeError, PlanError
from koguma.lab.lab import is_namespace_of, plan_of
from koguma.lab.plan import NODES_MAX, Firmware, Hardware, Plan, Vlan, fair_cpus, mac

HOME = Path("/srv/k/lab")


def test_two_runs_agree_on_every_mac_and_uuid() -> None:
    first, second = plan_of("lab", HOME, 3), plan_of("lab", HOME, 3)
    assert [machine.uuid for machine in first.machines] == [machine.uuid for machine in second.machines]
    assert [machine.nics for machine in first.machines] == [machine.nics for machine in second.machines]


@pytest.mark.parametrize(
    ("machines", "cores", "cpus"), [(1, 1, 1), (1, 2, 2), (3, 2, 1), (3, 5, 1), (3, 6, 2), (1, 64, 2), (99, 2, 1)]
)
def test_all_machines_together_have_no_more_processors_than_the_host(machines: int, cores: int, cpus: int) -> None:
    assert fair_cpus(machines, cores) == cpus


def test_no_two_machines_share_a_mac_a_uuid_a_serial_or_an_address() -> None:
    machines = plan_of("lab", HOME, NODES_MAX).machines
    for values in (
        [nic.mac for machine in machines for nic in machine.nics] + [machine.bmc_mac for machine in machines],
        [machine.uuid for machine in machines],
        [machine.serial for machine in machines],
        [machine.bmc_address for machine in machines],
        [machine.namespace for machine in machines],
    ):
        assert len(set(values)) == len(values)


def test_labs_of_other_names_have_other_machines() -> None:
    one, other = plan_of("lab", HOME, 1).machines[0], plan_of("lab2", HOME, 1).machines[0]
    assert one.uuid != other.uuid
    assert {nic.mac for nic in one.nics}.isdisjoint(nic.mac for nic in other.nics)


def test_a_mac_is_a_unicast_one_of_qemu_s_range() -> None:
    assert mac("lab", "node1", "eth0").startswith("52:54:00:")
    assert len(mac("lab", "node1", "eth0").split(":")) == 6


def test_a_uuid_is_in_the_form_the_stage_1_api_wants() -> None:
    value = plan_of("lab", HOME, 1).machines[0].uuid
    assert str(uuid.UUID(value)) == value


def test_the_first_card_is_on_the_provisioning_vlan_and_the_second_on_the_tenants() -> None:
    nics = plan_of("lab", HOME, 1).machines[0].nics
    assert [(nic.vlan, nic.switch_port) for nic in nics] == [
        (Vlan.PROVISIONING, "node1-eth0"),
        (Vlan.TENANT, "node1-eth1"),
    ]


def test_bmc_addresses_follow_the_machine_s_number() -> None:
    machines = plan_of("lab", HOME, 2).machines
    assert [machine.bmc_address for machine in machines] == [IPv4Address("10.77.8.11"), IPv4Address("10.77.8.12")]


def test_subnets_are_parameters() -> None:
    plan = Plan("lab", HOME, (Hardware(),), IPv4Network("192.168.10.0/24"), IPv4Network("192.168.20.0/24"))
    assert str(plan.controller_address) == "192.168.10.1"
    assert str(plan.machines[0].bmc_address) == "192.168.20.11"
    assert [str(address) for address in plan.discovery] == ["192.168.10.200", "192.168.10.250"]


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "toolong", "a-b", "a b", "lab\n"])
def test_a_name_that_is_no_short_word_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="name"):
        plan_of(name, HOME, 1)


def test_a_directory_too_deep_for_unix_sockets_is_refused() -> None:
    with pytest.raises(PlanError, match="107 bytes"):
        plan_of("lab", Path("/" + "d" * 100), 1)


def test_overlapping_subnets_are_refused() -> None:
    with pytest.raises(PlanError, match="overlap"):
        Plan("lab", HOME, (), IPv4Network("10.77.0.0/16"), IPv4Network("10.77.8.0/24"))


def test_more_machines_than_names_are_refused() -> None:
    with pytest.raises(PlanError, match="at most 99"):
        plan_of("lab", HOME, NODES_MAX + 1)


def test_interface_names_fit_linux_even_for_the_last_machine() -> None:
    machine = plan_of("lab", HOME, NODES_MAX).machines[-1]
    assert all(len(name) <= 15 for name in (machine.bmc_port, *(nic.switch_port for nic in machine.nics)))


def test_an_unknown_machine_s_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NoSuchNodeError, match=r"'node9' \(machines: node1, node2\)"):
        plan_of("lab", HOME, 2).machine("node9")


def test_uefi_is_said_for_all_machines_of_a_new_plan() -> None:
    assert {one.firmware for one in plan_of("lab", HOME, 2, uefi=True).hardware} == {Firmware.UEFI}


@pytest.mark.parametrize(
    ("namespace", "ours"),
    [("lab-sw", True), ("lab-ctl", True), ("lab-node12", True), ("lab2-sw", False), ("lab-nodex", False), ("x", False)],
)
def test_only_a_lab_s_own_namespaces_are_taken_for_its(namespace: str, ours: bool) -> None:
    assert is_namespace_of("lab", namespace) is ours
