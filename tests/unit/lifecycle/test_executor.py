"""The way of a node through its states, on the real database, with simulated time and fake machines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from koguma.contracts.errors import PowerRefused, PowerUnreachable
from koguma.contracts.power import Access, FakePower
from koguma.db import nodes, reports
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import BootRow, NodeRow, PowerOnRow, WorkRow
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.node import Node
from koguma.model.states import PowerAction, PowerState, ProvisionState, StatusCode, Verb
from tests.unit import factories

S = ProvisionState


class Site:
    """A worker with a clock of its own, and the machines behind the BMC addresses."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.machines: dict[str, FakePower] = {}
        self.policy = Policy(boot_timeout_s=900, boot_attempts_max=3, self_power_off_s=90)
        self.stop_after: int | None = None
        self.executor = self.new_worker()

    def new_worker(self) -> Executor:
        self.executor = Executor(PostgresStore(), self.open_power, self.policy, lambda: self.now, self._stopping)
        return self.executor

    def open_power(self, access: Access) -> FakePower:
        return self.machines.setdefault(access.address, FakePower(PowerState.ON, sleep=self.sleep))

    def power(self, number: int = 1) -> FakePower:
        return self.open_power(Access("fake", f"10.77.8.{10 + number}"))

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def advance(self, number: int = 1) -> Node:
        self.executor.advance(factories.machine_uuid(number))
        return self.node(number)

    def advance_until(self, state: ProvisionState, number: int = 1, within_s: float = 7200) -> Node:
        """Let time pass from wake-up to wake-up, as the worker would."""
        end = self.now + timedelta(seconds=within_s)
        node = self.advance(number)
        while node.provision_state is not state or WorkRow.objects.get(node__name=node.name).operation_id:
            wake_at = WorkRow.objects.get(node__name=node.name).wake_at
            assert wake_at is not None, f"nothing will ever happen: {node.provision_state} {node.status}"
            self.now = max(self.now, wake_at)
            assert self.now <= end, f"still {node.provision_state} {node.status_code} {node.status}"
            node = self.advance(number)
        return node

    def node(self, number: int = 1) -> Node:
        return nodes.find(factories.machine_uuid(number))

    def report(self, boot_id: str, kind: str, number: int = 1, **body: object) -> None:
        document = factories.report(number, boot_id, kind, self.now, **body)
        accepted, refused = reports.apply([document], self.now)
        assert accepted == [document["id"]], refused

    def boot(self, number: int = 1) -> str:
        boot_id = uuid4().hex
        self.report(boot_id, "script", number, mode="boot", label="compute", commit="c" * 64)
        return boot_id

    def _stopping(self) -> bool:
        if self.stop_after is None:
            return False
        self.stop_after -= 1
        return self.stop_after < 0


@pytest.fixture
def site(db: str) -> Site:
    factories.network()
    factories.flavor()
    return Site()


def deploying(site: Site) -> Node:
    """Node 1, registered, off by itself, powered on again, waiting for its call-back."""
    factories.register(1)
    site.advance()
    site.power().state = PowerState.OFF
    site.sleep(2)
    return site.advance()


def active(site: Site) -> Node:
    deploying(site)
    site.sleep(10)
    boot = site.boot()
    site.sleep(20)
    site.report(boot, "installed", memory={"total_bytes": 1})
    return site.advance()


def test_a_registered_machine_becomes_active_by_itself(site: Site) -> None:
    node = active(site)
    assert (node.provision_state, node.status_code, node.last_error) == (S.ACTIVE, StatusCode.RUNNING, None)
    assert (node.power_state, node.goal, node.addresses) == (PowerState.ON, None, ("10.77.0.2",))
    assert node.installed is not None
    assert (node.installed.label, node.installed.commit) == ("compute", "c" * 64)
    assert site.power().calls.count("set power on") == 1


def test_a_registered_machine_is_not_cut_off_before_it_had_time_to_power_itself_off(site: Site) -> None:
    factories.register(1)
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.CLEANING, StatusCode.WAITING_FOR_SELF_POWER_OFF)
    assert "set power off" not in site.power().calls


def test_a_registered_machine_that_stays_on_is_forced_off(site: Site) -> None:
    factories.register(1)
    node = site.advance()
    for _ in range(25):
        site.sleep(4)
        node = site.advance()
    assert "set power off" in site.power().calls
    assert node.provision_state is S.WAIT_CALL_BACK


