"""Nodes with a root on their own disk, on the real database, with simulated time and fake machines."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from koguma.db import nodes, snapshots
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import NodeRow
from koguma.lifecycle.executor import Executor
from koguma.model.disk_image import DiskImage
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


MIRROR = {"controller": "software", "raid_level": "1", "size_gb": "MAX"}


def test_mirror_that_was_asked_for_reaches_the_machine(site: Site) -> None:
    hints = {"size": ">= 100"}
    NodeRow.objects.update(properties={"root_device": hints}, target_raid_config={"logical_disks": [MIRROR]})
    deploy(site)
    assert (plan(site).hints, plan(site).mirror) == (hints, hints)


@pytest.mark.parametrize(
    ("raid", "info", "reason"),
    [
        (MIRROR | {"raid_level": "5"}, {}, "raid_level of a software RAID must be '1', got '5'"),
        (
            MIRROR,
            {"image_source": "http://mirror/a", "image_checksum": "a" * 64, "image_size_bytes": 512},
            "goes to one disk",
        ),
    ],
)
def test_mirror_that_cannot_be_made_fails_the_deployment(
    site: Site, raid: dict[str, Any], info: dict[str, Any], reason: str
) -> None:
    NodeRow.objects.update(target_raid_config={"logical_disks": [raid]}, instance_info=info)
    node = deploy(site)
    assert node.provision_state is S.DEPLOY_FAILED
    assert reason in str(node.last_error)


def test_raid_that_was_made_nonsense_later_writes_nothing(site: Site) -> None:
    deploy(site)
    NodeRow.objects.update(target_raid_config={"logical_disks": []})
    assert plan(site) == DiskPlan()


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


class DiskImages:
    """Prepares images in no time."""

    def ready(self, image: DiskImage) -> DiskImage:
        return DiskImage(f"disks/{image.sha256}.raw", "b" * 64, 10 << 30)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"image_source": "http://mirror/a.raw", "image_size_bytes": 512},
            {"url": "http://mirror/a.raw", "sha256": "a" * 64, "size_bytes": 512, "format": "raw"},
        ),
        (
            {"image_source": "https://mirror/a.qcow2", "image_disk_format": "qcow2"},
            {"url": f"disks/{'a' * 64}.raw", "sha256": "b" * 64, "size_bytes": 10 << 30, "format": "raw"},
        ),
        ({"image_source": "d0a8a1ac-glance"}, None),
    ],
)
def test_image_of_others_is_ready_before_the_machine_is_told_of_it(
    site: Site, more: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    site.executor = Executor(PostgresStore(), site.open_power, site.policy, lambda: site.now, disk_images=DiskImages())
    NodeRow.objects.update(instance_info={"image_os_hash_algo": "sha256", "image_os_hash_value": "a" * 64, **more})
    deploy(site)
    assert plan(site).image == expected


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"image_source": "http://mirror/a.raw"}, "needs its SHA-256"),
        ({"image_source": "http://mirror/a", "image_checksum": "a" * 64, "image_disk_format": "vmdk"}, "raw or qcow2"),
        ({"image_source": "http://mirror/a", "image_checksum": "a" * 64, "image_size_bytes": -1}, "number of bytes"),
    ],
)
def test_image_that_cannot_be_verified_or_read_fails_the_deployment(
    site: Site, info: dict[str, Any], reason: str
) -> None:
    NodeRow.objects.update(instance_info=info)
    node = deploy(site)
    assert node.provision_state is S.DEPLOY_FAILED
    assert reason in str(node.last_error)
    assert site.power().state is PowerState.OFF
