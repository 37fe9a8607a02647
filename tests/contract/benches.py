"""What the contract suite of switches runs against: for each driver, a switch with four ports that can be put back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import pytest

from koguma.contracts.switches import FakeSwitch, SwitchDriver
from koguma.drivers.switch import open_switch
from tests.contract.ovs_switch import PORTS, OvsBench

SWITCHES = ("fake", "ovs")


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
    return _ovs()


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
