"""How fast the Ironic API and the lifecycle behind it are: creates, PATCH, lists, one node, concurrent deploys, memory;
and the same of Ironic itself, by the same client, in the same run.

    .venv/bin/python bench/lifecycle.py [--nodes 2000] [--fleet 20000] [--clients 4] [--deploys 200] [--ironic DIR]

The client is the standard library's `http.client`, in processes of its own, with a kept connection each. All nodes are
fake hardware without delays, on fresh servers: Ironic 39 standalone and all in one (`lifecycle_ironic`), then `koguma
up`. Aims are multiples of what Ironic did a minute before. `--fleet` fills Koguma's table up to so many nodes by SQL,
copies of the ones that were created, and measures lists and deployments again. `--ironic ""` leaves Ironic out.
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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

import lifecycle_ironic
from results import Row, publish, row

HEADERS = {"X-OpenStack-Ironic-API-Version": "1.82", "Content-Type": "application/json", "Connection": "keep-alive"}
PAGE_RUNS = 9
PATCHED = 200
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
    parser.add_argument("--fleet", type=int, default=20000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--deploys", type=int, default=100)
    parser.add_argument("--peer-nodes", type=int, default=1000, help="how many nodes Ironic gets")
    parser.add_argument("--ironic", type=Path, default=Path("build/ironic-39"), help="its virtual environment")
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()
    peer: dict[str, float] = {}
    rows: list[Row] = []
    if arguments.ironic != Path():
        lifecycle_ironic.install(arguments.ironic)
        peer = measure_ironic(arguments)
        rows += [Row(name, value, UNITS[name], "", None, "", [value], "Ironic") for name, value in peer.items()]
    rows += measure_koguma(arguments, peer)
    publish("lifecycle", rows, write=not arguments.no_write)


CREATES, LIST, DETAIL, ONE, PATCHES, DEPLOYS = (
    "creates", "GET /v1/nodes?limit=1000", "GET /v1/nodes/detail?limit=1000", "GET /v1/nodes/UUID", "PATCH", "deploys",
)  # fmt: skip
UNITS = {CREATES: "1/s", LIST: "ms", DETAIL: "ms", ONE: "ms", PATCHES: "1/s", DEPLOYS: "1/s"}
AIMS: dict[str, Callable[[float], float]] = {
    CREATES: lambda ironic: 10 * ironic,
    PATCHES: lambda ironic: 10 * ironic,
    DEPLOYS: lambda ironic: 10 * ironic,
    LIST: lambda ironic: ironic / 3,
    DETAIL: lambda ironic: ironic / 3,
}
"""What Koguma should reach, by what Ironic does: rates at least, times at most."""


def measure_ironic(arguments: argparse.Namespace) -> dict[str, float]:
    port = free_port()
    with lifecycle_ironic.running(arguments.ironic, port):
        wait_until_it_answers(f"127.0.0.1:{port}")
        url = f"http://127.0.0.1:{port}"
        figures, _ = measure(url, arguments.peer_nodes, arguments.clients, arguments.deploys)
    return {name: round(statistics.median(runs), 2) for name, runs in figures.items()}


def measure_koguma(arguments: argparse.Namespace, peer: dict[str, float]) -> list[Row]:
    nodes, deploys, clients = arguments.nodes, arguments.deploys, arguments.clients
    with server() as (url, pid, dsn):
        figures, uuids = measure(url, nodes, clients, deploys)
        rows = [_row(name, runs, peer) for name, runs in figures.items()]
        rows.append(row(f"memory of all processes at {nodes} nodes", [memory_mb(pid)], "MB", at_most=600))
        if arguments.fleet > nodes:
            rows += measure_fleet(arguments, url, dsn, uuids, figures)
            rows.append(row(f"memory of all processes at {arguments.fleet} nodes", [memory_mb(pid)], "MB"))
    return rows


def measure(url: str, nodes: int, clients: int, deploys: int) -> tuple[dict[str, list[float]], list[str]]:
    """Figures by name, each with its runs; and the nodes."""
    figures = {}
    created_s, uuids = spread(create, url, clients, list(range(nodes)))
    client = Client(url)  # not before: Ironic closes a connection that says nothing for ten seconds
    figures[CREATES] = [nodes / created_s]
    figures[LIST] = timed_ms(client, "/v1/nodes?limit=1000", 30)
    figures[DETAIL] = timed_ms(client, "/v1/nodes/detail?limit=1000")
    figures[ONE] = timed_ms(client, f"/v1/nodes/{uuids[0]}", 100)
    patched = uuids[:PATCHED]
    patched_s, _ = spread(patch, url, clients, patched)
    figures[PATCHES] = [len(patched) / patched_s]
    figures[DEPLOYS] = [deploy(url, uuids[:deploys], clients)]
    return figures, uuids


def measure_fleet(
    arguments: argparse.Namespace, url: str, dsn: str, uuids: list[str], before: dict[str, list[float]]
) -> list[Row]:
    """The same lists and deployments among many more nodes."""
    nodes, fleet, deploys = arguments.nodes, arguments.fleet, arguments.deploys
    fill(dsn, fleet)
    listed = timed_ms(Client(url), "/v1/nodes?limit=1000", 30)
    rate = deploy(url, uuids[deploys : 2 * deploys], arguments.clients)
    at_most = 1.5 * quantile(before[LIST], 0.99)
    note = f"p99; {quantile(before[LIST], 0.99):.1f} ms among {nodes}"
    p99 = quantile(listed, 0.99)
    least_rate = statistics.median(before[DEPLOYS]) / 1.5
    return [
        Row(f"{LIST} among {fleet}", round(p99, 1), "ms", f"at most {at_most:.1f} ms", p99 <= at_most, "",
            [round(run, 2) for run in listed], note),
        Row(f"deploys among {fleet}", round(rate, 1), "1/s", f"at least {least_rate:.1f} 1/s", rate >= least_rate, "",
            [round(rate, 1)]),
    ]  # fmt: skip


def deploy(url: str, uuids: list[str], clients: int) -> float:
    """Deployments a second, all asked for at once."""
    reach(url, uuids, clients, (("manage", "manageable"), ("provide", "available")))
    return len(uuids) / reach(url, uuids, clients, (("active", "active"),))


def fill(dsn: str, fleet: int) -> None:
    """Copies of the node that was made last, with what belongs to each node."""
    with psycopg.connect(dsn, autocommit=True) as database:
        row = database.execute("SELECT * FROM koguma_node ORDER BY id DESC LIMIT 1")
        columns = [item.name for item in row.description or [] if item.name not in ("id", "uuid", "name")]
        names = ", ".join(f'"{name}"' for name in columns)
        database.execute(
            f"WITH made AS (INSERT INTO koguma_node (uuid, name, {names})"
            f" SELECT gen_random_uuid(), 'fleet-' || number, {names} FROM generate_series(1, %s) AS number,"
            " (SELECT * FROM koguma_node ORDER BY id DESC LIMIT 1) AS one RETURNING id), work AS (INSERT INTO"
            " koguma_work (node_id, woken, flow, step, tries, attempt, data, slot) SELECT id, false, '', '', 0, 1,"
            " '{}', '' FROM made) INSERT INTO koguma_pulse (node_id) SELECT id FROM made",
            [fleet - database.execute("SELECT count(*) FROM koguma_node").fetchone()[0]],
        )
        database.execute("VACUUM ANALYZE")


def _row(name: str, runs: list[float], peer: dict[str, float]) -> Row:
    value, rounded = round(statistics.median(runs), 2), [round(run, 2) for run in runs]
    unit = UNITS[name]
    if name not in AIMS or name not in peer:
        return Row(name, value, unit, "", None, "", rounded)
    aim = AIMS[name](peer[name])
    is_rate = unit == "1/s"
    met = value >= aim if is_rate else value <= aim
    text = f"at {'least' if is_rate else 'most'} {aim:.4g} {unit}"
    times = value / peer[name] if is_rate else peer[name] / value
    return Row(name, value, unit, text, met, f"Ironic {peer[name]:g} {unit}", rounded, f"{times:.1f} x Ironic")


def quantile(runs: list[float], share: float) -> float:
    return sorted(runs)[min(len(runs) - 1, int(share * len(runs)))]


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
        found: set[str] = set()
        path = f"/v1/nodes?provision_state={state.replace(' ', '%20')}&fields=uuid"
        while path:
            document = client("GET", path)
            found |= {node["uuid"] for node in document["nodes"]}
            path = document.get("next", "").partition("/v1/")[2]
            path = f"/v1/{path}" if path else ""
        if uuids <= found:
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
def server() -> Iterator[tuple[str, int, str]]:
    """A fresh `koguma up` without a boot service: its URL, process id, and database."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="koguma-bench-") as state:
        command = [sys.executable, "-m", "koguma", "up", "--state", state, "--api", address, "--no-boot"]
        log = (Path(state) / "bench.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "KOGUMA_LOG_LEVEL": "warning"})
        try:
            wait_until_it_answers(address)
            yield f"http://{address}", process.pid, f"postgresql://postgres@/postgres?host={state}/postgresql"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
