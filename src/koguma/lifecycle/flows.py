"""The provision state machine, in one place and as data: verbs, flows, their steps, and where a failure leads.

    enroll -manage-> verifying -> manageable -provide-> cleaning -> available
    available -deploy-> deploying -> wait call-back -> deploying -> active
    active, deploy failed -rebuild-> deploying …
    active, wait call-back, deploy failed, error, rescue … -undeploy-> deleting -> cleaning -> available
    manageable -inspect-> inspecting -> inspect wait -> manageable
    manageable -clean-> cleaning -> manageable            manageable -adopt-> adopting -> active
    active -service-> servicing -> active                 active -rescue-> rescuing -> rescue -unrescue-> active
    every … wait and … hold -abort-> its failed state     every … hold -unhold-> its … wait
    available and every failed state before a use -manage-> manageable

A flow is a list of steps (`lifecycle.steps`), each named as its outcome and run in a provision state; a step without a
state leaves the node in the one it has. To add a state's work, add a flow and the verbs that lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from koguma.lifecycle import disks, inspection, media, ports, replacing, rescue, steps, volumes
from koguma.lifecycle.asked import States, asked_steps_are_done
from koguma.lifecycle.errors import NodeBusy, NodeProtected, VerbRefused
from koguma.lifecycle.fakes import fake_work_is_done
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
    rest: StatusCode | None = None
    """What explains the node at rest afterwards, where it is no success; its status stays as it is."""

    def applies(self, node: Node) -> bool:
        """Whether there is anything to do for this node."""
        return any(step.applies(node) for step in self.steps)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def first(self, node: Node) -> Step:
        return next(step for step in self.steps if step.applies(node))

    def after(self, step: Step, node: Node) -> Step | None:
        index = self.steps.index(step) + 1
        return next((step for step in self.steps[index:] if step.applies(node)), None)

    def end(self, node: Node) -> ProvisionState | None:
        """The state at the end; a retired node is not offered again."""
        return S.MANAGEABLE if node.retired and self.success is S.AVAILABLE else self.success


@dataclass(frozen=True)
class Move:
    """What a verb does in a state: starts a flow, changes the state at once (and may start a flow there), or lets the
    flow under way go on.
    """

    flow: str | None = None
    state: ProvisionState | None = None
    resumes: bool = False


def _machine_is_on(state: ProvisionState | None) -> tuple[Step, ...]:
    return media.loader_is_in_the_drive(state), steps.machine_is_on(state)


_DEPLOYMENT = (
    steps.node_is_bootable(S.DEPLOYING),
    steps.addresses_are_given(S.DEPLOYING),
    disks.disk_is_to_be_written(S.DEPLOYING),
    volumes.volume_is_made(S.DEPLOYING),
    steps.machine_is_off(S.DEPLOYING),
    ports.ports_are_in_provisioning(S.DEPLOYING),
    volumes.volume_is_shown(S.DEPLOYING),
    *_machine_is_on(S.DEPLOYING),
    steps.machine_has_installed(S.WAIT_CALL_BACK),
    fake_work_is_done("deploy", "deploy", S.DEPLOYING, S.WAIT_CALL_BACK),
    ports.ports_are_in_their_networks(S.DEPLOYING),
    steps.node_is_handed_over(S.DEPLOYING),
)

HAND_OVER = "hand over"
"""For a machine in use that booted without being asked to, and waits to be moved."""

_POWERED_ON = (
    ports.machine_in_use_boots_from_provisioning(),
    *_machine_is_on(None),
    ports.machine_in_use_has_booted(),
    ports.machine_in_use_is_in_its_networks(),
)
"""A machine that is handed over to a network cannot boot from it: it comes back for the boot, and returns."""

FLOWS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("verify", (steps.bmc_answers(S.VERIFYING),), S.MANAGEABLE),
        Flow(
            "clean",
            (
                steps.machine_is_off(S.CLEANING),
                ports.ports_are_in_provisioning(S.CLEANING),
                *disks.disks_are_cleaned(S.CLEANING, S.CLEAN_WAIT),
                volumes.volume_is_deleted(S.CLEANING),
                steps.last_use_is_forgotten(S.CLEANING),
            ),
            S.AVAILABLE,
        ),
        Flow(
            "clean by steps",
            (asked_steps_are_done(States(S.CLEANING, S.CLEAN_WAIT, S.CLEAN_HOLD), "clean"),),
            S.MANAGEABLE,
        ),
        Flow(
            "inspect",
            (
                inspection.inspection_has_begun(S.INSPECTING),
                inspection.boot_port_has_an_address(S.INSPECTING),
                fake_work_is_done("inspect", "inspect", S.INSPECTING, S.INSPECT_WAIT),
                steps.machine_is_off(S.INSPECTING),
                ports.ports_are_in_provisioning(S.INSPECTING),
                *_machine_is_on(S.INSPECTING),
                inspection.machine_has_registered(S.INSPECT_WAIT),
                inspection.inspection_has_ended(S.INSPECTING),
            ),
            S.MANAGEABLE,
        ),
        Flow("adopt", (steps.bmc_answers(S.ADOPTING),), S.ACTIVE),
        Flow("deploy", _DEPLOYMENT, S.ACTIVE),
        Flow(
            "deploy by steps",
            (asked_steps_are_done(States(S.DEPLOYING, S.WAIT_CALL_BACK, S.DEPLOY_HOLD), "deploy"), *_DEPLOYMENT),
            S.ACTIVE,
        ),
        Flow(
            "undeploy",
            (
                fake_work_is_done("clean", "deploy", S.DELETING),
                steps.os_is_shut_down(S.DELETING),
                steps.machine_is_off(S.DELETING),
                ports.ports_are_in_provisioning(S.DELETING),
                ports.attachments_are_taken_back(S.CLEANING),
                *disks.disks_are_cleaned(S.CLEANING, S.CLEAN_WAIT),
                volumes.volume_is_deleted(S.CLEANING),
                steps.last_use_is_forgotten(S.CLEANING),
            ),
            S.AVAILABLE,
        ),
        Flow(
            "service",
            (asked_steps_are_done(States(S.SERVICING, S.SERVICE_WAIT, S.SERVICE_HOLD), "service"),),
            S.ACTIVE,
        ),
        Flow(
            "rescue",
            (
                fake_work_is_done("rescue", "rescue", S.RESCUING, S.RESCUE_WAIT),
                steps.machine_is_off(S.RESCUING),
                ports.ports_are_in_provisioning(S.RESCUING),
                *_machine_is_on(S.RESCUING),
                rescue.rescue_shell_is_up(S.RESCUE_WAIT),
            ),
            S.RESCUE,
        ),
        Flow(
            "unrescue",
            (
                fake_work_is_done("rescue", "rescue", S.UNRESCUING),
                rescue.rescue_password_is_forgotten(S.UNRESCUING),
                steps.machine_is_off(S.UNRESCUING),
                ports.ports_are_in_provisioning(S.UNRESCUING),
                *_machine_is_on(S.UNRESCUING),
                steps.machine_has_installed(S.UNRESCUING),
                ports.ports_are_in_their_networks(S.UNRESCUING),
            ),
            S.ACTIVE,
        ),
        Flow(HAND_OVER, (ports.ports_are_in_their_networks(None),)),
        Flow(
            "replace",
            (
                replacing.machine_is_cut_off(S.DELETING),
                volumes.volume_is_hidden(S.DELETING),
                ports.ports_are_in_provisioning(S.DELETING),
                replacing.replacement_has_its_identity(S.DELETING),
            ),
            S.MANAGEABLE,
        ),
        Flow(PowerAction.ON.value, _POWERED_ON, target_power=PowerState.ON),
        # What was aborted has failed at once. A real machine is powered off then, because nothing looks after it, and
        # its ports go back to where it can do no harm.
        Flow(
            "abort",
            (
                replace(steps.machine_is_off(None), applies=steps.may_be_powered_off),
                ports.ports_are_in_provisioning(None),
            ),
            rest=StatusCode.ABORTED,
        ),
        Flow(PowerAction.OFF.value, (steps.machine_is_off(None),), target_power=PowerState.OFF),
        Flow(
            PowerAction.SOFT_OFF.value,
            (steps.os_is_shut_down(None), steps.machine_is_off(None)),
            target_power=PowerState.OFF,
        ),
        Flow(PowerAction.CYCLE.value, (steps.machine_is_off(None), *_POWERED_ON), target_power=PowerState.ON),
        Flow(
            PowerAction.REBOOT.value,
            (steps.os_is_shut_down(None), steps.machine_is_off(None), *_POWERED_ON),
            target_power=PowerState.ON,
        ),
    )
}

VERBS: Mapping[tuple[ProvisionState, Verb], Move] = {
    (S.ENROLL, Verb.MANAGE): Move(flow="verify"),
    (S.AVAILABLE, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.CLEAN_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.INSPECT_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.ADOPT_FAILED, Verb.MANAGE): Move(state=S.MANAGEABLE),
    (S.MANAGEABLE, Verb.PROVIDE): Move(flow="clean"),
    (S.MANAGEABLE, Verb.CLEAN): Move(flow="clean by steps"),
    (S.MANAGEABLE, Verb.INSPECT): Move(flow="inspect"),
    (S.INSPECT_FAILED, Verb.INSPECT): Move(flow="inspect"),
    (S.MANAGEABLE, Verb.ADOPT): Move(flow="adopt"),
    (S.ADOPT_FAILED, Verb.ADOPT): Move(flow="adopt"),
    (S.AVAILABLE, Verb.DEPLOY): Move(flow="deploy"),
    (S.DEPLOY_FAILED, Verb.DEPLOY): Move(flow="deploy"),
    (S.ACTIVE, Verb.REBUILD): Move(flow="deploy"),
    (S.DEPLOY_FAILED, Verb.REBUILD): Move(flow="deploy"),
    (S.ERROR, Verb.REBUILD): Move(flow="deploy"),
    (S.SERVICE_HOLD, Verb.SERVICE): Move(flow="service"),
    (S.SERVICE_FAILED, Verb.SERVICE): Move(flow="service"),
    (S.ACTIVE, Verb.SERVICE): Move(flow="service"),
    **{
        (state, Verb.RESCUE): Move(flow="rescue")
        for state in (S.ACTIVE, S.RESCUE, S.RESCUE_FAILED, S.UNRESCUE_FAILED, S.SERVICE_FAILED)
    },
    **{(state, Verb.UNRESCUE): Move(flow="unrescue") for state in (S.RESCUE, S.RESCUE_FAILED, S.UNRESCUE_FAILED)},
    **{
        (state, Verb.UNDEPLOY): Move(flow="undeploy")
        for state in (
            S.ACTIVE, S.WAIT_CALL_BACK, S.DEPLOY_FAILED, S.ERROR, S.RESCUE, S.RESCUE_WAIT, S.RESCUE_FAILED,
            S.UNRESCUE_FAILED, S.SERVICE_WAIT, S.SERVICE_FAILED,
        )
    },
    (S.WAIT_CALL_BACK, Verb.ABORT): Move(state=S.DEPLOY_FAILED, flow="abort"),
    (S.DEPLOY_HOLD, Verb.ABORT): Move(state=S.DEPLOY_FAILED, flow="abort"),
    (S.CLEAN_WAIT, Verb.ABORT): Move(state=S.CLEAN_FAILED, flow="abort"),
    (S.CLEAN_HOLD, Verb.ABORT): Move(state=S.CLEAN_FAILED, flow="abort"),
    (S.INSPECT_WAIT, Verb.ABORT): Move(state=S.INSPECT_FAILED, flow="abort"),
    (S.RESCUE_WAIT, Verb.ABORT): Move(state=S.RESCUE_FAILED, flow="abort"),
    (S.SERVICE_WAIT, Verb.ABORT): Move(state=S.SERVICE_FAILED),
    (S.SERVICE_HOLD, Verb.ABORT): Move(state=S.SERVICE_FAILED),
    (S.SERVICE_FAILED, Verb.ABORT): Move(state=S.ACTIVE),
    (S.DEPLOY_HOLD, Verb.UNHOLD): Move(state=S.WAIT_CALL_BACK, resumes=True),
    (S.CLEAN_HOLD, Verb.UNHOLD): Move(state=S.CLEAN_WAIT, resumes=True),
    (S.SERVICE_HOLD, Verb.UNHOLD): Move(state=S.SERVICE_WAIT, resumes=True),
}  # fmt: skip

BY_STEPS: Mapping[str, str] = {"deploy": "deploy by steps"}
"""The flow that a verb starts instead when steps were asked for."""

INTERRUPTIBLE = frozenset(
    {
        S.WAIT_CALL_BACK, S.DEPLOY_HOLD, S.CLEAN_WAIT, S.CLEAN_HOLD, S.INSPECT_WAIT, S.RESCUE_WAIT, S.SERVICE_WAIT,
        S.SERVICE_HOLD,
    }
)  # fmt: skip
"""Where a flow waits for the machine or for a person, and may be replaced."""

FAILURES: Mapping[ProvisionState, ProvisionState] = {
    S.VERIFYING: S.ENROLL,
    S.INSPECTING: S.INSPECT_FAILED,
    S.INSPECT_WAIT: S.INSPECT_FAILED,
    S.ADOPTING: S.ADOPT_FAILED,
    S.CLEANING: S.CLEAN_FAILED,
    S.CLEAN_WAIT: S.CLEAN_FAILED,
    S.DEPLOYING: S.DEPLOY_FAILED,
    S.WAIT_CALL_BACK: S.DEPLOY_FAILED,
    S.DELETING: S.ERROR,
    S.SERVICING: S.SERVICE_FAILED,
    S.RESCUING: S.RESCUE_FAILED,
    S.RESCUE_WAIT: S.RESCUE_FAILED,
    S.UNRESCUING: S.UNRESCUE_FAILED,
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
    if busy and node.provision_state not in INTERRUPTIBLE:
        # A flow that waits may be replaced; anything else under way ends first.
        raise NodeBusy(f"a node does one thing at a time, {node.status or node.status_code.value} (node {node.name})")
    if move is None:
        possible = [known.value for state, known in VERBS if state is node.provision_state]
        raise VerbRefused(
            f"{verb.value!r} is not possible in {node.provision_state.value!r},"
            f" possible: {', '.join(possible) or 'nothing'} (node {node.name})"
        )
    if node.maintenance and (move.flow is not None and verb not in _IN_MAINTENANCE):
        raise VerbRefused(f"a node in maintenance is left alone, {verb.value!r} was asked (node {node.name})")
    if node.protected and verb in (Verb.UNDEPLOY, Verb.REBUILD):
        raise NodeProtected(f"a protected node keeps its use, {verb.value!r} was asked (node {node.name})")
    if node.retired and verb is Verb.PROVIDE:
        raise VerbRefused(f"a retired node is not offered again, {verb.value!r} was asked (node {node.name})")
    for wanted, kind in ((Verb.INSPECT, "inspect"), (Verb.RESCUE, "rescue"), (Verb.UNRESCUE, "rescue")):
        if verb is wanted and node.interface(kind) == f"no-{kind}":
            raise VerbRefused(
                f"{verb.value!r} needs a {kind} interface, this node has {node.interface(kind)!r} (node {node.name})"
            )
    return move


_IN_MAINTENANCE = frozenset({Verb.ABORT, Verb.UNDEPLOY})
"""What a node in maintenance may still be asked: to stop, and to end its use."""


def power_flow_for(node: Node, action: PowerAction, *, busy: bool) -> Flow:
    """Raises VerbRefused while something else is under way."""
    if busy:
        raise NodeBusy(
            f"power {action.value!r} has to wait: {node.status or node.status_code.value} (node {node.name})"
        )
    if node.bmc is None:
        raise VerbRefused(f"power needs a BMC, none is on record (node {node.name})")
    return FLOWS[action.value]


def rest_code(node_state: ProvisionState, flow: Flow) -> StatusCode:
    """What explains a node at rest after a flow."""
    if flow.rest is not None:
        return flow.rest
    if node_state is S.ACTIVE:
        if flow.success is not None:
            return StatusCode.RUNNING
        return StatusCode.BOOTING if flow.target_power is PowerState.ON else StatusCode.READY
    return StatusCode.READY
