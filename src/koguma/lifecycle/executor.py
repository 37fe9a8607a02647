"""The executor: takes one node as far as it gets, step by step, and records every step before and after it runs.

A worker calls `advance` whenever a node is due. Everything it needs to go on is in the store, so any worker can take
over from any other at any moment: a step that was recorded as running and has no end is run again.

    claim the node -> (no operation: take the next verb towards its goal) -> record the step -> run it
      Done  -> record it and the next one, go on
      Again -> record what it has done so far, go on with it
      Wait  -> record why and when to look again, leave
      Back  -> record the reason, go to the earlier step
      error -> try again later if it is worth it, else record the failure state
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from koguma.contracts.disk_images import DiskImages
from koguma.contracts.errors import NodeGone, PowerRefused, PowerTimeout, PowerUnreachable, Superseded
from koguma.contracts.management import OpenManagement
from koguma.contracts.power import OpenPower
from koguma.contracts.store import Claim, LifecycleStore
from koguma.contracts.volumes import VolumeSite
from koguma.errors import KogumaError
from koguma.lifecycle.asked import ASKED
from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.flows import FAILURES, FLOWS, VERBS, WAY_TO_ACTIVE, Flow, rest_code
from koguma.lifecycle.policy import Policy
from koguma.lifecycle.steps import Again, Back, Context, Done, Result, Step, Wait, reason_not_bootable
from koguma.model.node import Node
from koguma.model.operation import Operation, Order, StepRecord
from koguma.model.states import ProvisionState, StatusCode, Verb

log = logging.getLogger(__name__)

FLAVOR_POLL_S = 30.0
STUCK_MARGIN_S = 120.0
NO_ORDER = Order()


class Executor:
    """Give it a clock for tests; it never sleeps by itself."""

    def __init__(
        self,
        store: LifecycleStore,
        open_power: OpenPower,
        policy: Policy,
        clock: Callable[[], datetime],
        stopping: Callable[[], bool] = lambda: False,
        volumes: VolumeSite | None = None,
        disk_images: DiskImages | None = None,
        open_management: OpenManagement | None = None,
    ) -> None:
        self._store = store
        self._open_power = open_power
        self._policy = policy
        self._clock = clock
        self._stopping = stopping
        self._volumes = volumes
        self._disk_images = disk_images
        self._open_management = open_management
        self._started_at = clock()

    def advance(self, uuid: str) -> None:
        """Run the node's steps until it has to wait, rests, or the worker stops. Nothing happens when another worker
        has the node.
        """
        with self._store.claim(uuid) as claim:
            if claim is None:
                return
            while not self._stopping():
                try:
                    going_on = self._tick(claim)
                except Superseded:
                    log.info("an operation was replaced while a step ran", extra={"node": uuid})
                    continue
                except NodeGone:
                    return
                if not going_on and not claim.woken():
                    return

    def _tick(self, claim: Claim) -> bool:
        """One step, or a part of it. Whether to go on at once."""
        node, operation = claim.look()
        if operation is None:
            return self._pursue_goal(claim, node)
        flow = FLOWS[operation.flow]
        step = flow.step(operation.step)
        kind = self._policy.limits.kind_of(flow.name)
        if operation.step_started_at is None:
            if kind and not operation.slot:
                if not claim.admit(kind, self._policy.limits):
                    return self._wait_for_slot(claim, operation, kind)
                operation = replace(operation, slot=kind)
            operation = self._enter(claim, node, operation, step)
            node = claim.node()
        elif reason := self._reason_stuck(operation, step):
            return self._fail(claim, node, operation, step, step.timeout_code, reason, {})
        context = self._context(claim, node, operation)
        try:
            result = step.run(context)
        except StepFailed as error:
            return self._fail(claim, node, operation, step, error.code, str(error), context.changes)
        except (Superseded, NodeGone):
            raise
        except Exception as error:
            return self._tried(claim, node, operation, step, error, context)
        return self._record(claim, node, operation, flow, step, result, context)

    def _context(self, claim: Claim, node: Node, operation: Operation) -> Context:
        now = self._clock()
        return Context(
            claim,
            node,
            dict(operation.data),
            attempt=operation.attempt,
            policy=self._policy,
            now=now,
            step_started_at=operation.step_started_at or now,
            worker_started_at=self._started_at,
            open_power=self._open_power,
            volumes=self._volumes,
            disk_images=self._disk_images,
            open_management=self._open_management,
        )

    def _wait_for_slot(self, claim: Claim, operation: Operation, kind: str) -> bool:
        """As many as the site allows at once are under way; whoever ends one of them wakes this node."""
        claim.write(
            expected=operation.id,
            operation=operation,
            changes={
                "status_code": StatusCode.WAITING_FOR_SLOT,
                "status": f"as many nodes as allowed {kind} at once; this one is next in turn as one of them ends",
            },
            wake_at=self._clock() + timedelta(seconds=self._policy.slot_poll_s),
        )
        return False

    def _reason_stuck(self, operation: Operation, step: Step) -> str | None:
        """A step that was left by its worker, or by a call that never ended, is not begun again after its time."""
        timeout_s, began = step.timeout_s(self._policy), operation.step_started_at
        if timeout_s is None or began is None:
            return None
        # A time without workers is nobody's fault: it counts from this one's start.
        took_s = (self._clock() - max(began, self._started_at)).total_seconds()
        # A while longer than a step that waits: that one says itself what it waited for.
        if took_s <= timeout_s + STUCK_MARGIN_S:
            return None
        return f"it may take {timeout_s:g} s, and nothing was heard of it for {took_s:.0f} s"

    def _enter(self, claim: Claim, node: Node, operation: Operation, step: Step) -> Operation:
        """Record that the step begins, before it does."""
        now = self._clock()
        started = replace(operation, step_started_at=now)
        claim.write(
            expected=operation.id,
            operation=started,
            changes=_entering(node, step),
            steps=[_step_record(started, step, now)],
            wake_at=now,
        )
        return started

    def _record(
        self, claim: Claim, node: Node, operation: Operation, flow: Flow, step: Step, result: Result, context: Context
    ) -> bool:
        now = self._clock()
        if isinstance(result, Wait):
            return self._wait(claim, node, operation, step, result, context)
        if isinstance(result, Again):
            again = replace(operation, data=context.data)
            claim.write(expected=operation.id, operation=again, changes=context.changes, wake_at=now)
            return True
        if isinstance(result, Back):
            following: Step | None = flow.step(result.step)
            ended = _step_record(operation, step, now, outcome="failed", reason=result.reason)
            data = {key: value for key, value in operation.data.items() if key == ASKED}
            attempt = operation.attempt + 1
            context.changes["last_error"] = result.reason
            log.warning("powering on again", extra={"node": node.name, "attempt": attempt, "reason": result.reason})
        else:
            following = flow.after(step, node)
            ended = _step_record(operation, step, now, outcome="done")
            data, attempt = context.data, operation.attempt
        if following is None:
            self._finish(claim, node, operation, flow, ended, context.changes)
            return node.goal is not None
        moved = replace(operation, step=following.name, step_started_at=now, tries=0, attempt=attempt, data=data)
        claim.write(
            expected=operation.id,
            operation=moved,
            changes={**context.changes, **_entering(node, following)},
            steps=[ended, _step_record(moved, following, now)],
            wake_at=now,
        )
        return True

    def _wait(self, claim: Claim, node: Node, operation: Operation, step: Step, wait: Wait, context: Context) -> bool:
        now = self._clock()
        timeout_s = step.timeout_s(self._policy)
        since = operation.step_started_at or now
        if timeout_s is not None and (now - since).total_seconds() > timeout_s:
            reason = f"it may take {timeout_s:g} s, and still: {wait.message}"
            return self._fail(claim, node, operation, step, step.timeout_code, reason, context.changes)
        claim.write(
            expected=operation.id,
            operation=replace(operation, data=context.data),
            changes={
                **context.changes,
                **({"provision_state": wait.state} if wait.state else {}),
                "status_code": wait.code,
                "status": wait.message,
            },
            wake_at=None if wait.poll_s is None else now + timedelta(seconds=wait.poll_s),
        )
        return False

    def _tried(
        self, claim: Claim, node: Node, operation: Operation, step: Step, error: Exception, context: Context
    ) -> bool:
        """The step raised: try again later where that is worth it, else it has failed."""
        ours = isinstance(error, KogumaError)
        if not ours:
            log.exception("a step raised an unexpected error", extra={"node": node.name, "step": step.name})
        message = str(error) if ours else f"{type(error).__name__}: {error}"
        worth_it = error.retry if isinstance(error, KogumaError) else True
        tries = operation.tries + 1
        now = self._clock()
        timeout_s = step.timeout_s(self._policy)
        late = timeout_s is not None and (now - (operation.step_started_at or now)).total_seconds() > timeout_s
        if not worth_it or tries > self._policy.retries_max or late:
            return self._fail(claim, node, operation, step, _code_of(error, step), message, context.changes)
        waiting = StatusCode.WAITING_FOR_BMC if isinstance(error, PowerUnreachable) else StatusCode.WAITING_FOR_RETRY
        if isinstance(error, PowerTimeout):
            waiting = _waiting_code(step)
        claim.write(
            expected=operation.id,
            operation=replace(operation, tries=tries, data=context.data),
            changes={
                **context.changes,
                "status_code": waiting,
                "status": f"{step.name}: try {tries} failed, another follows: {message}",
            },
            wake_at=now + timedelta(seconds=self._policy.backoff_s(tries)),
        )
        return False

    def _fail(
        self,
        claim: Claim,
        node: Node,
        operation: Operation,
        step: Step,
        code: StatusCode,
        reason: str,
        changes: dict[str, Any],
    ) -> bool:
        now = self._clock()
        state = FAILURES[step.state] if step.state else node.provision_state
        # A BMC that does not answer yet may answer later: a node that only has to be verified keeps its goal.
        goal = node.goal if state is ProvisionState.ENROLL else None
        log.error("a step failed", extra={"node": node.name, "step": step.name, "code": code.value, "reason": reason})
        claim.write(
            expected=operation.id,
            operation=None,
            changes={
                **changes,
                "provision_state": state,
                "target_provision_state": None,
                "target_power_state": None,
                "goal": goal,
                "status_code": code,
                "status": f"{step.name}: {reason}",
                "last_error": f"{step.name}: {reason}",
                "asked_step": None,
            },
            steps=[_step_record(operation, step, now, outcome="failed", reason=reason)],
            wake_at=now + timedelta(seconds=self._policy.goal_retry_s) if goal else None,
        )
        self._give_slot_on(operation)
        return False

    def _finish(
        self, claim: Claim, node: Node, operation: Operation, flow: Flow, ended: StepRecord, changes: dict[str, Any]
    ) -> None:
        now = self._clock()
        state = flow.end(node) or node.provision_state
        if flow.success:
            changes = {"last_error": None, **changes}
        log.info("an operation is done", extra={"node": node.name, "flow": flow.name, "state": state.value})
        claim.write(
            expected=operation.id,
            operation=None,
            changes={
                "status_code": rest_code(state, flow),
                **changes,
                **({"asked_step": None} if ASKED in operation.data else {}),
                "provision_state": state,
                "target_provision_state": None,
                "target_power_state": None,
                "status": (node.last_error or "") if flow.rest else "",
            },
            steps=[ended],
            wake_at=now if node.goal else None,
        )
        self._give_slot_on(operation)

    def _give_slot_on(self, operation: Operation) -> None:
        if operation.slot:
            self._store.admit_waiting(operation.slot, self._policy.limits)

    def _pursue_goal(self, claim: Claim, node: Node) -> bool:
        """Take the next verb towards the node's goal, if it has one and may."""
        now = self._clock()
        verb = WAY_TO_ACTIVE.get(node.provision_state) if node.goal is ProvisionState.ACTIVE else None
        if verb is None or node.maintenance:
            claim.write(expected=None, operation=None, wake_at=None)
            return False
        if verb is Verb.DEPLOY and (reason := reason_not_bootable(node, claim.flavor())):
            changes = {"status_code": StatusCode.WAITING_FOR_FLAVOR, "status": reason}
            unchanged = (node.status_code, node.status) == (StatusCode.WAITING_FOR_FLAVOR, reason)
            claim.write(
                expected=None,
                operation=None,
                changes={} if unchanged else changes,
                wake_at=now + timedelta(seconds=FLAVOR_POLL_S),
            )
            return False
        flow = FLOWS[VERBS[node.provision_state, verb].flow or ""]
        operation, changes = begin(node, flow, now)
        claim.write(expected=None, operation=operation, changes=changes, wake_at=now)
        return True