def test_a_node_waits_for_the_machine_to_call_back(site: Site) -> None:
    node = deploying(site)
    assert (node.provision_state, node.status_code) == (S.WAIT_CALL_BACK, StatusCode.WAITING_FOR_FIRMWARE)
    boot = site.boot()
    site.report(boot, "phase", phase="stage1", state="started", uptime_s=1.0)
    node = site.advance()
    assert (node.status_code, node.status) == (StatusCode.WAITING_FOR_INSTALLED, "booting, phase stage1")


def test_a_machine_that_never_boots_is_powered_on_three_times_and_then_has_failed(site: Site) -> None:
    site.policy = replace(site.policy, boot_timeout_s=120)
    site.new_worker()
    deploying(site)
    node = site.advance_until(S.DEPLOY_FAILED)
    assert node.status_code is StatusCode.BOOT_TIMED_OUT
    assert site.power().calls.count("set power on") == 3
    assert node.last_error is not None
    assert "after 3 attempts" in node.last_error
    assert "did not ask for its boot script" in node.last_error
    assert node.goal is None


def test_the_reason_of_a_failed_deployment_is_what_the_machine_said(site: Site) -> None:
    deploying(site)
    boot = site.boot()
    site.report(boot, "phase", phase="verify", state="started", uptime_s=1.0)
    site.report(boot, "phase", phase="verify", state="failed", reason="digest of root.squashfs differs")
    node = site.advance()
    assert node.last_error == "boot failed: verify: digest of root.squashfs differs"
    assert "digest of root.squashfs" in node.status
    boots = nodes.boots("node-1")
    assert (boots[0].outcome.value, boots[0].reason) == ("failed", "verify: digest of root.squashfs differs")


def test_a_late_boot_still_ends_active(site: Site) -> None:
    deploying(site)
    site.sleep(1000)
    site.advance()
    assert PowerOnRow.objects.count() == 2
    boot = site.boot()
    site.report(boot, "installed")
    assert site.advance().provision_state is S.ACTIVE


def test_a_restarted_worker_waits_for_late_reports_before_it_gives_a_boot_up(site: Site) -> None:
    deploying(site)
    booted_at = site.now
    site.sleep(7200)
    site.new_worker()
    assert site.advance().provision_state is S.WAIT_CALL_BACK
    assert site.power().calls.count("set power on") == 1
    now, site.now = site.now, booted_at + timedelta(seconds=20)
    boot = site.boot()
    site.report(boot, "installed")
    site.now = now
    assert site.advance().provision_state is S.ACTIVE
    assert site.power().calls.count("set power on") == 1


def test_a_worker_goes_on_from_the_last_finished_step_at_every_point(site: Site) -> None:
    """The worker is stopped after one loop, after two …; the next one always goes on, and the power is switched on
    once.
    """
    factories.register(1)
    for loops in range(1, 40):
        site.new_worker()
        site.stop_after = 1 if loops % 2 else 2
        site.sleep(1)
        if loops == 12:
            site.power().state = PowerState.OFF
        node = site.advance()
    assert node.provision_state is S.WAIT_CALL_BACK
    assert site.power().calls.count("set power on") == 1


def test_a_bmc_that_does_not_answer_is_asked_again_later(site: Site) -> None:
    factories.register(1)
    site.power().failures = [PowerUnreachable("no answer")] * 3
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.VERIFYING, StatusCode.WAITING_FOR_BMC)
    for _ in range(3):
        wake_at = WorkRow.objects.get().wake_at
        assert wake_at is not None
        site.now = max(site.now, wake_at)
        node = site.advance()
    assert node.provision_state is S.CLEANING


def test_a_bmc_that_refuses_leaves_the_node_enrolled_with_the_reason_and_is_tried_again_much_later(site: Site) -> None:
    factories.register(1)
    site.power().failures = [PowerRefused("bad password")]
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.ENROLL, StatusCode.BMC_REFUSED)
    assert node.last_error is not None
    assert "bad password" in node.last_error
    wake_at = WorkRow.objects.get().wake_at
    assert wake_at is not None
    site.now = wake_at
    assert site.advance().provision_state is S.WAIT_CALL_BACK


def test_a_driver_with_a_defect_ends_in_the_nodes_record(site: Site) -> None:
    factories.register(1)

    def broken(access: Access) -> FakePower:
        raise ZeroDivisionError("a defect")

    site.open_power = broken  # type: ignore[method-assign]
    site.new_worker()
    node = site.advance_until(S.ENROLL)
    assert "ZeroDivisionError" in (node.last_error or "")


def test_a_machine_that_cannot_be_powered_off_fails_cleaning_with_its_own_code(site: Site) -> None:
    factories.register(1)
    site.policy = replace(site.policy, self_power_off_s=5)
    site.new_worker()
    site.power().stuck = True
    node = site.advance_until(S.CLEAN_FAILED)
    assert node.status_code is StatusCode.POWER_OFF_TIMED_OUT


