"""Nodes are deployed, cleaned and deleted while workers, servers and PostgreSQL are killed at random.

What happens to whom and when comes from a seed (KOGUMA_CRASH_SEED replays one), the processes are real: `koguma up`
and a second worker. Afterwards every node must be where it was asked to be, or failed with a reason, and nothing may
be left behind.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

log = logging.getLogger(__name__)

HEADERS = {"X-OpenStack-Ironic-API-Version": "1.82", "Content-Type": "application/json"}
CLIENTS = 8
NEXT = {
    ("enroll", "available"): "manage",
    ("enroll", "active"): "manage",
    ("manageable", "available"): "provide",
    ("manageable", "active"): "provide",
    ("available", "active"): "active",
    ("active", "available"): "deleted",
    ("deploy failed", "available"): "deleted",
    ("deploy failed", "active"): "deleted",
}
"""What to ask of a node in a state, by the state it is wanted in."""
FAILED = ("deploy failed", "clean failed", "error")
SETTLE_S = 240.0


class Site:
    """`koguma up` without a boot service, and one worker more."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._state = directory / "state"
        self._log = (directory / "site.log").open("ab")
        self.dsn = f"postgresql://postgres@/postgres?host={self._state / 'postgresql'}"
        self._environment = {
            **os.environ,
            "KOGUMA_STATE_DIR": str(self._state),
            "KOGUMA_API_LISTEN": f"127.0.0.1:{self.port}",
            "KOGUMA_LOG_LEVEL": "warning",
            "KOGUMA_LIMITS_DEPLOYS": "40",
        }
        for name in ("KOGUMA_DB_DSN", "KOGUMA_SECRETS_DIR"):  # those of this test session
            self._environment.pop(name, None)
        self._up = self._start("up", "--no-boot")
        self.second: subprocess.Popen[bytes] | None = None

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "koguma", *command], env=self._environment, stdout=self._log, stderr=self._log
        )

    def start_second_worker(self) -> None:
        if self.second is None or self.second.poll() is not None:
            self.second = self._start("worker")

    def kill(self, victim: str) -> bool:
        """Whether there was such a process."""
        if victim == "second worker":
            if self.second is None or self.second.poll() is not None:
                return False
            self.second.kill()
            self.second.wait()
            return True
        for pid in _children(self._up.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            is_it = b"postgres" in command[0] if victim == "database" else victim.encode() in command
            if is_it:
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def close(self) -> int:
        if self.second is not None:
            self.second.kill()
            self.second.wait()
        self._up.send_signal(signal.SIGTERM)
        try:
            return self._up.wait(60)
        finally:
            self._up.kill()
            self._up.wait()
            self._log.close()


def _children(parent: int) -> Iterator[int]:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        yield int(pid)


class Operator:
    """A client that goes on whatever the server says, or does not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(0, None) when nothing answered: whether it was done is not known."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            self._connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
            answer = self._connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            time.sleep(0.1)
            return 0, None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Fleet:
    """What is wanted of every node, by seed."""

    def __init__(self, seed: int, count: int) -> None:
        chance = random.Random(seed)
        self.names = [f"crash-{number}" for number in range(count)]
        self.bodies = [
            {
                "name": name,
                "driver": "fake-hardware",
                "resource_class": "crash",
                "properties": {"rack": f"rack-{number % 5}"},
                "driver_info": {
                    "fake_deploy_delay_s": round(chance.uniform(0, 1.5), 2),
                    "fake_clean_delay_s": round(chance.uniform(0, 1.0), 2),
                    **({"fake_deploy_failure": "told to fail"} if number % 20 == 19 else {}),
                },
            }
            for number, name in enumerate(self.names)
        ]
        self.last_wish = {name: chance.choice(("active", "available", "gone")) for name in self.names}

    def drive(self, port: int, mine: list[str], chaos_ends: threading.Event, give_up_at: float) -> None:
        """Move the nodes about until the chaos ends, then to their last wish."""
        ask = Operator(port)
        bodies = dict(zip(self.names, self.bodies, strict=True))
        wish = dict.fromkeys(mine, "available")
        todo = set(mine)
        while todo and time.monotonic() < give_up_at:
            for name in sorted(todo):
                last = self.last_wish[name] if chaos_ends.is_set() else None
                status, node = ask("GET", f"/v1/nodes/{name}")
                if status == 404 and last != "gone":
                    ask("POST", "/v1/nodes", bodies[name])
                elif status == 404 or (status == 200 and last and _has_ended(node, last)):
                    todo.discard(name)
                elif status == 200:
                    aim = "available" if last == "gone" else last or wish[name]
                    if node["provision_state"] == aim and last is None:
                        wish[name] = "active" if aim == "available" else "available"
                    else:
                        _ask_next(ask, name, node["provision_state"], aim, last)
            time.sleep(0.05)
        ask.close()


def _has_ended(node: dict[str, Any], last: str) -> bool:
    state = node["provision_state"]
    return not node["target_provision_state"] and (state == last or state in FAILED)


def _ask_next(ask: Operator, name: str, state: str, aim: str, last: str | None) -> None:
    """What is refused, or not answered, is looked at again."""
    if state == "available" and last == "gone":
        ask("DELETE", f"/v1/nodes/{name}")
    elif verb := NEXT.get((state, aim)):
        ask("PUT", f"/v1/nodes/{name}/states/provision", {"target": verb})


def kill_at_random(site: Site, chance: random.Random, until: float) -> Counter[str]:
    killed: Counter[str] = Counter()
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.5, 3.0))
        victim = chance.choices(("worker", "second worker", "server", "database"), (4, 3, 2, 2))[0]
        killed[victim] += site.kill(victim)
        site.start_second_worker()
    return killed


def crash(directory: Path, count: int, chaos_s: float) -> None:
    seed = int(os.environ.get("KOGUMA_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    log.warning("KOGUMA_CRASH_SEED=%d", seed)
    fleet = Fleet(seed, count)
    site = Site(directory)
    try:
        ask = Operator(site.port)
        deadline = time.monotonic() + 120
        while ask("GET", "/v1/conductors")[0] != 200:
            assert time.monotonic() < deadline, (directory / "site.log").read_text()[-2000:]
        site.start_second_worker()
        chaos_ends = threading.Event()
        ends_at = time.monotonic() + chaos_s
        threads = [
            threading.Thread(
                target=fleet.drive, args=(site.port, fleet.names[n::CLIENTS], chaos_ends, ends_at + SETTLE_S)
            )
            for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        killed = kill_at_random(site, random.Random(seed), ends_at)
        chaos_ends.set()
        for thread in threads:
            thread.join()
        log.warning("killed: %s", dict(killed))
        assert sum(killed.values()) >= chaos_s / 5
        ask.close()
        with psycopg.connect(site.dsn, autocommit=True) as database:
            check(database, fleet)
    finally:
        status = site.close()
    assert status == 0


def check(database: psycopg.Connection[Any], fleet: Fleet) -> None:
    def rows(sql: str) -> list[Any]:
        return database.execute(sql).fetchall()  # type: ignore[arg-type]

    def await_none(sql: str) -> None:
        deadline = time.monotonic() + 60
        while found := rows(sql):
            assert time.monotonic() < deadline, (sql, found[:5])
            time.sleep(0.2)

    await_none("SELECT node_id, flow, step FROM koguma_work WHERE operation_id IS NOT NULL")
    states = dict(rows("SELECT name, provision_state FROM koguma_node"))
    for name, wish in fleet.last_wish.items():
        if wish == "gone":
            assert name not in states or states[name] in FAILED, (name, states[name])
        else:
            assert states[name] == wish or states[name] in FAILED, (name, wish, states[name])
    log.warning("states: %s, gone: %d", dict(Counter(states.values())), len(fleet.names) - len(states))
    unexplained = (
        "SELECT name, provision_state FROM koguma_node WHERE provision_state IN ('deploy failed', 'clean failed',"
        " 'error') AND (last_error IS NULL OR status_code IN ('WORKING', 'READY'))"
    )
    assert rows(unexplained) == []
    # Only those that were told to fail did: a killed process is no reason.
    assert (
        rows(
            "SELECT name, last_error FROM koguma_node WHERE provision_state IN ('deploy failed', 'clean failed',"
            " 'error') AND NOT driver_info ? 'fake_deploy_failure'"
        )
        == []
    )
    # Nothing is locked, and nothing is remembered as running.
    await_none("SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2")
    assert rows("SELECT node_id, step FROM koguma_step WHERE outcome = 'running'") == []
    assert rows("SELECT node_id FROM koguma_work WHERE slot <> ''") == []
    # Nothing is leaked, doubled or left behind.
    assert rows("SELECT name FROM koguma_node WHERE provision_state = 'available' AND instance_uuid IS NOT NULL") == []
    assert rows("SELECT address FROM koguma_address GROUP BY network_id, address HAVING count(*) > 1") == []
    assert rows("SELECT id FROM koguma_allocation WHERE state = 'allocating'") == []
    # Events tell the same story as the nodes.
    wrong = (
        "SELECT node.name, node.provision_state, last.provision_state FROM koguma_node AS node JOIN LATERAL"
        " (SELECT provision_state FROM koguma_event AS event WHERE event.node = node.uuid"
        " ORDER BY event.version DESC, event.id DESC LIMIT 1)"
        " AS last ON true WHERE last.provision_state <> node.provision_state"
    )
    assert rows(wrong) == []


@pytest.mark.slow
def test_every_node_gets_where_it_was_asked_to_be_although_processes_are_killed(tmp_path: Path) -> None:
    crash(tmp_path, 40, 20)


@pytest.mark.long
def test_two_hundred_nodes_get_where_they_were_asked_to_be_in_two_minutes_of_crashes(tmp_path: Path) -> None:
    crash(tmp_path, 200, 120)
