"""What every power driver keeps: run against the fakes, against the ipmi driver with a real BMC emulator, and against
the redfish driver with a BMC of ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from koguma.contracts.errors import PowerError, PowerRefused, PowerTimeout, PowerUnreachable, UnknownDriver
from koguma.contracts.power import Access, FakePower, PowerDriver
from koguma.drivers.power import open_power
from koguma.drivers.power.fake.stored import StoredMachine, set_faults
from koguma.drivers.power.ipmi.driver import IpmiPower
from koguma.model.states import PowerState
from tests.contract.ipmi_bmc import PASSWORD, IpmiBmc
from tests.contract.redfish_bmc import RedfishBmc


class Machine(Protocol):
    """What a test may do to the machine behind a driver."""

    state: PowerState
    stuck: bool


class Bench:
    def __init__(self, driver: PowerDriver, machine: Machine) -> None:
        self.driver = driver
        self.machine = machine


@pytest.fixture(scope="module")
def bmc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpmiBmc]:
    if not shutil.which("ipmi_sim") or not shutil.which("ipmitool"):
        pytest.skip("needs ipmi_sim (openipmi) and ipmitool")
    bmc = IpmiBmc(tmp_path_factory.mktemp("bmc"))
    yield bmc
    bmc.close()


@pytest.fixture(scope="module")
def redfish() -> Iterator[RedfishBmc]:
    bmc = RedfishBmc()
    yield bmc
    bmc.close()


class StoredBench:
    """The machine in the file, as another process sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def state(self) -> PowerState:
        return StoredMachine(self.directory, "node1").get_power_state(timeout_s=1)

    @state.setter
    def state(self, state: PowerState) -> None:
        StoredMachine(self.directory, "node1").set_power_state(state, timeout_s=1)

    @property
    def stuck(self) -> bool:
        return False

    @stuck.setter
    def stuck(self, stuck: bool) -> None:
        set_faults(self.directory, "node1", stuck=stuck)


