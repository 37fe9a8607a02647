"""How many operations begin at once, and when power may change: pure, and then on the database."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.db import admission, nodes
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import NodeRow, WorkRow
from koguma.drivers.power import open_power
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.limits import DEPLOY, Limits, Waiting, admitted
from koguma.model.states import StatusCode, Verb
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

racks = st.sampled_from(["", "a", "b", "c"])


@given(
    at_once=st.integers(0, 5),
    in_rack=st.integers(0, 3),
    under_way=st.dictionaries(racks, st.integers(0, 3)),
    waiting=st.lists(racks, max_size=12),
)
def test_no_limit_is_passed_and_nobody_waits_without_need(
    at_once: int, in_rack: int, under_way: dict[str, int], waiting: list[str]
) -> None:
    limits = Limits(deploys=at_once, deploys_per_rack=in_rack)
    queue = [Waiting(number, rack) for number, rack in enumerate(waiting)]
    begins = admitted(limits, DEPLOY, under_way, queue)
    total = sum(under_way.values())
    by_rack = Counter(under_way)
    for number in begins:
        by_rack[waiting[number]] += 1
        assert not in_rack or not waiting[number] or by_rack[waiting[number]] <= in_rack
    assert not at_once or not begins or total + len(begins) <= at_once
    for number, rack in enumerate(waiting):
        full = bool(at_once) and total + len(begins) >= at_once
        rack_full = bool(in_rack) and bool(rack) and by_rack[rack] >= in_rack
        assert number in begins or full or rack_full


class Fleet:
    """Available fake nodes, a worker that allows two deployments at once and one in a rack."""

    def __init__(self, count: int, limits: Limits) -> None:
        for number in range(1, count + 1):
            factories.register(number)
        NodeRow.objects.update(
            provision_state="available",
            goal=None,
            bmc_driver="fake-hardware",
            driver_info={"fake_deploy_delay_s": 60},
        )
        WorkRow.objects.update(wake_at=None, woken=False)
        self.now = datetime.now(UTC)
        self.policy = Policy(limits=limits)
        self.executor = Executor(PostgresStore(), open_power, self.policy, lambda: self.now)

    def deploy_all(self) -> None:
        for node in NodeRow.objects.order_by("pk"):
            nodes.request_verb(node.name, Verb.DEPLOY)
            self.now += timedelta(milliseconds=1)
        self.advance_all()

    def advance_all(self) -> None:
        for node in NodeRow.objects.order_by("pk"):
            self.executor.advance(str(node.uuid))

    def codes(self) -> Counter[str]:
        return Counter(NodeRow.objects.values_list("status_code", flat=True))


@pytest.mark.usefixtures("db")
def test_no_more_are_deployed_at_once_than_allowed_and_the_others_follow() -> None:
    fleet = Fleet(5, Limits(deploys=2))
    fleet.deploy_all()
    assert fleet.codes() == {StatusCode.WAITING_FOR_MACHINE: 2, StatusCode.WAITING_FOR_SLOT: 3}
    assert WorkRow.objects.filter(slot=DEPLOY).count() == 2
    for active in (2, 4, 5):
        fleet.now += timedelta(seconds=61)
        fleet.advance_all()
        fleet.advance_all()
        assert NodeRow.objects.filter(provision_state="active").count() == active
    assert not WorkRow.objects.exclude(slot="").exists()


@pytest.mark.usefixtures("db")
def test_a_full_rack_holds_up_nobody_outside_of_it() -> None:
    fleet = Fleet(4, Limits(deploys_per_rack=1))
    NodeRow.objects.filter(name__in=("node-1", "node-2", "node-3")).update(properties={"rack": "a"})
    fleet.deploy_all()
    waiting = NodeRow.objects.filter(status_code=StatusCode.WAITING_FOR_SLOT.value).values_list("name", flat=True)
    assert sorted(waiting) == ["node-2", "node-3"]


@pytest.mark.usefixtures("db")
def test_an_aborted_deployment_gives_its_place_to_the_next_whoever_looks() -> None:
    fleet = Fleet(2, Limits(deploys=1))
    fleet.deploy_all()
    nodes.request_verb("node-1", Verb.ABORT)
    admission.admit_waiting(fleet.policy)
    fleet.advance_all()
    assert nodes.find("node-1").status_code is StatusCode.ABORTED
    assert nodes.find("node-2").status_code is StatusCode.WAITING_FOR_MACHINE


@pytest.mark.usefixtures("db")
def test_workers_that_admit_at_once_admit_no_more_than_allowed() -> None:
    fleet = Fleet(12, Limits(deploys=3))
    for node in NodeRow.objects.order_by("pk"):
        nodes.request_verb(node.name, Verb.DEPLOY)
    uuids = [str(uuid) for uuid in NodeRow.objects.values_list("uuid", flat=True)]
    results = in_threads(12, lambda number: fleet.executor.advance(uuids[number]))
    assert [result for result in results if isinstance(result, Exception)] == []
    assert WorkRow.objects.filter(slot=DEPLOY).count() == 3


@pytest.mark.usefixtures("db")
def test_power_changes_take_turns_across_workers() -> None:
    factories.register(1)
    key = NodeRow.objects.values_list("pk", flat=True).get()
    now = datetime.now(UTC)
    limits = Limits(power_actions_per_s=2)

    def turn(_: int) -> Any:
        return admission.power_turn(key, limits, now)

    turns = sorted(in_threads(6, turn))
    assert [round((turn - now).total_seconds(), 2) for turn in turns] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert admission.power_turn(key, Limits(), now) == now


@pytest.mark.usefixtures("db")
def test_a_step_that_was_left_by_its_worker_for_too_long_has_timed_out() -> None:
    fleet = Fleet(1, Limits())
    NodeRow.objects.update(provision_state="enroll")
    nodes.request_verb("node-1", Verb.MANAGE)
    began = fleet.now - timedelta(seconds=10_000)
    WorkRow.objects.update(step_started_at=began)
    fleet.executor = Executor(PostgresStore(), open_power, fleet.policy, lambda: fleet.now)
    fleet.executor._started_at = began
    fleet.advance_all()
    node = nodes.find("node-1")
    assert node.status_code is StatusCode.STEP_TIMED_OUT
    assert "nothing was heard of it" in (node.last_error or "")
