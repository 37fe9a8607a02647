"""The steps that somebody asked for with a verb: Ironic's clean, deploy and service steps, run one after the other.

They are in the operation's data from its beginning (`ASKED`), with the place of the present one beside them, so a
worker that takes over goes on with the step that was under way. `hold`, `wait`, `power_on`, `power_off` and `reboot`
mean the same on all hardware; every other step is its interface's. What is done to fake hardware is nothing, for as
long as `fake_<work>_delay_s` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.fakes import delay_left_s, reject_planned_failure
from koguma.lifecycle.steps import Again, Context, Done, Result, Step, Wait, untimed
from koguma.model.hardware import FAKE, KINDS
from koguma.model.operation import AskedStep
from koguma.model.states import PowerState, ProvisionState, StatusCode

ASKED = "asked"
_PLACE = "asked_place"
_SINCE = "asked_since"
HELD = "held"
"""True while the present step holds the node; whoever lets it go on makes it false."""


@dataclass(frozen=True)
class States:
    """Where a node is while its steps run, wait for the machine, and hold."""

    running: ProvisionState
    waiting: ProvisionState
    holding: ProvisionState


def asked_steps_are_done(states: States, work: str) -> Step:
    """`work` is clean, deploy or service, as in `fake_clean_delay_s`."""

    def run(context: Context) -> Result:
        place = context.data.get(_PLACE, 0)
        steps = context.data.get(ASKED, [])
        if place >= len(steps):
            return Done()
        if _SINCE not in context.data:
            context.data[_SINCE] = context.now.isoformat()
            context.changes["asked_step"] = steps[place]
            return Again()
        step = AskedStep(**steps[place])
        return _run(context, step, states, work) or _next(context, place)

    return Step("the steps asked for are done", states.running, run, untimed)


def _next(context: Context, place: int) -> Again:
    context.data[_PLACE] = place + 1
    for key in (_SINCE, HELD):
        context.data.pop(key, None)
    context.changes["asked_step"] = None
    return Again()


def _run(context: Context, step: AskedStep, states: States, work: str) -> Wait | None:
    """None when it is done. Raises StepFailed."""
    if step.step == "hold":
        if context.data.setdefault(HELD, True):
            return Wait(StatusCode.HELD, "a step holds the node until it is let go on", None, states.holding)
        return None
    if step.step == "wait":
        return _wait(context, _seconds(step.args), states)
    if step.step in ("power_on", "power_off", "reboot"):
        _set_power(context, step.step)
        return None
    name = context.node.interface(step.interface) if step.interface in KINDS else "unknown"
    if name != FAKE:
        raise StepFailed(
            StatusCode.STEP_FAILED,
            f"a step must be one of its interface, {step.interface}.{step.step} is none of {name!r}",
        )
    reject_planned_failure(context.node, work)
    return _wait(context, delay_left_s(context.node, work, 0.0), states)


def _wait(context: Context, duration_s: float, states: States) -> Wait | None:
    since = datetime.fromisoformat(context.data[_SINCE])
    left_s = duration_s - (context.now - since).total_seconds()
    if left_s <= 0:
        return None
    return Wait(StatusCode.WAITING_FOR_MACHINE, f"a step takes {duration_s:g} s", left_s, states.waiting)


def _seconds(args: dict[str, Any]) -> float:
    value = args.get("seconds", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86400:
        raise StepFailed(StatusCode.STEP_FAILED, f"wait takes seconds, 0 to 86400, got {value!r}")
    return float(value)


def _set_power(context: Context, step: str) -> None:
    power, timeout_s = context.power(), context.policy.power_call_timeout_s
    targets = {"power_on": [PowerState.ON], "power_off": [PowerState.OFF], "reboot": [PowerState.OFF, PowerState.ON]}
    for target in targets[step]:
        power.set_power_state(target, timeout_s=timeout_s)
        context.changes["power_state"] = target
