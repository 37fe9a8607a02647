"""The steps of a rescue: the machine runs stage 1 with a shell on the network, and later what it ran before.

The boot service gives the rescue script to a node that is rescuing or in rescue (`koguma.db.snapshots`), so a machine
that is rebooted meanwhile comes back into rescue.
"""

from __future__ import annotations

from datetime import timedelta

from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.steps import CLOCK_SKEW_S, OFF_STEP, Back, Context, Done, Result, Step, Wait, untimed
from koguma.model.boot_record import Outcome
from koguma.model.hardware import FAKE
from koguma.model.node import Node
from koguma.model.states import ProvisionState, StatusCode

POLL_S = 15.0


def rescue_shell_is_up(state: ProvisionState) -> Step:
    """By the machine's own word: its newest rescue boot since power-on has succeeded."""

    def run(context: Context) -> Result:
        powered_on_at = context.time("powered_on_at") or context.step_started_at
        boots = context.claim.boots_since(powered_on_at - timedelta(seconds=CLOCK_SKEW_S))
        latest = next((boot for boot in boots if boot.mode == "rescue"), None)
        if latest and latest.outcome is Outcome.SUCCEEDED:
            context.changes["last_error"] = None
            return Done()
        if (context.now - powered_on_at).total_seconds() <= context.policy.boot_timeout_s:
            phase = latest.current_phase if latest else None
            where = f"booting into rescue, phase {phase.name}" if phase else "powered on; not in rescue yet"
            return Wait(StatusCode.WAITING_FOR_RESCUE, where, POLL_S)
        reason = (latest.reason if latest else None) or "it did not come up"
        if context.attempt >= context.policy.boot_attempts_max:
            raise StepFailed(
                StatusCode.BOOT_TIMED_OUT, f"not in rescue after {context.attempt} attempts; the last one: {reason}"
            )
        return Back(OFF_STEP, reason)

    return Step("the rescue shell is up", state, run, untimed, applies=_boots_into_rescue)


def rescue_password_is_forgotten(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.changes["rescue_password"] = None
        return Done()

    return Step("the rescue password is forgotten", state, run)


def _boots_into_rescue(node: Node) -> bool:
    return node.interface("rescue") != FAKE
