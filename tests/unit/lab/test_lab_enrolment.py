"""When the wait for active nodes ends, and how."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from koguma.lab import enrolment
from koguma.lab.enrolment import NodeView, has_booted, wait_until_active
from koguma.lab.errors import ApiError
from koguma.lab.lab import Lab, plan_of
from koguma.lab.plan import BmcKind, Hardware, Plan
from koguma.lab.redfish_bmc import RedfishBmc

LAB = Lab(plan_of("lab", Path("/srv/k/lab"), 2))


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(enrolment, "time", made)
    return made


def nodes_are(monkeypatch: pytest.MonkeyPatch, *looks: tuple[str, ...] | None) -> None:
    """What each look at the nodes finds, the last for ever; None: the API does not answer."""
    following: Iterator[tuple[str, ...] | None] = iter(looks)
    last: list[tuple[str, ...] | None] = [None]

    def look(_lab: Lab, _powered_on: object) -> tuple[NodeView, ...]:
        last[0] = next(following, last[0])
        if last[0] is None:
            raise ApiError("the API does not answer")
        return tuple(NodeView(f"node{n}", provision_state=state) for n, state in enumerate(last[0], start=1))

    monkeypatch.setattr(enrolment, "look", look)


def test_the_wait_ends_when_the_last_node_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, ("enroll", "enroll"), ("active", "wait call-back"), ("active", "active"))
    outcome = wait_until_active(LAB, 60)
    assert outcome.all_active
    assert outcome.elapsed_s == 2 * enrolment.POLL_S


def test_an_api_that_is_away_for_a_while_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, None, ("active", "deploying"), None, None, ("active", "active"))
    assert wait_until_active(LAB, 60).all_active


def test_the_deadline_ends_the_wait_with_what_was_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, ("active", "wait call-back"), None)
    outcome = wait_until_active(LAB, 30)
    assert not outcome.all_active
    assert [view.provision_state for view in outcome.views] == ["active", "wait call-back"]
    assert 30 < outcome.elapsed_s < 35


def test_nodes_that_stay_failed_end_the_wait_early(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, ("active", "deploy failed"))
    outcome = wait_until_active(LAB, 900)
    assert not outcome.all_active
    assert outcome.elapsed_s < 2 * enrolment.HOPELESS_S


def test_a_failed_node_that_is_tried_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, again = ("active", "deploy failed"), ("active", "deploying")
    nodes_are(monkeypatch, *[failed] * 30, again, *[failed] * 30, again, ("active", "active"))
    assert wait_until_active(LAB, 900).all_active


def test_a_lab_without_machines_is_never_all_active(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, ())
    assert not wait_until_active(LAB, 3).all_active


@pytest.mark.parametrize(
    ("outcome", "started", "booted"),
    [
        ("succeeded", "2026-01-01T10:00:05+00:00", True),
        ("running", "2026-01-01T10:00:05+00:00", False),
        ("succeeded", "2026-01-01T09:00:00+00:00", False),
    ],
)
def test_a_machine_that_was_powered_on_must_have_booted_since(outcome: str, started: str, booted: bool) -> None:
    powered_on = datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert has_booted({"outcome": outcome, "started_at": started}, powered_on) is booted


def test_a_machine_that_ran_all_the_time_need_not_boot_again() -> None:
    assert has_booted({"outcome": "succeeded", "started_at": "2026-01-01T09:00:00+00:00"}, None)
    assert not has_booted({"outcome": "running", "started_at": "2026-01-01T09:00:00+00:00"}, None)


class Api:
    """Nodes as the API shows them, and what is changed of them."""

    def __init__(self, nodes: list[dict[str, object]]) -> None:
        self._nodes = nodes
        self.changes: list[tuple[str, dict[str, object]]] = []

    def nodes(self) -> list[dict[str, object]]:
        return self._nodes

    def change_node(self, reference: str, values: dict[str, object]) -> None:
        self.changes.append((reference, values))


def test_koguma_is_told_of_the_bmcs_that_machines_cannot_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = (Hardware(), Hardware(bmc=BmcKind.REDFISH), Hardware(bmc=BmcKind.REDFISH))
    plan = Plan("lab", Path("/srv/k/lab"), hardware)
    ipmi, told, untold = (machine.uuid for machine in plan.machines)
    api = Api([{"uuid": ipmi}, {"uuid": told, "bmc_address": "x"}, {"uuid": untold, "bmc_address": None}])
    monkeypatch.setattr(RedfishBmc, "credentials", lambda bmc: {"address": bmc.address()})
    monkeypatch.setattr(Lab, "control_plane", SimpleNamespace(api=api))
    enrolment.tell_bmcs(Lab(plan))
    assert api.changes == [(untold, {"bmc": {"address": "10.77.8.13"}})]
