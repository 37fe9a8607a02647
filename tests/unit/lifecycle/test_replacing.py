"""Roots on volumes and `koguma node replace`, on the real database, with simulated time, fake machines and storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from koguma.contracts.errors import PowerUnreachable, VolumeUnreachable
from koguma.contracts.volumes import FakeVolumes, VolumeImage
from koguma.db import nodes, snapshots
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import AddressRow, FlavorRow, NodeRow, VolumeTargetRow
from koguma.lifecycle.errors import VerbRefused
from koguma.lifecycle.executor import Executor
from koguma.model.flavor import RootMethod
from koguma.model.node import Node
from koguma.model.states import PowerState, ProvisionState, Verb
from koguma.model.volume import initiator_of
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site

S = ProvisionState
GIB = 1 << 30


class Volumes:
    """A site's storage in memory."""

    def __init__(self) -> None:
        self.storage = FakeVolumes()
        self.size_bytes = 10 * GIB

    def driver(self) -> FakeVolumes:
        return self.storage

    def image_of(self, label: str, size_bytes: int) -> VolumeImage:
        return VolumeImage("c" * 64, Path(f"/images/{label}-{size_bytes}"))

    def shown_to(self) -> list[str | None]:
        return [volume.initiator for volume in self.storage.found.values()]


class VolumeSite(Site):
    def __init__(self) -> None:
        self.volumes = Volumes()
        super().__init__()

    def new_worker(self) -> Executor:
        self.executor = Executor(
            PostgresStore(), self.open_power, self.policy, lambda: self.now, self._stopping, self.volumes
        )
        return self.executor

    def install(self, number: int = 1) -> Node:
        self.sleep(10)
        boot = self.boot(number)
        self.report(boot, "installed", number, memory={})
        return self.advance(number)


@pytest.fixture
def site(db: str) -> Iterator[VolumeSite]:
    """Node 1 active with a root volume, node 2 available, both of one flavor."""
    factories.network()
    factories.flavor(root_method=RootMethod.ISCSI)
    site = VolumeSite()
    for number in (1, 2):
        factories.register(number)
        site.power(number).state = PowerState.OFF
    NodeRow.objects.update(provision_state="available", goal=None)
    nodes.request_verb("node-1", Verb.DEPLOY)
    site.advance()
    site.install()
    assert site.node().provision_state is S.ACTIVE
    return site


def told(number: int) -> dict[str, object]:
    return dict(snapshots.render().by_uuid[factories.machine_uuid(number)].detail)


def test_volume_is_made_of_the_label_and_shown_to_this_machine_alone(site: VolumeSite) -> None:
    assert site.volumes.shown_to() == [initiator_of(factories.machine_uuid(1))]
    access = told(1)["iscsi"]
    assert isinstance(access, dict)
    assert access["initiator"] == initiator_of(factories.machine_uuid(1))
    assert "iscsi" not in told(2)
    shown = VolumeTargetRow.objects.get()
    assert access["secret"] not in str((shown.properties, shown.extra, shown.sealed))


def test_deployment_after_a_failure_keeps_the_volume(site: VolumeSite) -> None:
    before = set(site.volumes.storage.found)
    nodes.request_verb("node-1", Verb.REBUILD)
    site.advance()
    site.install()
    assert set(site.volumes.storage.found) == before


def test_volume_is_deleted_with_the_use_of_the_node(site: VolumeSite) -> None:
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    site.advance_until(S.AVAILABLE)
    assert site.volumes.storage.found == {}
    assert not VolumeTargetRow.objects.exists()


def test_volume_that_cannot_be_made_yet_is_tried_again_and_made_once(site: VolumeSite) -> None:
    site.volumes.storage.failures = [VolumeUnreachable("the storage must answer")]
    nodes.request_verb("node-2", Verb.DEPLOY)
    site.advance(2)
    site.sleep(60)
    site.advance(2)
    assert len(site.volumes.storage.found) == 2


def test_replacement_has_name_keys_addresses_instance_and_volume(site: VolumeSite) -> None:
    instance = uuid4()
    NodeRow.objects.filter(name="node-1").update(instance_uuid=instance)
    before, spare = site.node(1), site.node(2)
    nodes.request_replacement("node-1", None)
    dead = site.advance(1)
    assert (dead.provision_state, dead.maintenance, dead.name) == (S.MANAGEABLE, True, "node-2")
    assert site.power(1).state is PowerState.OFF
    site.advance(2)
    after = site.install(2)
    assert (after.name, after.provision_state) == ("node-1", S.ACTIVE)
    assert after.addresses == before.addresses
    assert after.ssh_host_public_key == before.ssh_host_public_key != spare.ssh_host_public_key
    assert after.instance_uuid == str(instance)
    assert dead.instance_uuid is None
    assert site.volumes.shown_to() == [initiator_of(factories.machine_uuid(2))]
    assert len(site.volumes.storage.found) == 1
    assert "iscsi" not in told(1)
    held = AddressRow.objects.values_list("address", flat=True)
    assert len(held) == len(set(held))


def test_machine_whose_bmc_is_dead_too_is_cut_off_from_its_volume(site: VolumeSite) -> None:
    site.power(1).failures = [PowerUnreachable("the BMC must answer")] * 50
    nodes.request_replacement("node-1", "node-2")
    site.advance_until(S.MANAGEABLE, 1)
    site.advance(2)
    assert site.volumes.shown_to() == [initiator_of(factories.machine_uuid(2))]


@pytest.mark.parametrize("ticks", range(1, 8))
def test_worker_that_dies_while_replacing_leaves_one_machine_with_the_identity(site: VolumeSite, ticks: int) -> None:
    nodes.request_replacement("node-1", None)
    site.stop_after = ticks
    site.advance(1)
    site.stop_after = None
    site.new_worker()
    site.advance_until(S.MANAGEABLE, 1)
    site.advance(2)
    assert site.install(2).name == "node-1"
    assert sorted(NodeRow.objects.values_list("name", flat=True)) == ["node-1", "node-2"]
    assert site.volumes.shown_to() == [initiator_of(factories.machine_uuid(2))]


def test_replacement_that_was_done_is_not_done_again_when_its_step_is_repeated(site: VolumeSite) -> None:
    nodes.request_replacement("node-1", None)
    with PostgresStore().claim(factories.machine_uuid(1)) as claim:
        assert claim is not None
        claim.hand_over(None, "1" * 32)
        claim.hand_over(None, "1" * 32)
    assert site.node(2).name == "node-1"
    assert site.node(1).name == "node-2"


def test_node_without_a_spare_is_not_replaced(site: VolumeSite) -> None:
    NodeRow.objects.filter(name="node-2").update(maintenance=True)
    with pytest.raises(VerbRefused, match="no other node of flavor compute is available"):
        nodes.request_replacement("node-1", None)
    with pytest.raises(VerbRefused, match="node-2 is in maintenance"):
        nodes.request_replacement("node-1", "node-2")


def test_node_with_its_root_on_its_own_disk_is_not_replaced(site: VolumeSite) -> None:
    FlavorRow.objects.update(root_method="disk")
    with pytest.raises(VerbRefused, match="its data would stay behind"):
        nodes.request_replacement("node-1", None)
