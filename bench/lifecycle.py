"""How fast the Ironic API and the lifecycle behind it are: creates, PATCH, lists, one node, concurrent deploys, memory.

    .venv/bin/python bench/lifecycle.py [--nodes 2000] [--clients 4] [--deploys 200] [--url URL]

The client is the standard library's `http.client`, in processes of its own, with a kept connection each, so that the
same code measures any server of the Ironic API (`--url http://host:port`; figures are aims only for Koguma's own
fresh server, which is started when no URL is given). All nodes are fake hardware without delays.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from results import Row, publish, row

HEADERS = {"X-OpenStack-Ironic-API-Version": "1.82", "Content-Type": "application/json", "Connection": "keep-alive"}
PAGE_RUNS = 9
DEPLOY_TIMEOUT_S = 300.0


class Client:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, HEADERS)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path} must succeed, got {answer.status}: {text[:300]!r}")
        return json.loads(text) if text else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--deploys", type=int, default=200)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    with server() if arguments.url is None else contextlib.nullcontext((arguments.url, None)) as (url, pid):
        publish("lifecycle", measure(url, pid, arguments.nodes, arguments.clients, arguments.deploys))


def measure(url: str, pid: int | None, nodes: int, clients: int, deploys: int) -> list[Row]:
    client = Client(url)
    rows = []
    created_s, uuids = spread(create, url, clients, list(range(nodes)))
    rows.append(least("creates", nodes / created_s, "1/s", 380))
    rows.append(row("GET /v1/nodes?limit=1000", timed_ms(client, "/v1/nodes?limit=1000"), "ms", at_most=70))
    rows.append(
        row("GET /v1/nodes/detail?limit=1000", timed_ms(client, "/v1/nodes/detail?limit=1000"), "ms", at_most=200)
    )
    rows.append(row("GET /v1/nodes/UUID", timed_ms(client, f"/v1/nodes/{uuids[0]}", 100), "ms", at_most=7.4))
    patched_s, _ = spread(patch, url, clients, uuids)
    rows.append(least("PATCH", len(uuids) / patched_s, "1/s", 160))
    ready_s = reach(url, uuids[:deploys], clients, (("manage", "manageable"), ("provide", "available")))
    rows.append(row(f"manage and provide of {deploys} nodes", [ready_s], "s"))
    deployed_s = reach(url, uuids[:deploys], clients, (("active", "active"),))
    rows.append(least(f"deploys, {deploys} at once", deploys / deployed_s, "1/s", 30))
    if pid is not None:
        rows.append(row(f"memory of all processes at {nodes} nodes", [memory_mb(pid)], "MB", at_most=600))
    return rows


def create(client: Client, number: int) -> str:
    body = {"driver": "fake-hardware", "name": f"bench-{number}", "resource_class": "bench", "properties": {"cpus": 8}}
    return str(client("POST", "/v1/nodes", body)["uuid"])


def patch(client: Client, uuid: str) -> str:
    client("PATCH", f"/v1/nodes/{uuid}", [{"op": "add", "path": "/extra/place", "value": uuid[:4]}])
    return uuid


def reach(url: str, uuids: list[str], clients: int, steps: tuple[tuple[str, str], ...]) -> float:
    """Seconds until all nodes went through the verbs' states."""
    began = time.monotonic()
    for verb, state in steps:
        spread(Ask(verb), url, clients, uuids)
        wait_for(Client(url), set(uuids), state, began)
    return time.monotonic() - began


class Ask:
    """A verb, for many nodes."""

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def __call__(self, client: Client, uuid: str) -> str:
        client("PUT", f"/v1/nodes/{uuid}/states/provision", {"target": self._verb})
        return uuid


def wait_for(client: Client, uuids: set[str], state: str, began: float) -> None:
    while time.monotonic() < began + DEPLOY_TIMEOUT_S:
        document = client("GET", f"/v1/nodes?provision_state={state.replace(' ', '%20')}&fields=uuid")
        if uuids <= {node["uuid"] for node in document["nodes"]}:
            return
        time.sleep(0.2)
    raise SystemExit(f"all nodes must be {state} within {DEPLOY_TIMEOUT_S:.0f} s")


def spread(work: Callable[[Client, Any], str], url: str, clients: int, items: list[Any]) -> tuple[float, list[str]]:
    """The seconds it takes with so many clients at once, and what they got."""
    shares = [items[start::clients] for start in range(clients)]
    with multiprocessing.Pool(clients) as pool:
        pool.map(_idle, range(clients))  # the processes exist before the clock starts
        began = time.monotonic()
        done = pool.starmap(_share, [(work, url, share) for share in shares])
        return time.monotonic() - began, [result for share in done for result in share]


def _share(work: Callable[[Client, Any], str], url: str, items: list[Any]) -> list[str]:
    client = Client(url)
    return [work(client, item) for item in items]


def _idle(_: int) -> None:
    time.sleep(0.05)


def timed_ms(client: Client, path: str, runs: int = PAGE_RUNS) -> list[float]:
    client("GET", path)
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        client("GET", path)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def least(name: str, value: float, unit: str, aim: float) -> Row:
    return Row(name, round(value, 1), unit, f"at least {aim:g} {unit}", value >= aim, "", [round(value, 1)])


def memory_mb(pid: int) -> float:
    """Resident memory, shared pages counted once, of a process and all below it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for member in family:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextlib.contextmanager
def server() -> Iterator[tuple[str, int]]:
    """A fresh `koguma up` without a boot service: its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="koguma-bench-") as state:
        command = [sys.executable, "-m", "koguma", "up", "--state", state, "--api", address, "--no-boot"]
        log = (Path(state) / "bench.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "KOGUMA_LOG_LEVEL": "warning"})
        try:
            wait_until_it_answers(address)
            yield f"http://{address}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


def wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, SystemExit):
            if Client(f"http://{address}")("GET", "/v1/conductors")["conductors"]:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server must answer at {address} within 120 s")


if __name__ == "__main__":
    main()
