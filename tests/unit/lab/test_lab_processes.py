"""Processes are known by pid and start time, and found by their mark when no record names them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from koguma.lab.errors import ProcessDiedError
from koguma.lab.processes import Processes, Record, start_time


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.stop_all()


def start(processes: Processes, tmp_path: Path, name: str = "sleeper", *argv: str) -> Record:
    return processes.start(name, argv or ("sleep", "60"), log=tmp_path / f"{name}.log")


def test_a_started_process_runs_and_is_found_again(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, tmp_path)
    assert record.alive
    assert Processes(tmp_path).running("sleeper") == record


def test_starting_what_runs_starts_nothing(processes: Processes, tmp_path: Path) -> None:
    assert start(processes, tmp_path) == start(processes, tmp_path)


def test_a_killed_process_is_not_running_though_its_record_remains(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, tmp_path)
    os.kill(record.pid, signal.SIGKILL)
    wait_for_end(record)
    assert processes.running("sleeper") is None
    assert processes.recorded("sleeper")


def test_another_process_with_the_same_pid_is_not_taken_for_ours(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    record = {"pid": os.getpid(), "started": (start_time(os.getpid()) or 0) - 1}
    (tmp_path / "pids" / "sleeper.json").write_text(json.dumps(record))
    assert processes.running("sleeper") is None
    processes.stop("sleeper")  # this test would end here if it believed the record


def test_a_record_cut_short_names_nobody(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "sleeper.json").write_text('{"pid": ')
    assert processes.running("sleeper") is None


def test_a_process_that_ignores_term_is_killed(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, tmp_path, "stubborn", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    time.sleep(0.1)  # until the shell has set its trap
    processes.stop("stubborn", term_s=0.2)
    assert not record.alive
    assert not processes.recorded("stubborn")


def test_descendants_that_no_record_names_end_as_well(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, tmp_path, "parent", "sh", "-c", "setsid sleep 61 & sleep 60")
    time.sleep(0.2)
    os.kill(record.pid, signal.SIGKILL)
    orphans = processes.stray()
    assert orphans
    processes.stop_all()
    assert not any(orphan.alive for orphan in orphans)
    assert processes.stray() == []


def test_a_process_is_found_while_it_starts_another_program(processes: Processes, tmp_path: Path) -> None:
    restless = tmp_path / "restless"
    restless.write_text('#!/bin/sh\nexec "$0"\n')
    restless.chmod(0o755)
    record = start(processes, tmp_path, "restless", str(restless))
    assert all(record in processes.stray() for _ in range(200))


def test_what_a_process_starts_while_it_is_ended_ends_as_well(processes: Processes, tmp_path: Path) -> None:
    inherit = f"trap 'setsid sleep 62 & echo $! >{tmp_path}/heir; exit' TERM; echo >{tmp_path}/ready"
    start(processes, tmp_path, "bequeathing", "sh", "-c", f"{inherit}; while :; do sleep 0.05; done")
    (tmp_path / "pids" / "bequeathing.json").unlink()
    wait_until((tmp_path / "ready").exists)
    processes.stop_all()
    assert start_time(int((tmp_path / "heir").read_text())) is None


def test_a_process_that_died_is_reported_with_its_last_words(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, tmp_path, "failing", "sh", "-c", "echo the disk is full; sleep 0.1")
    wait_for_end(record)
    with pytest.raises(ProcessDiedError, match="the disk is full"):
        processes.require("failing", tmp_path / "failing.log")


def wait_for_end(record: Record) -> None:
    wait_until(lambda: not record.alive)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
