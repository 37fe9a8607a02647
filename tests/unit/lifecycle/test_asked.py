"""Steps that were asked for, and inspections, on the real database with simulated time and fake machines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from koguma.db import nodes
from koguma.db.models import NodeRow
from koguma.lifecycle.errors import VerbRefused
from koguma.model.node import Node
from koguma.model.operation import AskedStep, Order
from koguma.model.states import PowerState, ProvisionState, StatusCode, Verb
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site

S = ProvisionState


@pytest.fixture
def site(db: str) -> Site:
    factories.network()
    factories.flavor()
    site = Site()
    factories.register(1)
    NodeRow.objects.update(provision_state="manageable", goal=None)
    return site


def clean(*steps: AskedStep) -> Node:
    return nodes.request_verb("node-1", Verb.CLEAN, order=Order(steps))


def step(name: str, **args: object) -> AskedStep:
    return AskedStep("power", name, dict(args))


def test_steps_of_all_hardware_run_on_a_real_one(site: Site) -> None:
    site.power().state = PowerState.OFF
    clean(step("power_on"), step("wait", seconds=60), step("power_off"))
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.CLEAN_WAIT, StatusCode.WAITING_FOR_MACHINE)
    assert site.power().state is PowerState.ON
    site.sleep(61)
    node = site.advance()
    assert (node.provision_state, node.power_state, site.power().state) == (
        S.MANAGEABLE,
        PowerState.OFF,
        PowerState.OFF,
    )


def test_a_step_that_the_interface_does_not_have_fails_with_its_name(site: Site) -> None:
    clean(AskedStep("deploy", "erase_devices"))
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.CLEAN_FAILED, StatusCode.STEP_FAILED)
    assert node.last_error is not None
    assert "deploy.erase_devices is none of 'ramdisk'" in node.last_error


@pytest.mark.parametrize("ticks", range(1, 9))
def test_another_worker_goes_on_with_the_step_that_was_under_way(site: Site, ticks: int) -> None:
    """The first worker ends after so many ticks, wherever that is."""
    clean(step("power_on"), step("hold"), step("power_off"))
    site.stop_after = ticks
    site.advance()
    site.stop_after = None
    site.new_worker()
    node = site.advance()
    assert node.provision_state is S.CLEAN_HOLD
    nodes.request_verb("node-1", Verb.UNHOLD)
    assert site.advance().provision_state is S.MANAGEABLE
    assert site.power().calls.count("set power on") == 1
    assert site.power().calls.count("set power off") == 1


def test_a_held_node_stays_held_however_often_it_is_looked_at(site: Site) -> None:
    clean(step("hold"))
    for _ in range(3):
        site.sleep(100_000)
        assert site.advance().provision_state is S.CLEAN_HOLD
    with pytest.raises(VerbRefused, match="possible"):
        nodes.request_verb("node-1", Verb.PROVIDE)
    assert nodes.request_verb("node-1", Verb.ABORT).provision_state is S.CLEAN_FAILED
    assert site.advance().provision_state is S.CLEAN_FAILED


def test_cleaning_and_servicing_need_steps(site: Site) -> None:
    with pytest.raises(VerbRefused, match="needs the steps"):
        nodes.request_verb("node-1", Verb.CLEAN)


def test_an_inspection_ends_when_the_machine_has_told_about_itself(site: Site) -> None:
    NodeRow.objects.update(registered_at=site.now - timedelta(days=1))
    nodes.request_verb("node-1", Verb.INSPECT)
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.INSPECT_WAIT, StatusCode.WAITING_FOR_REGISTRATION)
    assert site.power().state is PowerState.ON
    site.sleep(30)
    factories.register(1, memory_bytes=4 << 30)
    NodeRow.objects.update(registered_at=site.now)
    node = site.advance()
    assert (node.provision_state, node.inventory["memory_bytes"]) == (S.MANAGEABLE, 4 << 30)


def test_an_inspection_that_hears_nothing_has_failed(site: Site) -> None:
    nodes.request_verb("node-1", Verb.INSPECT)
    NodeRow.objects.update(registered_at=None)
    node = site.advance_until(S.INSPECT_FAILED)
    assert node.status_code is StatusCode.BOOT_TIMED_OUT
    assert nodes.request_verb("node-1", Verb.MANAGE).provision_state is S.MANAGEABLE


def test_an_inspection_can_be_aborted(site: Site) -> None:
    NodeRow.objects.update(registered_at=None)
    nodes.request_verb("node-1", Verb.INSPECT)
    site.advance()
    assert nodes.request_verb("node-1", Verb.ABORT).provision_state is S.INSPECT_FAILED


def test_a_node_that_is_forgotten_while_it_works_ends_its_work(site: Site) -> None:
    clean(step("power_on"))
    power = site.power()
    power.state = PowerState.OFF
    power.on_change = lambda _: nodes.delete("node-1", force=True)
    site.executor.advance(factories.machine_uuid(1))
    assert NodeRow.objects.count() == 0
