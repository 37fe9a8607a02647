"""Nodes with a root on their own disk, on the real database, with simulated time and fake machines."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from koguma.db import nodes, snapshots
from koguma.db.models import NodeRow
from koguma.model.flavor import RootMethod
from koguma.model.node import Node
from koguma.model.snapshot import DiskPlan, SnapshotNode
from koguma.model.states import PowerState, ProvisionState, Verb
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site

S = ProvisionState


@pytest.fixture
def site(db: str) -> Site:
    """One node of a disk flavor, available and off."""
    factories.network()
    factories.flavor(root_method=RootMethod.DISK)
    site = Site()
    factories.register(1)
    NodeRow.objects.update(provision_state="available", goal=None)
    site.power().state = PowerState.OFF
    return site


def told(site: Site) -> SnapshotNode:
    return snapshots.render().by_uuid[factories.machine_uuid(1)]


def plan(site: Site) -> DiskPlan:
    disk = told(site).boot.disk
    assert disk is not None
    return disk


def deploy(site: Site) -> Node:
    nodes.request_verb("node-1", Verb.DEPLOY)
    return site.advance()


def install(site: Site) -> Node:
    site.sleep(10)
    boot = uuid4().hex
    site.report(boot, "script", mode="deploy")
    site.report(boot, "phase", phase="disk", state="succeeded", uptime_s=3.0, reason=None, data={})
    site.report(boot, "installed", memory={})
    return site.advance()


def clean_boot(site: Site, state: str, **more: Any) -> None:
    boot = uuid4().hex
    site.report(boot, "script", mode="clean")
    site.report(
        boot, "phase", **{"phase": "clean", "state": state, "uptime_s": 3.0, "reason": None, "data": {}, **more}
    )


def cleaning(site: Site) -> Node:
    deploy(site)
    install(site)
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    site.advance()
    site.sleep(site.policy.shutdown_timeout_s + 1)
    return site.advance()


def test_disk_is_to_be_written_while_the_node_is_deployed_and_never_when_it_is_active(site: Site) -> None:
    deploy(site)
    assert plan(site).wish is not None
    assert install(site).provision_state is S.ACTIVE
    assert plan(site).wish is None


def test_each_deployment_is_a_wish_of_its_own(site: Site) -> None:
    deploy(site)
    first = plan(site).wish
    install(site)
    site.sleep(60)
    nodes.request_verb("node-1", Verb.REBUILD)
    site.advance()
    assert plan(site).wish not in (None, first)


def test_boot_of_the_disk_alone_does_not_end_a_deployment(site: Site) -> None:
    deploy(site)
    site.sleep(10)
    site.report(uuid4().hex, "script", mode="disk")
    assert site.advance().provision_state is S.WAIT_CALL_BACK


def test_root_device_hints_and_config_drive_reach_the_machine(site: Site) -> None:
    hints, drive = {"rotational": False}, {"user_data": "#cloud-config"}
    NodeRow.objects.update(properties={"root_device": hints}, instance_info={"configdrive": drive})
    deploy(site)
    assert plan(site).hints == hints
    assert told(site).detail["config_drive"] == drive
    install(site)
    assert "config_drive" not in told(site).detail


def test_disks_are_emptied_before_the_node_is_available_again(site: Site) -> None:
    node = cleaning(site)
    assert (node.provision_state, told(site).boot.mode) == (S.CLEAN_WAIT, "clean")
    assert site.power().state is PowerState.ON
    site.sleep(20)
    clean_boot(site, "succeeded")
    node = site.advance()
    assert (node.provision_state, node.disk_used) == (S.AVAILABLE, False)
    assert site.power().state is PowerState.OFF
    assert told(site).boot.mode == "refuse"


def test_machine_that_cannot_empty_its_disks_is_not_offered_again(site: Site) -> None:
    cleaning(site)
    for _ in range(site.policy.boot_attempts_max):
        site.sleep(10)
        clean_boot(site, "failed", reason="sda: input/output error")
        site.sleep(site.policy.boot_timeout_s)
        node = site.advance()
    assert node.provision_state is S.CLEAN_FAILED
    assert "sda: input/output error" in str(node.last_error)
    assert node.disk_used


def test_node_that_never_used_a_disk_is_cleaned_without_a_boot(site: Site) -> None:
    NodeRow.objects.update(provision_state="manageable")
    nodes.request_verb("node-1", Verb.PROVIDE)
    assert site.advance().provision_state is S.AVAILABLE
    assert "set power on" not in site.power().calls
