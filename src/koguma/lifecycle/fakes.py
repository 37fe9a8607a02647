"""The work of fake interfaces: it takes as long, or fails, as the node's `driver_info` says, and touches nothing."""

from __future__ import annotations

from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.steps import Context, Done, Result, Step, Wait, untimed
from koguma.model.hardware import FAKE
from koguma.model.node import Node
from koguma.model.states import ProvisionState, StatusCode


def fake_work_is_done(work: str, kind: str, state: ProvisionState, waiting: ProvisionState | None = None) -> Step:
    """`work` names the settings (`fake_<work>_delay_s`, `fake_<work>_failure`), `kind` the interface that is fake. A
    node whose work takes time waits in `waiting`.
    """

    def run(context: Context) -> Result:
        reject_planned_failure(context.node, work)
        left_s = delay_left_s(context.node, work, (context.now - context.step_started_at).total_seconds())
        if left_s > 0:
            return Wait(StatusCode.WAITING_FOR_MACHINE, f"the fake {work} takes {left_s:g} s more", left_s, waiting)
        return Done()

    def applies(node: Node) -> bool:
        return node.interface(kind) == FAKE

    return Step(f"the fake {work} is done", state, run, untimed, applies=applies)


def delay_left_s(node: Node, work: str, passed_s: float) -> float:
    delay = node.driver_info.get(f"{FAKE}_{work}_delay_s", 0)
    try:
        return max(0.0, min(float(delay), 86400.0) - passed_s)
    except (TypeError, ValueError):
        raise StepFailed(
            StatusCode.STEP_FAILED, f"a delay must be a number of seconds, got {delay!r} ({FAKE}_{work}_delay_s)"
        ) from None


def reject_planned_failure(node: Node, work: str) -> None:
    """Raises StepFailed."""
    if failure := node.driver_info.get(f"{FAKE}_{work}_failure"):
        raise StepFailed(StatusCode.STEP_FAILED, str(failure))
