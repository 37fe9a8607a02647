"""The steps flows are made of. Each is named as its outcome, idempotent, and looks before it acts.

A step's function gets a Context and returns Done, Again (record and go on with it), Wait (look again later) or Back
(run an earlier step again). It raises StepFailed when the outcome is out of reach, and lets errors of drivers through:
their `retry` says whether another try is worth it. It runs again from its beginning after a crash, so what it must
remember goes into `context.data`, which is recorded when the function returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from koguma.contracts.disk_images import DiskImages
from koguma.contracts.errors import PowerRefused
from koguma.contracts.management import ManagementDriver, OpenManagement
from koguma.contracts.power import OpenPower, PowerDriver
from koguma.contracts.store import Claim
from koguma.contracts.volumes import VolumeSite
from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.policy import Policy
from koguma.model.boot_record import BootRecord, Outcome
from koguma.model.flavor import Flavor
from koguma.model.hardware import FAKE
from koguma.model.layout import is_switched
from koguma.model.node import Node
from koguma.model.states import PowerState, ProvisionState, StatusCode

CLOCK_SKEW_S = 5.0
"""A boot service on another machine may be so much behind the worker's clock."""


@dataclass(frozen=True)
class Done:
    """The outcome is reached."""


@dataclass(frozen=True)
class Again:
    """A part of the outcome is reached; what is in `context.data` is recorded, and the step goes on."""


@dataclass(frozen=True)
class Wait:
    """Not yet; look again in `poll_s` (None: only when something happens), or earlier when something happens."""

    code: StatusCode
    message: str
    poll_s: float | None
    state: ProvisionState | None = None
    """The state to wait in, where it is not the step's own."""


@dataclass(frozen=True)
class Back:
    """The machine is powered on once more: begin again at an earlier step."""

    step: str
    reason: str


Result = Done | Again | Wait | Back


_TURN = "power_turn_at"


class Context:
    """What a step may look at and act on."""

    def __init__(
        self,
        claim: Claim,
        node: Node,
        data: dict[str, Any],
        *,
        attempt: int,
        policy: Policy,
        now: datetime,
        step_started_at: datetime,
        worker_started_at: datetime,
        open_power: OpenPower,
        volumes: VolumeSite | None = None,
        disk_images: DiskImages | None = None,
        open_management: OpenManagement | None = None,
    ) -> None:
        self.claim = claim
        self.node = node
        self.data = data
        self.attempt = attempt
        self.policy = policy
        self.now = now
        self.step_started_at = step_started_at
        self.worker_started_at = worker_started_at
        self.changes: dict[str, Any] = {}
        """Changes of the node, recorded with the step's result."""
        self._open_power = open_power
        self._volumes = volumes
        self._disk_images = disk_images
        self._open_management = open_management

    def power(self) -> PowerDriver:
        access = self.claim.access()
        if access is None:
            raise StepFailed(StatusCode.NO_BMC, "power needs a BMC, none is on record")
        return self._open_power(access)

    def management(self) -> ManagementDriver:
        access = self.claim.access()
        if access is None or self._open_management is None:
            raise StepFailed(StatusCode.NO_BMC, "the drive of a BMC needs a BMC, none is on record")
        return self._open_management(access)

    def volumes(self) -> VolumeSite:
        if self._volumes is None:
            raise StepFailed(
                StatusCode.NOT_BOOTABLE, "root method iscsi needs a storage, none is configured (volumes.driver)"
            )
        return self._volumes

    def disk_images(self) -> DiskImages:
        if self._disk_images is None:
            raise StepFailed(StatusCode.NOT_BOOTABLE, "an image to be prepared needs a repository, the worker has none")
        return self._disk_images

    def observed_power(self) -> PowerState:
        state = self.power().get_power_state(timeout_s=self.policy.power_call_timeout_s)
        self.changes["power_state"] = state
        return state

    def wait_for_power_turn(self) -> Wait | None:
        """None when the power may change now. The turn is remembered, so that a worker that takes over keeps it."""
        turn = self.time(_TURN)
        if turn is None:
            turn = self.claim.power_turn(self.policy.limits, self.now)
            self.data[_TURN] = turn.isoformat()
        if turn > self.now:
            left_s = (turn - self.now).total_seconds()
            return Wait(StatusCode.WAITING_FOR_POWER_TURN, f"other nodes' power changes first, {left_s:.1f} s", left_s)
        del self.data[_TURN]
        return None

    def time(self, key: str) -> datetime | None:
        return datetime.fromisoformat(self.data[key]) if key in self.data else None


