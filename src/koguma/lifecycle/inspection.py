"""The steps of an inspection: the machine is booted into stage 1 and tells what it is."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.steps import CLOCK_SKEW_S, Context, Done, Result, Step, Wait, untimed
from koguma.model.hardware import FAKE
from koguma.model.node import Node
from koguma.model.states import ProvisionState, StatusCode


def inspection_has_begun(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.changes["inspection_started_at"] = context.now
        context.changes["inspection_finished_at"] = None
        context.changes["inspection_error"] = None
        return Done()

    return Step("the inspection has begun", state, run)


def boot_port_has_an_address(state: ProvisionState) -> Step:
    """The boot service answers a known machine at the address reserved for it only."""

    def run(context: Context) -> Result:
        # Whether its hardware fits the flavor is asked when the node is deployed; here it is only looked at.
        with contextlib.suppress(StepFailed):
            context.claim.ensure_addresses()
        return Done()

    return Step(
        "its boot port has an address", state, run, applies=lambda node: tells_itself(node) and bool(node.ports)
    )


def machine_has_registered(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        if context.node.inspection_error:
            raise StepFailed(StatusCode.REFUSED_BY_RULE, context.node.inspection_error)
        since = (context.time("powered_on_at") or context.step_started_at) - timedelta(seconds=CLOCK_SKEW_S)
        registered_at = context.node.registered_at
        if registered_at is not None and registered_at >= since:
            return Done()
        waited_s = (context.now - context.step_started_at).total_seconds()
        if waited_s > context.policy.boot_timeout_s:
            raise StepFailed(
                StatusCode.BOOT_TIMED_OUT, f"it did not register within {context.policy.boot_timeout_s:g} s of power-on"
            )
        return Wait(StatusCode.WAITING_FOR_REGISTRATION, "powered on; it has not told about itself yet", 15.0)

    return Step("the machine has registered", state, run, untimed, applies=tells_itself)


def inspection_has_ended(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.changes["inspection_finished_at"] = context.now
        return Done()

    return Step("the inspection has ended", state, run)


def tells_itself(node: Node) -> bool:
    return node.interface("inspect") != FAKE
