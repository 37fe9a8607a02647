"""The state machine as data."""

from __future__ import annotations

import pytest

from koguma.lifecycle.errors import VerbRefused
from koguma.lifecycle.flows import FAILURES, FLOWS, VERBS, WAY_TO_ACTIVE, move_for, power_flow_for
from koguma.model.node import Bmc, Node
from koguma.model.states import PowerAction, ProvisionState, Verb


def node(state: ProvisionState, **changes: object) -> Node:
    values = {"uuid": "u", "name": "n", "provision_state": state, "bmc": Bmc("fake", "x"), **changes}
    return Node(**values)  # type: ignore[arg-type]


def test_every_verb_leads_to_a_flow_or_a_state_and_abort_may_lead_to_both() -> None:
    for (_, verb), move in VERBS.items():
        assert move.flow or move.state
        assert verb is Verb.ABORT or not (move.flow and move.state)
        assert not move.resumes or move.state is not None
        assert move.flow is None or move.flow in FLOWS


def test_every_state_a_step_runs_in_has_a_state_for_its_failure() -> None:
    for flow in FLOWS.values():
        assert {step.state for step in flow.steps if step.state} <= set(FAILURES)
        assert len({step.name for step in flow.steps}) == len(flow.steps)


def test_the_way_to_active_ends_there_from_every_state_on_it() -> None:
    for start in WAY_TO_ACTIVE:
        state = start
        for _ in range(5):
            if state is ProvisionState.ACTIVE:
                break
            success = FLOWS[VERBS[state, WAY_TO_ACTIVE[state]].flow or ""].success
            assert success is not None
            state = success
        assert state is ProvisionState.ACTIVE


def test_a_verb_that_is_not_possible_says_which_are() -> None:
    with pytest.raises(VerbRefused, match="'active' is not possible in 'enroll', possible: manage"):
        move_for(node(ProvisionState.ENROLL), Verb.DEPLOY, busy=False)


def test_a_node_in_maintenance_is_left_alone() -> None:
    with pytest.raises(VerbRefused, match="maintenance"):
        move_for(node(ProvisionState.AVAILABLE, maintenance=True), Verb.DEPLOY, busy=False)


def test_a_busy_node_takes_no_verb_but_while_it_waits_for_the_machine() -> None:
    with pytest.raises(VerbRefused, match="one thing at a time"):
        move_for(node(ProvisionState.ACTIVE), Verb.REBUILD, busy=True)
    assert move_for(node(ProvisionState.WAIT_CALL_BACK), Verb.UNDEPLOY, busy=True).flow == "undeploy"


def test_power_needs_a_bmc_and_nothing_else_under_way() -> None:
    with pytest.raises(VerbRefused, match="BMC"):
        power_flow_for(node(ProvisionState.ACTIVE, bmc=None), PowerAction.ON, busy=False)
    with pytest.raises(VerbRefused, match="wait"):
        power_flow_for(node(ProvisionState.ACTIVE), PowerAction.ON, busy=True)
    for action in PowerAction:
        assert power_flow_for(node(ProvisionState.ACTIVE), action, busy=False).success is None
