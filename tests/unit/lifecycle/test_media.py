"""Machines that boot from their BMC's virtual media, on the real database, with simulated time and fake machines."""

from __future__ import annotations

import pytest

from koguma.contracts.errors import PowerUnreachable, Unsupported
from koguma.contracts.management import BootDevice, FakeMachine, MediaKind
from koguma.contracts.power import Access
from koguma.db import nodes
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import NodeRow
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.hardware import VIRTUAL_MEDIA
from koguma.model.states import PowerAction, PowerState, ProvisionState, Verb
from tests.unit import factories
from tests.unit.lifecycle.test_executor import Site

S = ProvisionState
DISC = "http://10.77.8.1:8080/loaders/ipxe.iso"


class MediaSite(Site):
    def __init__(self) -> None:
        self.drives: dict[str, FakeMachine] = {}
        super().__init__()

    def new_worker(self, disc: str = DISC) -> Executor:
        self.policy = Policy(boot_timeout_s=900, boot_attempts_max=3, loader_disc_url=disc)
        self.executor = Executor(
            PostgresStore(),
            self.open_power,
            self.policy,
            lambda: self.now,
            self._stopping,
            open_management=self.open_management,
        )
        return self.executor

    def open_management(self, access: Access) -> FakeMachine:
        return self.drives.setdefault(access.address, FakeMachine(sleep=self.sleep))

    def drive(self) -> FakeMachine:
        return self.open_management(Access("fake", "10.77.8.11"))


@pytest.fixture
def site(db: str) -> MediaSite:
    """One node that boots from virtual media, available and off."""
    factories.network()
    factories.flavor()
    site = MediaSite()
    factories.register(1)
    NodeRow.objects.update(provision_state="available", goal=None, interfaces={"boot": VIRTUAL_MEDIA})
    site.power().state = PowerState.OFF
    return site


def test_loader_is_in_the_drive_and_first_in_the_boot_order_before_the_machine_is_powered_on(site: MediaSite) -> None:
    site.drive().failures = [PowerUnreachable("no answer")] * 99
    nodes.request_verb("node-1", Verb.DEPLOY)
    site.advance()
    assert site.power().state is PowerState.OFF, "it waits for the drive"
    site.drive().failures = []
    site.sleep(60)
    assert site.advance().provision_state is S.WAIT_CALL_BACK
    assert site.drive().media[MediaKind.CDROM] == DISC
    assert (site.drive().boot.device, site.drive().boot.persistent) == (BootDevice.CDROM, True)
    assert site.power().state is PowerState.ON


def test_disc_that_somebody_took_out_is_back_for_the_next_power_on(site: MediaSite) -> None:
    NodeRow.objects.update(provision_state="active")
    nodes.request_power("node-1", PowerAction.ON)
    site.advance()
    site.drive().eject_media(MediaKind.CDROM, timeout_s=1)
    site.power().state = PowerState.OFF
    nodes.request_power("node-1", PowerAction.ON)
    site.advance()
    assert site.drive().media[MediaKind.CDROM] == DISC


def test_machine_that_boots_from_the_network_keeps_its_boot_order(site: MediaSite) -> None:
    NodeRow.objects.update(interfaces={})
    nodes.request_verb("node-1", Verb.DEPLOY)
    site.advance()
    assert site.drive().calls == []


def test_bmc_without_virtual_media_and_a_site_without_a_disc_fail_the_deployment(site: MediaSite) -> None:
    site.drive().failures = [Unsupported("this BMC has no virtual media")]
    nodes.request_verb("node-1", Verb.DEPLOY)
    node = site.advance()
    assert node.provision_state is S.DEPLOY_FAILED
    assert "no virtual media" in str(node.last_error)
    site.new_worker(disc="")
    nodes.request_verb("node-1", Verb.DEPLOY)
    node = site.advance()
    assert node.provision_state is S.DEPLOY_FAILED
    assert "boot.media_url" in str(node.last_error)
