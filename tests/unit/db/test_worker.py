"""The worker as a process: it is killed at any moment, and another goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection

from koguma.db import nodes, reports
from koguma.db.lifecycle_store import PostgresStore, due_nodes
from koguma.db.models import NodeRow, StepRow, WorkRow
from koguma.model.states import PowerAction
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")

MACHINES = 6


class Worker:
    def __init__(self, directory: Path) -> None:
        self._log = (directory / "worker.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.unit.db.worker_process", str(directory)],
            cwd=Path(__file__).parents[3],
            stdout=self._log,
            stderr=self._log,
        )

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        status = self.process.wait(30)
        self._log.close()
        return status


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(tmp_path))
        return started[-1]

    yield start
    for worker in started:
        worker.end(signal.SIGKILL)


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, list(NodeRow.objects.values_list("name", "provision_state", "status"))
        time.sleep(0.05)


def states() -> Counter[str]:
    return Counter(NodeRow.objects.values_list("provision_state", flat=True))


def test_whenever_a_worker_is_killed_the_next_one_goes_on_and_every_machine_is_powered_on_once(
    workers: Callable[[], Worker], tmp_path: Path
) -> None:
    factories.network()
    factories.flavor()
    for number in range(1, MACHINES + 1):
        factories.register(number)
    chance = random.Random(20)
    kills = 0
    while states()["wait call-back"] < MACHINES and kills < 12:
        worker = workers()
        wait_for(_is_listening)
        time.sleep(chance.uniform(0.0, 0.5))
        worker.end(signal.SIGKILL)
        kills += 1
    assert kills >= 2
    last = workers()
    wait_for(lambda: states()["wait call-back"] == MACHINES)
    boots = [uuid4().hex for _ in range(MACHINES)]
    for number, boot in enumerate(boots, 1):
        reports.apply(
            [factories.report(number, boot, "script", mode="boot"), factories.report(number, boot, "installed")]
        )
    wait_for(lambda: states()["active"] == MACHINES)
    for log in tmp_path.glob("10.77.8.*.log"):
        assert log.read_text() == "on\n", log.name
    assert not StepRow.objects.exclude(outcome="done").exists()
    assert last.end(signal.SIGTERM) == 0


def test_a_worker_that_is_told_to_stop_stops_soon_and_leaves_nothing_locked(workers: Callable[[], Worker]) -> None:
    factories.network()
    factories.flavor()
    worker = workers()
    wait_for(_is_listening)
    factories.register(1)
    wait_for(lambda: states()["enroll"] == 0)
    started = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 15
    with PostgresStore().claim(factories.machine_uuid(1)) as claim:
        assert claim is not None


def test_a_worker_outlives_its_database_connections(workers: Callable[[], Worker]) -> None:
    factories.network()
    factories.flavor()
    worker = workers()
    wait_for(_is_listening)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
        )
    connection.close()
    factories.register(1)
    wait_for(lambda: states()["wait call-back"] == 1)
    assert worker.process.poll() is None


def test_a_node_belongs_to_one_worker_at_a_time() -> None:
    factories.register(1)
    uuid = factories.machine_uuid(1)
    with PostgresStore().claim(uuid) as mine:
        assert mine is not None
        assert due_nodes() == []  # it is due, but somebody has it
        assert in_threads(1, lambda _: _can_claim(uuid)) == [False]
    assert due_nodes() == [(uuid, 0)]
    assert in_threads(1, lambda _: _can_claim(uuid)) == [True]


def test_of_two_wishes_at_once_exactly_one_wins() -> None:
    factories.register(1)
    NodeRow.objects.update(provision_state="active", goal=None)
    results = in_threads(5, lambda _: nodes.request_power("node-1", PowerAction.CYCLE))
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert WorkRow.objects.get().flow == "cycle"


def _can_claim(uuid: str) -> bool:
    with PostgresStore().claim(uuid) as claim:
        return claim is not None


def _is_listening() -> bool:
    """Whether a worker has registered with Procrastinate and takes jobs."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '3 seconds'")
        return bool(cursor.fetchone()[0])
