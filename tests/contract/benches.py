"""What the contract suite of switches runs against: for each driver, a switch with four ports that can be put back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import pytest

from koguma.contracts.switches import FakeSwitch, SwitchAccess, SwitchDriver
from koguma.drivers.switch import open_switch
from tests.contract.cli_industry import Eos, Nxos
from tests.contract.cli_junos import Junos
from tests.contract.cli_shells import Cumulus, Sonic
from tests.contract.ovs_switch import PORTS, OvsBench
from tests.contract.ssh_switch import PASSWORD, USER, CommandLine, SshSwitch

SWITCHES = ("fake", "ovs", "eos", "nxos", "junos", "sonic", "cumulus")


class SwitchBench:
    """A driver and the switch behind it."""

    any_port = False

    def __init__(
        self,
        driver: SwitchDriver,
        ports: Sequence[str],
        missing_port: str,
        reset: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self.driver = driver
        self.ports = ports
        self.missing_port = missing_port
        self.reset = reset
        self.close = close


def switch_bench(name: str) -> SwitchBench:
    if name == "fake":
        return _fake()
    return _ovs() if name == "ovs" else _cli(name)


def command_line(name: str) -> CommandLine:
    """A vendor's, with four ports of its names."""
    if name == "eos":
        return Eos(("Ethernet1", "Ethernet2", "Ethernet3", "Ethernet4/1"))
    if name == "nxos":
        return Nxos(tuple(f"Ethernet1/{number}" for number in range(1, 5)))
    if name == "junos":
        return Junos(tuple(f"ge-0/0/{number}" for number in range(4)))
    if name == "cumulus":
        return Cumulus(("swp1", "swp2", "swp3", "swp7"))
    return Sonic(tuple(f"Ethernet{number}" for number in range(0, 16, 4)), modes=name == "sonic-modes")


def _cli(name: str) -> SwitchBench:
    line = command_line(name)
    server = SshSwitch(line)
    driver = open_switch(access_to(server, name))
    return SwitchBench(driver, line.ports, "Ethernet99", line.reset, server.close)


def access_to(server: SshSwitch, name: str) -> SwitchAccess:
    return SwitchAccess(name.partition("-")[0], "127.0.0.1", USER, PASSWORD, host_key=server.host_key, port=server.port)


def _fake() -> SwitchBench:
    fake = FakeSwitch(PORTS)
    factory = fake.observed

    def reset() -> None:
        fake.observed = factory

    return SwitchBench(fake, PORTS, "p9", reset, lambda: None)


def _ovs() -> SwitchBench:
    if os.geteuid() != 0 or not shutil.which("ovs-vsctl"):
        pytest.skip("needs root and Open vSwitch")
    bench = OvsBench()
    return SwitchBench(open_switch(bench.access), PORTS, "p9", bench.reset, bench.close)
