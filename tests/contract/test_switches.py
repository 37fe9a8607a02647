"""What every switch driver keeps: run against the fake, a real Open vSwitch, and each command line over SSH."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from koguma.contracts.errors import SwitchDiffers, SwitchRefused, SwitchUnreachable, UnknownSwitchDriver
from koguma.contracts.switches import Bond, FakeSwitch, PortVlans, SwitchAccess, SwitchDriver, ranges
from koguma.drivers.switch import open_switch
from koguma.model.errors import InvalidValue
from tests.contract.benches import SWITCHES, SwitchBench, switch_bench

LIMIT_S = 60.0


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.root] if name == "ovs" else []) for name in SWITCHES],
    scope="module",
)
def running(request: pytest.FixtureRequest) -> Iterator[SwitchBench]:
    bench = switch_bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def bench(running: SwitchBench) -> SwitchBench:
    running.reset()
    return running


def test_a_port_is_put_into_a_vlan_and_reads_back_so(bench: SwitchBench) -> None:
    one, two, *_ = bench.ports
    before = bench.driver.observe(timeout_s=LIMIT_S)
    assert bench.driver.set_port(one, PortVlans.access(120), timeout_s=LIMIT_S)
    after = bench.driver.observe(timeout_s=LIMIT_S)
    assert after.ports[one] == PortVlans.access(120)
    assert after.ports[two] == before.ports[two]


def test_writing_again_what_is_so_changes_nothing(bench: SwitchBench) -> None:
    one, two, *_ = bench.ports
    bond = Bond(7, (one, two), PortVlans.access(130))
    assert bench.driver.set_bond(bond, timeout_s=LIMIT_S)
    assert not bench.driver.set_bond(bond, timeout_s=LIMIT_S)
    assert bench.driver.remove_bond(7, PortVlans.access(131), timeout_s=LIMIT_S)
    assert not bench.driver.remove_bond(7, PortVlans.access(132), timeout_s=LIMIT_S)
    assert not bench.driver.set_port(one, PortVlans.access(131), timeout_s=LIMIT_S)


@pytest.mark.parametrize(
    "vlans",
    [
        PortVlans.trunk((20, 21, 22, 40)),
        PortVlans.trunk((20, 21), native=30),
        PortVlans.trunk((1, 2), native=3),
        PortVlans.trunk((1, 20)),
        PortVlans.trunk(range(100, 220, 2), native=99),
    ],
    ids=str,
)
def test_a_trunk_reads_back_with_its_native_and_allowed_vlans(bench: SwitchBench, vlans: PortVlans) -> None:
    port = bench.ports[0]
    assert bench.driver.set_port(port, vlans, timeout_s=LIMIT_S)
    assert bench.driver.observe(timeout_s=LIMIT_S).ports[port] == vlans
    assert not bench.driver.set_port(port, vlans, timeout_s=LIMIT_S)


def test_a_port_goes_from_trunk_to_trunk_to_access_and_keeps_nothing(bench: SwitchBench) -> None:
    port = bench.ports[0]
    for vlans in (
        PortVlans.trunk((20, 21), native=30),
        PortVlans.trunk((21, 30)),
        PortVlans.trunk((50,), native=21),
        PortVlans.access(21),
        PortVlans.access(50),
        PortVlans.trunk((51,)),
    ):
        bench.driver.set_port(port, vlans, timeout_s=LIMIT_S)
        assert bench.driver.observe(timeout_s=LIMIT_S).ports[port] == vlans


def test_a_bond_is_made_changed_grown_and_removed(bench: SwitchBench) -> None:
    one, two, three, *_ = bench.ports
    bond = Bond(7, (one, two), PortVlans.trunk((20, 21), native=30))
    bench.driver.set_bond(bond, timeout_s=LIMIT_S)
    observed = bench.driver.observe(timeout_s=LIMIT_S)
    assert observed.bonds == {7: bond}
    assert observed.ports[one] is None
    changed = Bond(7, (one, two, three), PortVlans.access(33))
    assert bench.driver.set_bond(changed, timeout_s=LIMIT_S)
    assert bench.driver.observe(timeout_s=LIMIT_S).bonds == {7: changed}
    assert bench.driver.remove_bond(7, PortVlans.access(120), timeout_s=LIMIT_S)
    after = bench.driver.observe(timeout_s=LIMIT_S)
    assert after.bonds == {}
    assert {after.ports[port] for port in (one, two, three)} == {PortVlans.access(120)}


def test_a_port_that_does_not_exist_is_refused_for_good(bench: SwitchBench) -> None:
    if bench.any_port:
        pytest.skip("this fake has every port")
    missing = bench.missing_port
    with pytest.raises(SwitchRefused, match="must exist on the switch") as caught:
        bench.driver.set_port(missing, PortVlans.access(120), timeout_s=LIMIT_S)
    assert not caught.value.retry
    with pytest.raises(SwitchRefused, match="must exist on the switch"):
        bench.driver.set_bond(Bond(7, (bench.ports[0], missing), PortVlans.access(120)), timeout_s=LIMIT_S)
    assert not bench.driver.observe(timeout_s=LIMIT_S).bonds


@pytest.mark.parametrize("port", ["", "p1; reload", "p1\nreload", "$(reboot)", "--help", "p1 p2", "'"])
def test_a_port_name_is_never_a_command(bench: SwitchBench, port: str) -> None:
    if bench.any_port:
        pytest.skip("this fake has every port")
    with pytest.raises(SwitchRefused):
        bench.driver.set_port(port, PortVlans.access(120), timeout_s=LIMIT_S)


def test_a_member_of_a_bond_is_not_set_alone_nor_taken_by_another_nor_dropped(bench: SwitchBench) -> None:
    one, two, three, *_ = bench.ports
    bond = Bond(7, (one, two), PortVlans.access(130))
    bench.driver.set_bond(bond, timeout_s=LIMIT_S)
    with pytest.raises(SwitchRefused, match="through its bond 7"):
        bench.driver.set_port(one, PortVlans.access(120), timeout_s=LIMIT_S)
    with pytest.raises(SwitchRefused, match="is in bond 7"):
        bench.driver.set_bond(Bond(8, (two, three), PortVlans.access(120)), timeout_s=LIMIT_S)
    with pytest.raises(SwitchRefused, match="must be removed before a member leaves"):
        bench.driver.set_bond(Bond(7, (one,), PortVlans.access(120)), timeout_s=LIMIT_S)
    assert bench.driver.observe(timeout_s=LIMIT_S).bonds == {7: bond}


# --- values


@pytest.mark.parametrize(
    "make",
    [
        PortVlans,
        lambda: PortVlans.access(0),
        lambda: PortVlans.access(4095),
        lambda: PortVlans.trunk((1, 2), native=2),
        lambda: PortVlans.trunk((5000,)),
        lambda: Bond(0, ("p1",), PortVlans.access(1)),
        lambda: Bond(1, (), PortVlans.access(1)),
    ],
)
def test_values_that_no_switch_could_mean_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        make()


def test_vlans_are_shown_as_ranges() -> None:
    assert ranges([3, 1, 2, 7]) == "1-3,7"
    assert str(PortVlans.trunk((20, 21), native=30)) == "VLAN 30 untagged, 20-21 tagged"


def test_passwords_and_keys_do_not_show() -> None:
    assert "hush" not in repr(SwitchAccess("eos", "192.0.2.1", "admin", "hush", "hush"))


def test_no_driver_of_an_unknown_name_is_opened() -> None:
    for name in ("nope", "../fake", "fake.x", "", "netmiko", "session", "dialect"):
        with pytest.raises(UnknownSwitchDriver):
            open_switch(SwitchAccess(name, "192.0.2.1"))


# --- the fake's own


def test_a_fake_fails_as_often_as_it_is_told_and_slows_as_it_is_told() -> None:
    slept: list[float] = []
    fake = FakeSwitch(["p1"], sleep=slept.append)
    fake.failures = [SwitchUnreachable("away")]
    with pytest.raises(SwitchUnreachable):
        fake.observe(timeout_s=1)
    fake.delay_s = 5
    with pytest.raises(SwitchUnreachable):
        fake.observe(timeout_s=1)
    assert slept == [1]


def test_a_deaf_switch_is_found_out_and_worth_a_retry() -> None:
    fake = FakeSwitch(["p1"])
    fake.deaf = True
    with pytest.raises(SwitchDiffers) as caught:
        fake.set_port("p1", PortVlans.access(10), timeout_s=1)
    assert caught.value.retry


def test_a_fake_without_a_list_has_every_port() -> None:
    fake = open_switch(SwitchAccess("fake", "any-port"))
    assert fake.set_port("Ethernet1", PortVlans.access(10), timeout_s=1)
    assert fake.observe(timeout_s=1).ports == {"Ethernet1": PortVlans.access(10)}


_: Callable[[SwitchAccess], SwitchDriver] = open_switch