def begin(node: Node, flow: Flow, now: datetime, order: Order = NO_ORDER) -> tuple[Operation, dict[str, Any]]:
    """A flow's first operation and what it changes of the node. Pure but for the new id."""
    first = flow.first(node)
    operation = Operation(
        id=uuid4().hex,
        flow=flow.name,
        step=first.name,
        started_at=now,
        data={ASKED: [dict(vars(step)) for step in order.steps]} if order.steps else {},
    )
    return operation, {
        **_entering(node, first),
        "target_provision_state": flow.end(node),
        "target_power_state": flow.target_power,
    }


def _entering(node: Node, step: Step) -> dict[str, Any]:
    return {
        "provision_state": step.state or node.provision_state,
        "status_code": StatusCode.WORKING,
        "status": f"making sure that {step.name}",
    }


def _step_record(
    operation: Operation, step: Step, now: datetime, outcome: str = "running", reason: str | None = None
) -> StepRecord:
    return StepRecord(
        operation=operation.id,
        flow=operation.flow,
        step=step.name,
        attempt=operation.attempt,
        started_at=operation.step_started_at or now,
        finished_at=None if outcome == "running" else now,
        outcome=outcome,
        reason=reason,
    )


def _code_of(error: Exception, step: Step) -> StatusCode:
    if isinstance(error, PowerTimeout):
        return step.timeout_code
    if isinstance(error, PowerRefused):
        return StatusCode.BMC_REFUSED
    return StatusCode.BMC_UNREACHABLE if isinstance(error, PowerUnreachable) else StatusCode.STEP_FAILED


def _waiting_code(step: Step) -> StatusCode:
    return {
        StatusCode.POWER_OFF_TIMED_OUT: StatusCode.WAITING_FOR_POWER_OFF,
        StatusCode.POWER_ON_TIMED_OUT: StatusCode.WAITING_FOR_POWER_ON,
    }.get(step.timeout_code, StatusCode.WAITING_FOR_RETRY)


__all__ = ["Done", "Executor", "begin"]