@dataclass(frozen=True)
class Step:
    name: str
    state: ProvisionState | None
    run: Callable[[Context], Result]
    timeout_s: Callable[[Policy], float | None] = lambda policy: policy.step_timeout_s
    """None: the step has a deadline of its own, or waits for a person."""
    timeout_code: StatusCode = StatusCode.STEP_TIMED_OUT
    applies: Callable[[Node], bool] = lambda _: True
    """Whether the node needs the step; another kind of hardware may not."""


OFF_STEP = "the machine is off"

_NOT_DEPLOYING = ("register", "rescue", "clean", "disk")
"""Boots that say nothing of a deployment, though they may begin while one goes on."""


def untimed(_: Policy) -> None:
    """Of steps that have a deadline of their own, or wait for a person."""


def is_diskless(node: Node) -> bool:
    """Whether deploying the node means to boot it; a fake deployment touches nothing."""
    return node.interface("deploy") != FAKE


def may_be_powered_off(node: Node) -> bool:
    return is_diskless(node) and not node.disable_power_off


def bmc_answers(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.observed_power()
        return Done()

    return Step("the BMC answers with the power state", state, run, _power_timeout)


def node_is_bootable(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        if reason := reason_not_bootable(context.node, context.claim.flavor()):
            raise StepFailed(StatusCode.NOT_BOOTABLE, reason)
        return Done()

    return Step("the node is bootable", state, run, applies=is_diskless)


def addresses_are_given(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.claim.ensure_addresses()
        return Done()

    return Step("its addresses are given", state, run, applies=lambda node: is_diskless(node) or is_switched(node))


def os_is_shut_down(state: ProvisionState | None) -> Step:
    """Best effort: whatever does not shut down in time is powered off by the next step."""

    def run(context: Context) -> Result:
        asked_at = context.time("shutdown_asked_at")
        if asked_at is None:
            if context.observed_power() is PowerState.OFF:
                return Done()
            try:
                context.power().request_shutdown(timeout_s=context.policy.power_call_timeout_s)
            except PowerRefused:
                return Done()  # some BMCs cannot ask; the power is cut then
            context.data["shutdown_asked_at"] = context.now.isoformat()
        elif (
            context.observed_power() is PowerState.OFF or _age_s(context, asked_at) > context.policy.shutdown_timeout_s
        ):
            return Done()
        return Wait(StatusCode.WAITING_FOR_SHUTDOWN, "its operating system was asked to shut down", 1.0)

    return Step("the operating system was asked to shut down", state, run, _power_timeout, applies=_of_power(state))


def machine_is_off(state: ProvisionState | None) -> Step:
    def run(context: Context) -> Result:
        if context.observed_power() is PowerState.OFF:
            return Done()
        if _is_about_to_power_itself_off(context):
            return Wait(StatusCode.WAITING_FOR_SELF_POWER_OFF, "it has registered and powers itself off", 1.0)
        if wait := context.wait_for_power_turn():
            return wait
        context.power().set_power_state(PowerState.OFF, timeout_s=context.policy.power_call_timeout_s)
        context.changes["power_state"] = PowerState.OFF
        return Done()

    return Step(OFF_STEP, state, run, _power_timeout, StatusCode.POWER_OFF_TIMED_OUT, _of_power(state))


def machine_is_on(state: ProvisionState | None) -> Step:
    """The step before has seen the machine off, or nothing has (plain power on): a machine that is on now, after this
    step had begun to power it on, is on because of that.
    """

    def run(context: Context) -> Result:
        if context.observed_power() is PowerState.ON:
            context.data.setdefault("powered_on_at", context.step_started_at.isoformat())
            return Done()
        if wait := context.wait_for_power_turn():
            return wait
        context.claim.record_power_on(context.now)
        context.data["powered_on_at"] = context.now.isoformat()
        context.power().set_power_state(PowerState.ON, timeout_s=context.policy.power_call_timeout_s)
        context.changes["power_state"] = PowerState.ON
        return Done()

    return Step(
        "the machine is on",
        state,
        run,
        _power_timeout,
        StatusCode.POWER_ON_TIMED_OUT,
        is_diskless if state else _always,
    )


def machine_has_installed(state: ProvisionState) -> Step:
    """1. The newest boot since power-on that succeeded ends the wait. 2. Until the deadline, say how far the boot is.
    3. Then power the machine off and on again, as often as the policy allows.
    """

    def run(context: Context) -> Result:
        powered_on_at = context.time("powered_on_at") or context.step_started_at
        since = powered_on_at - timedelta(seconds=CLOCK_SKEW_S)
        boots = [boot for boot in context.claim.boots_since(since) if boot.mode not in _NOT_DEPLOYING]
        if any(boot.outcome is Outcome.SUCCEEDED for boot in boots):
            return Done()
        latest = boots[0] if boots else None
        if not _boot_deadline_has_passed(context, powered_on_at):
            return _progress(latest)
        reason = _why_not_installed(context, latest)
        if context.attempt >= context.policy.boot_attempts_max:
            raise StepFailed(
                StatusCode.BOOT_TIMED_OUT, f"not installed after {context.attempt} attempts; the last one: {reason}"
            )
        return Back(OFF_STEP, reason)

    return Step("the machine has installed", state, run, untimed, applies=is_diskless)


def node_is_handed_over(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.changes.update(last_error=None, goal=None)
        return Done()

    return Step("the node is handed over", state, run, applies=is_diskless)


def last_use_is_forgotten(state: ProvisionState) -> Step:
    """A diskless machine forgets by being off; what is left of its use are wishes on record."""

    def run(context: Context) -> Result:
        context.changes.update(label=None, once=None, installed=None, instance=None)
        return Done()

    return Step("nothing of the last use is left", state, run)


def reason_not_bootable(node: Node, flavor: Flavor | None) -> str | None:
    """Why the node cannot be booted as its records stand, or None when it can."""
    if flavor is None:
        return "a node needs a flavor to be deployed, it has none"
    memory, least = node.inventory.get("memory_bytes"), flavor.requirements.get("memory_bytes")
    if isinstance(memory, int) and isinstance(least, int) and memory < least:
        return f"flavor {flavor.name} needs {least} bytes of memory, the node has {memory}"
    cpus, fewest = node.inventory.get("cpu", {}).get("count"), flavor.requirements.get("cpu_count")
    if isinstance(cpus, int) and isinstance(fewest, int) and cpus < fewest:
        return f"flavor {flavor.name} needs {fewest} CPUs, the node has {cpus}"
    wanted = flavor.requirements.get("architecture")
    if wanted and wanted != node.architecture:
        return f"flavor {flavor.name} needs architecture {wanted}, the node is {node.architecture}"
    return None


def _always(_: Node) -> bool:
    return True


def _of_power(state: ProvisionState | None) -> Callable[[Node], bool]:
    """A step of a power action (without a state) is what was asked for; one of a deployment is a means to an end."""
    return may_be_powered_off if state else _always


def _power_timeout(policy: Policy) -> float:
    return policy.power_step_timeout_s


def _age_s(context: Context, since: datetime) -> float:
    return (context.now - since).total_seconds()


def _is_about_to_power_itself_off(context: Context) -> bool:
    """Only a machine that registered a moment ago, has never been deployed and was not powered on since by us."""
    registered_at = context.node.registered_at
    if registered_at is None or context.node.installed is not None or "powered_on_at" in context.data:
        return False
    return _age_s(context, registered_at) < context.policy.self_power_off_s


def _boot_deadline_has_passed(context: Context, powered_on_at: datetime) -> bool:
    if _age_s(context, powered_on_at) < context.policy.boot_timeout_s:
        return False
    # A site that was down has reports on their way: what looks like a dead machine may have been up for hours.
    return _age_s(context, context.worker_started_at) >= context.policy.late_reports_s


def _progress(latest: BootRecord | None) -> Wait:
    if latest is None:
        return Wait(StatusCode.WAITING_FOR_FIRMWARE, "powered on; it has not asked for its boot script yet", 15.0)
    if latest.outcome is Outcome.FAILED:
        return Wait(StatusCode.WAITING_FOR_INSTALLED, f"its boot failed: {latest.reason}", 15.0)
    phase = latest.current_phase
    return Wait(StatusCode.WAITING_FOR_INSTALLED, f"booting, phase {phase.name}" if phase else "booting", 15.0)


def _why_not_installed(context: Context, latest: BootRecord | None) -> str:
    within = f"within {context.policy.boot_timeout_s:g} s of power-on"
    if latest is None:
        return f"it did not ask for its boot script {within}"
    if latest.outcome is Outcome.FAILED and latest.reason:
        return latest.reason
    phase = latest.current_phase or (latest.phases[-1] if latest.phases else None)
    return f"it was not installed {within}; it was in phase {phase.name if phase else 'ipxe'}"