@pytest.fixture(params=["fake", "stored", "ipmi", "redfish"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        fake = FakePower()
        return Bench(fake, fake)
    if request.param == "stored":
        directory = request.getfixturevalue("tmp_path")
        return Bench(StoredMachine(directory, "node1"), StoredBench(directory))
    bmc = request.getfixturevalue("bmc" if request.param == "ipmi" else "redfish")
    bmc.stuck = False
    bmc.state = PowerState.OFF
    return Bench(open_power(bmc.access), bmc)


def test_the_power_state_is_what_the_machine_has(bench: Bench) -> None:
    assert bench.driver.get_power_state(timeout_s=10) is PowerState.OFF
    bench.machine.state = PowerState.ON
    assert bench.driver.get_power_state(timeout_s=10) is PowerState.ON


@pytest.mark.parametrize("target", [PowerState.ON, PowerState.OFF])
def test_setting_the_power_brings_it_about_and_again_is_harmless(bench: Bench, target: PowerState) -> None:
    bench.machine.state = PowerState.OFF if target is PowerState.ON else PowerState.ON
    bench.driver.set_power_state(target, timeout_s=10)
    assert bench.machine.state is target
    bench.driver.set_power_state(target, timeout_s=10)
    assert bench.driver.get_power_state(timeout_s=10) is target


def test_a_machine_that_does_not_follow_is_a_time_out_worth_a_retry(bench: Bench) -> None:
    bench.machine.state = PowerState.ON
    bench.machine.stuck = True
    started = time.monotonic()
    with pytest.raises(PowerTimeout, match="'power off' within 2 s, it is 'power on'") as caught:
        bench.driver.set_power_state(PowerState.OFF, timeout_s=2)
    assert caught.value.retry
    assert time.monotonic() - started < 4


def test_shutdown_is_asked_for(bench: Bench) -> None:
    bench.machine.state = PowerState.ON
    bench.driver.request_shutdown(timeout_s=10)
    deadline = time.monotonic() + 10
    while bench.driver.get_power_state(timeout_s=10) is PowerState.ON:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_no_driver_of_an_unknown_name_is_opened() -> None:
    for name in ("nope", "../fake", "fake.x", ""):
        with pytest.raises(UnknownDriver):
            open_power(Access(name, "127.0.0.1"))


def test_a_fake_fails_as_often_as_it_is_told_and_slows_as_it_is_told() -> None:
    slept: list[float] = []
    fake = FakePower(sleep=slept.append)
    fake.failures = [PowerUnreachable("away")]
    with pytest.raises(PowerUnreachable):
        fake.get_power_state(timeout_s=1)
    fake.delay_s = 5
    with pytest.raises(PowerTimeout):
        fake.get_power_state(timeout_s=1)
    assert slept == [1]


def test_a_stored_fake_outlives_its_process_and_fails_as_told_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOGUMA_FAKE_HARDWARE", str(tmp_path))
    open_power(Access("fake", "rack1/../node1")).set_power_state(PowerState.ON, timeout_s=1)
    program = (
        "from koguma.drivers.power import open_power; from koguma.contracts.power import Access;"
        "print(open_power(Access('fake', 'rack1/../node1')).get_power_state(timeout_s=1).value)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "power on\n"
    set_faults(tmp_path, "rack1/../node1", failures=("unreachable", "refused"))
    for kind in (PowerUnreachable, PowerRefused):
        with pytest.raises(kind):
            open_power(Access("fake", "rack1/../node1")).get_power_state(timeout_s=1)
    assert open_power(Access("fake", "rack1/../node1")).get_power_state(timeout_s=1) is PowerState.ON
    set_faults(tmp_path, "rack1/../node1", delay_s=5)
    started = time.monotonic()
    with pytest.raises(PowerTimeout):
        open_power(Access("fake", "rack1/../node1")).get_power_state(timeout_s=0.2)
    assert time.monotonic() - started < 2


def test_ipmi_a_wrong_password_is_refused_and_not_worth_a_retry(bmc: IpmiBmc) -> None:
    with pytest.raises(PowerRefused) as caught:
        IpmiPower(replace(bmc.access, password="wrong")).get_power_state(timeout_s=15)
    assert not caught.value.retry
    assert PASSWORD not in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_ipmi_a_bmc_that_hangs_costs_no_more_than_the_time_given(bmc: IpmiBmc) -> None:
    import signal

    bmc.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(PowerUnreachable) as caught:
            IpmiPower(bmc.access).get_power_state(timeout_s=2)
        assert caught.value.retry
        assert time.monotonic() - started < 4
    finally:
        bmc.process.send_signal(signal.SIGCONT)


def test_ipmi_the_password_is_not_among_the_arguments(tmp_path: Path) -> None:
    """A stand-in for ipmitool writes down how it was called."""
    tool = _tool(
        tmp_path, f'echo "$@" > {tmp_path}/args; echo "$IPMI_PASSWORD" > {tmp_path}/env; echo Chassis Power is on'
    )
    IpmiPower(Access("ipmi", "192.0.2.1", "koguma", "hush"), program=tool).get_power_state(timeout_s=5)
    assert "hush" not in (tmp_path / "args").read_text()
    assert (tmp_path / "env").read_text() == "hush\n"


@pytest.mark.parametrize(
    "script",
    [
        "echo Chassis Power is",
        "head -c 100000 /dev/urandom",
        "true",
        r"printf 'Chassis Power is \033[31mon?'; exit 1",
        "echo 'Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1",
        "kill -9 $$",
    ],
)
def test_ipmi_garbage_is_an_error_worth_a_retry_in_printable_words(tmp_path: Path, script: str) -> None:
    with pytest.raises(PowerUnreachable) as caught:
        IpmiPower(Access("ipmi", "192.0.2.1"), program=_tool(tmp_path, script)).get_power_state(timeout_s=5)
    assert caught.value.retry
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_ipmi_an_older_cipher_suite_is_tried_and_remembered(tmp_path: Path) -> None:
    tool = _tool(
        tmp_path,
        f'echo "$@" >> {tmp_path}/calls;'
        ' case "$*" in *"-C 17"*) echo invalid authentication algorithm >&2; exit 1;; esac;'
        " echo Chassis Power is off",
    )
    driver = IpmiPower(Access("ipmi", "192.0.2.77"), program=tool)
    driver.get_power_state(timeout_s=5)
    driver.get_power_state(timeout_s=5)
    suites = [line.split("-C ")[1].split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert suites == ["17", "3", "3"]


def test_ipmi_a_missing_program_is_said(tmp_path: Path) -> None:
    with pytest.raises(PowerError, match="must be installed"):
        IpmiPower(Access("ipmi", "192.0.2.1"), program=str(tmp_path / "nothing")).get_power_state(timeout_s=5)


def test_ipmi_power_off_waits_until_the_machine_is_off() -> None:
    """A BMC that takes the command at once and needs a while: the driver returns when it says off."""
    answers = iter(["on", "", "on", "on", "off"])
    clock = _Clock()
    driver = IpmiPower(Access("ipmi", "192.0.2.1"), clock=clock, sleep=clock.sleep)
    driver._run = lambda command, timeout_s: f"Chassis Power is {next(answers)}"  # type: ignore[method-assign]
    driver.set_power_state(PowerState.OFF, timeout_s=30)
    assert next(answers, None) is None


def test_ipmi_a_question_cut_short_by_the_deadline_is_a_time_out_of_the_power_not_of_the_bmc() -> None:
    clock = _Clock()
    driver = IpmiPower(Access("ipmi", "192.0.2.1"), clock=clock, sleep=clock.sleep)

    def run(command: list[str], timeout_s: float) -> str:
        clock.now += 1
        if timeout_s < 1:
            raise PowerUnreachable("cut short")
        return "Chassis Power is on"

    driver._run = run  # type: ignore[method-assign]
    with pytest.raises(PowerTimeout):
        driver.set_power_state(PowerState.OFF, timeout_s=3.2)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _tool(directory: Path, script: str) -> str:
    path = directory / "ipmitool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


_: Callable[[Access], PowerDriver] = open_power
