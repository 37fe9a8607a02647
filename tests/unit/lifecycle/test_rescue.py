"""Rescue on the real database, with simulated time and fake machines."""

from __future__ import annotations

from uuid import uuid4

import pytest

from koguma.db import nodes, snapshots
from koguma.db.models import NodeRow
from koguma.db.sealing import hashed_password, unseal
from koguma.lifecycle.errors import VerbRefused
from koguma.model.node import Node
from koguma.model.states import PowerState, ProvisionState, StatusCode, Verb
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site

S = ProvisionState


@pytest.fixture
def site(db: str) -> Site:
    """One node, active and on."""
    factories.network()
    factories.flavor()
    site = Site()
    factories.register(1)
    NodeRow.objects.update(provision_state="active", goal=None, installed_at=site.now)
    return site


def rescue_boot(site: Site, *states: str) -> None:
    """A boot into rescue of which the machine tells the phase `rescue` in these states."""
    boot = uuid4().hex
    site.report(boot, "script", mode="rescue")
    for state in states:
        reason = "dropbear is missing" if state == "failed" else None
        site.report(boot, "phase", phase="rescue", state=state, uptime_s=3.0, reason=reason, data={})


def rescuing(site: Site) -> Node:
    columns = {"rescue_password_hash": hashed_password("s3cret")}
    nodes.request_verb("node-1", Verb.RESCUE, columns=columns)
    return site.advance()


def rescued(site: Site) -> Node:
    rescuing(site)
    site.sleep(20)
    rescue_boot(site, "started", "succeeded")
    return site.advance()


def test_a_node_is_rescued_when_its_machine_says_that_the_shell_is_up(site: Site) -> None:
    node = rescuing(site)
    assert (node.provision_state, node.status_code) == (S.RESCUE_WAIT, StatusCode.WAITING_FOR_RESCUE)
    assert site.power().calls.count("set power off") == site.power().calls.count("set power on") == 1
    site.sleep(20)
    rescue_boot(site, "started")
    assert site.advance().provision_state is S.RESCUE_WAIT
    rescue_boot(site, "started", "succeeded")
    node = site.advance()
    assert (node.provision_state, node.status_code, node.last_error) == (S.RESCUE, StatusCode.READY, None)


def test_an_ordinary_boot_is_no_rescue(site: Site) -> None:
    rescuing(site)
    site.sleep(20)
    site.report(site.boot(), "installed", memory={})
    assert site.advance().provision_state is S.RESCUE_WAIT


def test_only_the_machine_is_told_the_hash_of_the_password_and_only_while_it_is_rescued(site: Site) -> None:
    assert "rescue" not in snapshots.render().nodes[0].detail
    rescued(site)
    node = snapshots.render().nodes[0]
    assert node.boot.mode == "rescue"
    assert node.detail["rescue"]["password_hash"].startswith("$2b$")
    nodes.request_verb("node-1", Verb.UNRESCUE)
    site.advance()
    assert unseal(NodeRow.objects.get().rescue_password_hash) == ""
    assert "rescue" not in snapshots.render().nodes[0].detail


def test_unrescue_ends_with_the_machines_own_system(site: Site) -> None:
    rescued(site)
    nodes.request_verb("node-1", Verb.UNRESCUE)
    node = site.advance()
    assert (node.provision_state, site.power().state) == (S.UNRESCUING, PowerState.ON)
    assert snapshots.render().nodes[0].boot.mode == "boot"
    site.sleep(30)
    site.report(site.boot(), "installed", memory={})
    assert site.advance().provision_state is S.ACTIVE


def test_a_machine_that_never_comes_into_rescue_has_failed_with_its_own_reason(site: Site) -> None:
    rescuing(site)
    site.sleep(20)
    rescue_boot(site, "started", "failed")
    node = site.advance_until(S.RESCUE_FAILED)
    assert node.status_code is StatusCode.BOOT_TIMED_OUT
    assert "after 3 attempts" in str(node.last_error)


def test_a_rescue_can_be_aborted_and_the_node_then_undeployed(site: Site) -> None:
    rescuing(site)
    assert nodes.request_verb("node-1", Verb.ABORT).provision_state is S.RESCUE_FAILED
    site.advance_until(S.RESCUE_FAILED)  # the machine is powered off first, because nothing looks after it
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    assert site.advance_until(S.AVAILABLE).provision_state is S.AVAILABLE
    assert NodeRow.objects.get().rescue_password_hash == ""


def test_a_node_whose_rescue_interface_is_none_refuses(site: Site) -> None:
    NodeRow.objects.update(interfaces={"rescue": "no-rescue"})
    with pytest.raises(VerbRefused, match="needs a rescue interface"):
        nodes.request_verb("node-1", Verb.RESCUE)
