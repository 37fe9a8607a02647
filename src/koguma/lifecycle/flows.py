"""The provision state machine, in one place and as data: verbs, flows, their steps, and where a failure leads.

    enroll -manage-> verifying -> manageable -provide-> cleaning -> available
    available -deploy-> deploying -> wait call-back -> deploying -> active
    active, deploy failed -rebuild-> deploying …
    active, wait call-back, deploy failed, error -undeploy-> deleting -> cleaning -> available
    wait call-back -abort-> deploy failed
    available, clean failed -manage-> manageable

A flow is a list of steps (`lifecycle.steps`), each named as its outcome and run in a provision state; a step without a
state leaves the node in the one it has. To add a state's work, add a flow and the verbs that lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from koguma.lifecycle import steps
from koguma.lifecycle.errors import VerbRefused
from koguma.lifecycle.steps import Step
from koguma.model.node import Node
from koguma.model.states import PowerAction, PowerState, ProvisionState, StatusCode, Verb

S = ProvisionState


@dataclass(frozen=True)
class Flow:
    """`success` is the state at the end; None leaves the node in the one it has."""

    name: str
    steps: tuple[Step, ...]
    success: ProvisionState | None = None
    target_power: PowerState | None = None

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def after(self, step: Step) -> Step | None:
        index = self.steps.index(step) + 1
        return self.steps[index] if index < len(self.steps) else None


@dataclass(frozen=True)
class Move:
    """What a verb does in a state: starts a flow, or changes the state at once."""

    flow: str | None = None
    state: ProvisionState | None = None


FLOWS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("verify", (steps.bmc_answers(S.VERIFYING),), S.MANAGEABLE),
        Flow("clean", (steps.machine_is_off(S.CLEANING), steps.last_use_is_forgotten(S.CLEANING)), S.AVAILABLE),
        Flow(
            "deploy",
            (
                steps.node_is_bootable(S.DEPLOYING),
                steps.addresses_are_given(S.DEPLOYING),
                steps.machine_is_off(S.DEPLOYING),
                steps.machine_is_on(S.DEPLOYING),
                steps.machine_has_installed(S.WAIT_CALL_BACK),
                steps.node_is_handed_over(S.DEPLOYING),
            ),
            S.ACTIVE,
        ),
        Flow(
            "undeploy",
            (
                steps.os_is_shut_down(S.DELETING),
                steps.machine_is_off(S.DELETING),
                steps.last_use_is_forgotten(S.CLEANING),
            ),
            S.AVAILABLE,
        ),
        Flow(PowerAction.ON.value, (steps.machine_is_on(None),), target_power=PowerState.ON),
        Flow(PowerAction.OFF.value, (steps.machine_is_off(None),), target_power=PowerState.OFF),
        Flow(
            PowerAction.SOFT_OFF.value,
            (steps.os_is_shut_down(None), steps.machine_is_off(None)),
            target_power=PowerState.OFF,
        ),
        Flow(
            PowerAction.CYCLE.value, (steps.machine_is_off(None), steps.machine_is_on(None)), target_power=PowerState.ON
        ),
        Flow(
            PowerAction.REBOOT.value,
            (steps.os_is_shut_down(None), steps.machine_is_off(None), steps.machine_is_on(None)),
            target_power=PowerState.ON,
        ),
    )
}

VERBS: Mapping[tuple[ProvisionState, Verb], Move] = {
    (S.ENROLL, Verb.MANAGE): Move(flow="verify"),
    (S.MANAGEABLE, Verb.PROVIDE): Move(flow="clean"),
    (S.AVAILABLE, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.CLEAN_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.INSPECT_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.ADOPT_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.AVAILABLE, Verb.DEPLOY): Move(flow="deploy"),
    (S.DEPLOY_FAILED, Verb.DEPLOY): Move(flow="deploy"),
    (S.ACTIVE, Verb.REBUILD): Move(flow="deploy"),
    (S.DEPLOY_FAILED, Verb.REBUILD): Move(flow="deploy"),
    (S.ERROR, Verb.REBUILD): Move(flow="deploy"),
    (S.ACTIVE, Verb.UNDEPLOY): Move(flow="undeploy"),
    (S.WAIT_CALL_BACK, Verb.UNDEPLOY): Move(flow="undeploy"),
    (S.DEPLOY_FAILED, Verb.UNDEPLOY): Move(flow="undeploy"),
    (S.ERROR, Verb.UNDEPLOY): Move(flow="undeploy"),
    (S.WAIT_CALL_BACK, Verb.ABORT): Move(state=S.DEPLOY_FAILED),
    (S.CLEAN_WAIT, Verb.ABORT): Move(state=S.CLEAN_FAILED),
    (S.INSPECT_WAIT, Verb.ABORT): Move(state=S.INSPECT_FAILED),
}

FAILURES: Mapping[ProvisionState, ProvisionState] = {
    S.VERIFYING: S.ENROLL,
    S.CLEANING: S.CLEAN_FAILED,
    S.DEPLOYING: S.DEPLOY_FAILED,
    S.WAIT_CALL_BACK: S.DEPLOY_FAILED,
    S.DELETING: S.ERROR,
}
"""Where a step that fails for good leaves the node, by the state it ran in."""

WAY_TO_ACTIVE: Mapping[ProvisionState, Verb] = {
    S.ENROLL: Verb.MANAGE,
    S.MANAGEABLE: Verb.PROVIDE,
    S.AVAILABLE: Verb.DEPLOY,
}
"""The verbs a node takes by itself when its goal is active. A failed deployment is for a person to look at."""

DELETABLE = frozenset(
    {S.ENROLL, S.MANAGEABLE, S.AVAILABLE, S.CLEAN_FAILED, S.DEPLOY_FAILED, S.INSPECT_FAILED, S.ADOPT_FAILED, S.ERROR}
)
"""Where a node may be forgotten (anywhere, in maintenance)."""


def move_for(node: Node, verb: Verb, *, busy: bool) -> Move:
    """Raises VerbRefused with the verbs that are possible."""
    move = VERBS.get((node.provision_state, verb))
    if move is None:
        possible = [known.value for state, known in VERBS if state is node.provision_state]
        raise VerbRefused(
            f"{verb.value!r} is not possible in {node.provision_state.value!r},"
            f" possible: {', '.join(possible) or 'nothing'} (node {node.name})"
        )
    if node.maintenance and verb is not Verb.ABORT:
        raise VerbRefused(f"a node in maintenance is left alone, {verb.value!r} was asked (node {node.name})")
    # A flow that waits for the machine may be replaced; anything else under way ends first.
    if busy and node.provision_state is not S.WAIT_CALL_BACK:
        raise VerbRefused(
            f"a node does one thing at a time, {node.status or node.status_code.value} (node {node.name})"
        )
    return move


def power_flow_for(node: Node, action: PowerAction, *, busy: bool) -> Flow:
    """Raises VerbRefused while something else is under way."""
    if busy:
        raise VerbRefused(
            f"power {action.value!r} has to wait: {node.status or node.status_code.value} (node {node.name})"
        )
    if node.bmc is None:
        raise VerbRefused(f"power needs a BMC, none is on record (node {node.name})")
    return FLOWS[action.value]


def rest_code(node_state: ProvisionState, flow: Flow) -> StatusCode:
    """What explains a node at rest after a flow."""
    if node_state is S.ACTIVE:
        if flow.success is not None:
            return StatusCode.RUNNING
        return StatusCode.BOOTING if flow.target_power is PowerState.ON else StatusCode.READY
    return StatusCode.READY