def test_a_node_without_a_flavor_waits_for_one(site: Site) -> None:
    NodeRow.objects.all().delete()
    from koguma.db import catalog

    catalog.delete_flavor("compute")
    factories.register(1)
    site.power().state = PowerState.OFF
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.AVAILABLE, StatusCode.WAITING_FOR_FLAVOR)
    factories.flavor(name="storage")
    assert site.advance().provision_state is S.AVAILABLE
    factories.flavor()  # the one that new nodes get
    node = site.advance()
    assert (node.provision_state, node.flavor) == (S.WAIT_CALL_BACK, "compute")


def test_an_active_node_stays_active_while_it_reboots_and_says_so(site: Site) -> None:
    active(site)
    site.sleep(3600)
    boot = site.boot()
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.ACTIVE, StatusCode.BOOTING)
    site.report(boot, "installed")
    node = site.advance()
    assert (node.provision_state, node.status_code) == (S.ACTIVE, StatusCode.RUNNING)
    assert [row.outcome for row in BootRow.objects.order_by("-began_at")] == ["succeeded", "succeeded"]


def test_booting_another_label_once_reboots_an_active_node_gracefully(site: Site) -> None:
    active(site)
    node = nodes.set_boot_label("node-1", "compute-next", once=True, reboot=True)
    assert node.once is not None
    site.power().calls.clear()
    site.advance()
    site.sleep(2)
    node = site.advance()
    assert [call for call in site.power().calls if call != "get"] == ["shutdown", "set power on"]
    assert (node.provision_state, node.status_code) == (S.ACTIVE, StatusCode.BOOTING)
    boot = site.boot()
    site.report(boot, "once", id=node.once.id if node.once else "", label="compute-next")
    assert site.node().once is None


def test_an_operating_system_that_does_not_shut_down_is_cut_off(site: Site) -> None:
    active(site)
    site.power().obeys_shutdown = False
    nodes.request_power("node-1", PowerAction.REBOOT)
    for _ in range(20):
        site.advance()
        site.sleep(4)
    assert [call for call in site.power().calls if call != "get"][-3:] == [
        "shutdown",
        "set power off",
        "set power on",
    ]


def test_aborting_a_deployment_leaves_it_failed_at_once(site: Site) -> None:
    deploying(site)
    node = nodes.request_verb("node-1", Verb.ABORT)
    assert (node.provision_state, node.status_code) == (S.DEPLOY_FAILED, StatusCode.ABORTED)
    site.sleep(5000)
    assert site.advance().provision_state is S.DEPLOY_FAILED


def test_undeploying_powers_off_and_forgets_the_use(site: Site) -> None:
    active(site)
    nodes.set_boot_label("node-1", "special", once=False, reboot=False)
    nodes.request_verb("node-1", Verb.UNDEPLOY)
    node = site.advance_until(S.AVAILABLE)
    assert (site.power().state, node.label, node.installed) == (PowerState.OFF, None, None)


def test_a_rebuild_powers_on_anew_and_ends_active(site: Site) -> None:
    active(site)
    site.sleep(100)
    nodes.request_verb("node-1", Verb.REBUILD)
    node = site.advance()
    assert node.provision_state is S.WAIT_CALL_BACK
    site.sleep(30)
    site.report(site.boot(), "installed")
    assert site.advance().provision_state is S.ACTIVE


def test_history_tells_every_step_with_its_end(site: Site) -> None:
    active(site)
    steps = list(reversed(nodes.steps("node-1")))
    assert [(step.flow, step.step, step.outcome) for step in steps] == [
        ("verify", "the BMC answers with the power state", "done"),
        ("clean", "the machine is off", "done"),
        ("clean", "its ports are in the provisioning network", "done"),
        ("clean", "its volume is deleted", "done"),
        ("clean", "nothing of the last use is left", "done"),
        ("deploy", "the node is bootable", "done"),
        ("deploy", "its addresses are given", "done"),
        ("deploy", "its disk is to be written", "done"),
        ("deploy", "its volume is made", "done"),
        ("deploy", "the machine is off", "done"),
        ("deploy", "its ports are in the provisioning network", "done"),
        ("deploy", "its volume is shown to it", "done"),
        ("deploy", "the machine is on", "done"),
        ("deploy", "the machine has installed", "done"),
        ("deploy", "its ports are in the networks of its use", "done"),
        ("deploy", "the node is handed over", "done"),
    ]
