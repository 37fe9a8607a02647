from __future__ import annotations

import threading
import time

import pytest
from django.db import OperationalError, connection

from koguma.db.models import NodeRow
from koguma.db.postgresql import base
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_a_connection_serves_one_thread_after_the_other() -> None:
    connection.close()
    base.close_idle()
    pids = {in_threads(1, lambda _: backend())[0] for _ in range(5)}
    assert len(pids) == 1


def test_a_transaction_left_open_ends_before_the_connection_is_used_again() -> None:
    def leave_open(_: int) -> None:
        connection.set_autocommit(False)
        NodeRow.objects.create(uuid="00000000-0000-4000-8000-000000000001", name="n")

    in_threads(1, leave_open)
    assert in_threads(1, lambda _: NodeRow.objects.count()) == [0]


def test_dead_connections_cost_no_time_however_many_there_are() -> None:
    in_threads(12, lambda _: (backend(), time.sleep(0.2)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    started = time.monotonic()
    assert all(isinstance(result, int) for result in in_threads(12, lambda _: backend()))
    assert time.monotonic() - started < 3


def test_more_threads_than_connections_take_turns() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> int:
        nonlocal running, most
        pid = backend()
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return pid

    results = in_threads(60, work)
    assert all(isinstance(result, int) for result in results)
    assert most <= base.CONNECTIONS_MAX


def test_a_thread_that_gets_no_connection_in_time_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setattr(base, "WAIT_S", 0.05)
    monkeypatch.setattr(base, "_places", threading.Semaphore(1))
    assert backend()
    (result,) = in_threads(1, lambda _: backend())
    assert isinstance(result, OperationalError)
    connection.close()
