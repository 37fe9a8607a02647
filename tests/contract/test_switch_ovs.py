"""The ovs driver by what a switch is for: real packets between machines, and a switch that is away or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koguma.contracts.errors import SwitchRefused, SwitchUnreachable
from koguma.contracts.switches import Bond, PortVlans, SwitchAccess
from koguma.drivers.switch.ovs.driver import OvsSwitch
from tests.contract.ovs_switch import OvsBench

root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vsctl"), reason="needs root and Open vSwitch"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[OvsBench]:
    bench = OvsBench()
    yield bench
    bench.close()


@pytest.fixture
def switch(running: OvsBench) -> OvsBench:
    running.reset()
    return running


class TestPackets:
    pytestmark = root

    def test_machines_reach_each_other_in_one_vlan_and_not_across_two(self, switch: OvsBench) -> None:
        driver = OvsSwitch(switch.access)
        for port, vlan in (("p1", 100), ("p2", 100), ("p3", 200), ("p4", 200)):
            driver.set_port(port, PortVlans.access(vlan), timeout_s=20)
        assert switch.passes("p1", "p2")
        assert switch.passes("p4", "p3")
        assert not switch.passes("p1", "p3")
        assert not switch.passes("p3", "p2")
        driver.set_port("p3", PortVlans.access(100), timeout_s=20)
        assert switch.passes("p1", "p3")
        assert not switch.passes("p4", "p3")

    def test_a_trunk_passes_its_tags_and_its_native_vlan_and_nothing_else(self, switch: OvsBench) -> None:
        driver = OvsSwitch(switch.access)
        driver.set_port("p1", PortVlans.trunk((100,), native=300), timeout_s=20)
        for port, vlan in (("p2", 100), ("p3", 200), ("p4", 300)):
            driver.set_port(port, PortVlans.access(vlan), timeout_s=20)
        assert switch.passes("p1", "p2", vlan=100)
        assert switch.passes("p1", "p4")
        assert not switch.passes("p1", "p2")
        assert not switch.passes("p1", "p3", vlan=200)
        assert not switch.passes("p3", "p1")
        driver.set_port("p1", PortVlans.trunk((100,)), timeout_s=20)
        assert not switch.passes("p1", "p4")
        assert switch.passes("p1", "p2", vlan=100)

    def test_ports_that_leave_a_bond_are_where_they_were_told_to_be(self, switch: OvsBench) -> None:
        driver = OvsSwitch(switch.access)
        driver.set_port("p3", PortVlans.access(100), timeout_s=20)
        driver.set_port("p4", PortVlans.access(200), timeout_s=20)
        driver.set_bond(Bond(1, ("p1", "p2"), PortVlans.access(100)), timeout_s=20)
        assert not switch.passes("p1", "p3"), "LACP is active and nobody answers it"
        driver.remove_bond(1, PortVlans.access(200), timeout_s=20)
        assert switch.passes("p1", "p4")
        assert switch.passes("p2", "p4")
        assert not switch.passes("p1", "p3")

    def test_a_switch_that_hangs_costs_no_more_than_the_time_given(self, switch: OvsBench) -> None:
        for process in switch.processes:
            process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(SwitchUnreachable, match="within") as caught:
                OvsSwitch(switch.access).set_port("p1", PortVlans.access(100), timeout_s=1.5)
            assert caught.value.retry
            assert time.monotonic() - started < 4
        finally:
            for process in switch.processes:
                process.send_signal(signal.SIGCONT)

    def test_members_on_two_bridges_are_no_bond(self, switch: OvsBench) -> None:
        switch.vsctl("del-port", "br0", "p2")
        switch.vsctl(
            *("add-br", "br1", "--", "set", "bridge", "br1", "datapath_type=netdev"),
            *("--", "add-port", "br1", "p2", "tag=1"),
        )
        try:
            with pytest.raises(SwitchRefused, match="on one bridge, got br0, br1"):
                OvsSwitch(switch.access).set_bond(Bond(1, ("p1", "p2"), PortVlans.access(100)), timeout_s=20)
        finally:
            switch.vsctl("del-br", "br1")


def test_a_switch_that_is_away_is_worth_a_retry(tmp_path: Path) -> None:
    with pytest.raises(SwitchUnreachable, match="must answer") as caught:
        OvsSwitch(SwitchAccess("ovs", f"unix:{tmp_path}/nothing")).observe(timeout_s=3)
    assert caught.value.retry


@pytest.mark.parametrize("address", ["", "192.0.2.1", "ptcp:1", "unix:", "--db=x", "unix:/a b"])
def test_an_address_that_is_no_database_is_refused(address: str) -> None:
    with pytest.raises(SwitchRefused, match="unix:PATH or tcp:HOST:PORT"):
        OvsSwitch(SwitchAccess("ovs", address))


@pytest.mark.parametrize(
    "answer", ["", "{}", "[]\n[]\n[]", "\x1b[31mhello", '{"data":[[1]],"headings":["name"]}\n' * 3]
)
def test_garbage_from_the_database_is_an_error_worth_a_retry(tmp_path: Path, answer: str) -> None:
    tool, said = tmp_path / "ovs-vsctl", tmp_path / "said"
    said.write_text(answer)
    tool.write_text(f"#!/bin/sh\ncat {said}\n")
    tool.chmod(0o755)
    with pytest.raises(SwitchUnreachable, match="three tables") as caught:
        OvsSwitch(SwitchAccess("ovs", "unix:/run/x"), program=str(tool)).observe(timeout_s=5)
    assert str(caught.value).isprintable()


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    with pytest.raises(SwitchUnreachable, match="must be installed"):
        OvsSwitch(SwitchAccess("ovs", "unix:/run/x"), program=str(tmp_path / "nothing")).observe(timeout_s=5)
