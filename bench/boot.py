"""Power-on to `installed`, against the floor: the same kernel and root image, already local, booted by QEMU directly.

    make bench-boot

1. A site and a lab of its own: three machines, registered and active.
2. Koguma: node1 powered off and on; from the power command to the boot record's `installed`.
3. The floor: QEMU with the same processors and memory, `-kernel -initrd`, the root image as a disk; from its start
   to `installed`. 2 and 3 take turns, so that a slower minute of the host slows both.
4. All three machines at once, and three direct boots at once: what the host's processors lose to sharing is in both.
   And how much slower one core is while all of them work.
5. Commit to bootable label after a one-package edit; `koguma image log` and `koguma --help` as whole processes.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from koguma.boot.handover import handover
from koguma.lab.machine import CPU
from koguma.lab.plan import fair_cpus
from results import Row, publish, row

KOGUMA = Path(sys.executable).with_name("koguma")
API = "127.0.0.1:6397"
NODES = 3
BOOT_TIMEOUT_S = 600
FLOOR_UUID = "5f100000-0000-4000-8000-000000000001"


class Site:
    """A Koguma site with a lab of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environ = {
            **os.environ,
            "KOGUMA_STATE_DIR": str(state),
            "KOGUMA_API_LISTEN": API,
            "KOGUMA_LAB_NAME": "bench",
            "KOGUMA_API": f"http://{API}",
        }
        self._api = httpx.Client(base_url=f"http://{API}/api/v1", timeout=30, trust_env=False)

    def run(self, *words: str) -> str:
        done = subprocess.run([KOGUMA, *words], env=self.environ, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = json.loads(self.run("node", "list", "--json"))
        return sorted(nodes, key=lambda node: node["name"])

    def boots(self, node: str) -> list[dict[str, Any]]:
        boots: list[dict[str, Any]] = self._api.get(f"/nodes/{node}/boots").raise_for_status().json()
        return boots

    def machine_of(self) -> dict[str, str]:
        """Koguma's node name -> the lab's machine name, by UUID."""
        machines = json.loads(self.run("lab", "status", "--json"))["machines"]
        by_uuid = {machine["uuid"]: machine["name"] for machine in machines}
        return {node["name"]: by_uuid[node["uuid"]] for node in self.nodes()}


def boot_all(site: Site, nodes: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Power the nodes off, then on together; seconds to the last `installed`, and the boot records."""
    machines = site.machine_of()
    before = {node: site.boots(node)[0]["id"] for node in nodes}
    for node in nodes:
        site.run("lab", "power", machines[node], "off")
    time.sleep(1)
    started, began_at = time.monotonic(), datetime.now(UTC)
    commands = [
        subprocess.Popen([KOGUMA, "lab", "power", machines[node], "on"], env=site.environ, stdout=subprocess.DEVNULL)
        for node in nodes
    ]
    for command in commands:
        if command.wait():
            raise RuntimeError("a machine could not be powered on")
    records: dict[str, dict[str, Any]] = {}
    while len(records) < len(nodes):
        if time.monotonic() - started > BOOT_TIMEOUT_S:
            raise TimeoutError(f"not installed within {BOOT_TIMEOUT_S} s: {set(nodes) - set(records)}")
        # Not more often: the machines need the processors that answering takes.
        time.sleep(1)
        for node in set(nodes) - set(records):
            newest = site.boots(node)[0]
            if newest["id"] != before[node] and newest["outcome"] == "succeeded":
                records[node] = newest
    last = max(datetime.fromisoformat(record["finished_at"]) for record in records.values())
    return (last - began_at).total_seconds(), list(records.values())


def boot_floor(site: Site, commit: str, scratch: Path, cpus: int) -> float:
    """The same kernel, initramfs and root image without a network boot; seconds from QEMU's start to `installed`."""
    artifact = site.state / "images" / "boot" / "artifacts" / commit
    manifest = json.loads((artifact / "manifest.json").read_bytes())
    root = manifest["files"]["root"]
    with _listener() as (port, installed):
        env = {
            "KOGUMA_URL": f"http://10.0.2.2:{port}",
            "KOGUMA_UUID": FLOOR_UUID,
            "KOGUMA_TOKEN": f"{'0' * 32}.{'0' * 32}",
            "KOGUMA_MAC": "52:54:00:f1:00:01",
            "KOGUMA_ADDRESS": "10.0.2.15/24",
            "KOGUMA_GATEWAY": "10.0.2.2",
            "KOGUMA_MTU": "",
            "KOGUMA_NODE": "floor",
            "KOGUMA_LABEL": "floor",
            "KOGUMA_COMMIT": commit,
            "KOGUMA_ROOT_METHOD": "local",
            "KOGUMA_ROOT_URL": "",
            "KOGUMA_ROOT_NAME": root["name"],
            "KOGUMA_ROOT_FORMAT": manifest["root_format"],
            "KOGUMA_ROOT_SHA256": root["sha256"],
            "KOGUMA_ROOT_SIZE_BYTES": root["size_bytes"],
            "KOGUMA_OVERLAY_SIZE_BYTES": 0,
            "KOGUMA_NFS": "",
            "KOGUMA_ROOT_DEVICE": "/dev/vda",
        }
        initrd = scratch / "initrd"
        initrd.write_bytes(_padded((artifact / "initrd").read_bytes()) + handover(env, _floor_detail()))
        image = scratch / "root.img"
        shutil.copyfile(artifact / root["name"], image)
        with image.open("ab") as file:
            file.truncate(-(-root["size_bytes"] // 4096) * 4096)
        started = time.monotonic()
        qemu = subprocess.Popen(_floor_qemu(artifact / "kernel", initrd, image, scratch / "console.log", cpus))
        try:
            if not installed.wait(BOOT_TIMEOUT_S):
                raise TimeoutError(f"the direct boot did not finish within {BOOT_TIMEOUT_S} s ({scratch}/console.log)")
            return time.monotonic() - started
        finally:
            qemu.kill()
            qemu.wait()


def boot_floors(site: Site, commit: str, scratch: Path, cpus: int, count: int) -> float:
    """Several direct boots at once; seconds to the last `installed`."""
    folders = [scratch / str(number) for number in range(count)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(count) as pool:
        return max(pool.map(lambda folder: boot_floor(site, commit, folder, cpus), folders))


def _floor_qemu(kernel: Path, initrd: Path, image: Path, console: Path, cpus: int) -> list[str]:
    """The lab's machine, device by device, without firmware and network boot. Its BMC is QEMU's own."""
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "pc,graphics=off",
        "-accel", "tcg,thread=multi",
        "-cpu", CPU, "-smp", str(cpus), "-m", "2560", "-display", "none", "-serial", f"file:{console}",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", "boot=koguma console=ttyS0,115200",
        "-drive", f"file={image},format=raw,if=virtio,readonly=on",
        "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:f1:00:01,romfile=",
        "-netdev", "user,id=net1,restrict=on", "-device", "virtio-net-pci,netdev=net1,mac=52:54:00:f1:00:02,romfile=",
        "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
        "-device", "i6300esb", "-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0",
    ]  # fmt: skip


def _floor_detail() -> dict[str, Any]:
    interface = {
        "mac": "52:54:00:f1:00:01", "name": "eth0", "addresses": ["10.0.2.15/24"], "gateway": "10.0.2.2", "mtu": 1500,
        "vlan": None, "parent": None, "bond": None,
    }  # fmt: skip
    return {
        "node": "floor", "uuid": FLOOR_UUID, "hostname": "floor", "domain": "bench.koguma", "flavor": "compute",
        "interfaces": [interface], "bonds": [], "vlans": [], "dns_servers": [], "ntp_servers": [],
        "ssh_authorized_keys": [], "ssh_host_keys": {}, "templates": [], "variables": {},
        "members": [{"name": "floor", "address": "10.0.2.15", "flavor": "compute"}], "members_revision": "0" * 64,
    }  # fmt: skip


@contextmanager
def _listener() -> Iterator[tuple[int, threading.Event]]:
    """A server on loopback that takes every report and says when `installed` came."""
    installed = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(204)
            self.end_headers()
            if self.path.endswith("/installed"):
                installed.set()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, installed
    finally:
        server.shutdown()
        server.server_close()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def busy_cores(runs: int) -> list[float]:
    """Time of the same work on every core at once / on one alone; 1 where cores share nothing."""
    work = [sys.executable, "-S", "-c", "sum(range(30_000_000))"]

    def elapsed_s(count: int) -> float:
        started = time.monotonic()
        for process in [subprocess.Popen(work) for _ in range(count)]:
            process.wait()
        return time.monotonic() - started

    return [elapsed_s(os.cpu_count() or 1) / elapsed_s(1) for _ in range(runs)]


def label_times(site: Site, runs: int) -> list[float]:
    """Seconds from `image commit` of a one-package edit to a label whose artifact can be booted."""
    times = []
    for number in range(runs):
        branch = f"bench-{int(time.time())}-{number}"
        site.run("image", "branch", branch, "compute")
        site.run("image", "edit", branch, "--", "apt-get", "install", "-y", "-q", "--no-install-recommends", "tree")
        started = time.monotonic()
        commit = site.run("image", "commit", "-b", branch, "-m", "tree").split()[-1]
        labels = json.loads((site.state / "images/boot/labels.json").read_bytes())["labels"]
        if not labels[branch]["commit"].startswith(commit):
            raise RuntimeError(f"label {branch} must be of commit {commit}, got {labels[branch]}")
        times.append(time.monotonic() - started)
    return times


def process_times(site: Site, runs: int, *words: str) -> list[float]:
    def once() -> float:
        started = time.monotonic()
        site.run(*words)
        return time.monotonic() - started

    once()
    return [once() for _ in range(runs)]


def phase_rows(records: list[dict[str, Any]]) -> list[Row]:
    """The median of every phase over the boots."""
    durations: dict[str, list[float]] = {}
    for record in records:
        for phase in record["phases"]:
            if phase["duration_s"] is not None:
                durations.setdefault(phase["name"], []).append(phase["duration_s"])
    return [row(f"phase {name}", runs, "s") for name, runs in durations.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--state", type=Path, default=Path("/var/tmp/koguma-bench"))
    parser.add_argument("--cpus", type=int, help="Of every machine, the floor's too; as the lab has it.")
    parser.add_argument("--dry", action="store_true", help="Print the table only, leave the results' file as it is.")
    arguments = parser.parse_args()
    site = Site(arguments.state)
    cpus = arguments.cpus or fair_cpus(NODES, os.cpu_count() or 1)
    try:
        site.run("lab", "up", "--nodes", str(NODES), "--cpus", str(cpus))
        publish("boot", measure(site, arguments.runs, cpus), write=not arguments.dry)
    finally:
        subprocess.run([KOGUMA, "lab", "down"], env=site.environ, check=False)


def measure(site: Site, runs: int, cpus: int) -> list[Row]:
    nodes = [node["name"] for node in site.nodes()]
    for node in nodes[1:]:
        site.run("lab", "power", site.machine_of()[node], "off")
    koguma, floor, records = [], [], []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="koguma-floor-") as scratch:
        for number in range(runs):
            elapsed_s, booted = boot_all(site, nodes[:1])
            koguma.append(elapsed_s)
            records += booted
            site.run("lab", "power", site.machine_of()[nodes[0]], "off")
            floor.append(boot_floor(site, booted[0]["commit"], Path(scratch), cpus))
            print(f"run {number + 1}: Koguma {koguma[-1]:.1f} s, direct boot {floor[-1]:.1f} s", flush=True)
        storm, floor_storm = [], []
        for number in range(max(3, runs // 2)):
            storm.append(boot_all(site, nodes)[0])
            for node in nodes:
                site.run("lab", "power", site.machine_of()[node], "off")
            floor_storm.append(boot_floors(site, booted[0]["commit"], Path(scratch), cpus, len(nodes)))
            print(f"storm {number + 1}: Koguma {storm[-1]:.1f} s, direct boots {floor_storm[-1]:.1f} s", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(koguma, floor, strict=True)]
    together = [elapsed_s / statistics.median(koguma) for elapsed_s in storm]
    floor_together = [elapsed_s / statistics.median(floor) for elapsed_s in floor_storm]
    share = len(nodes) / (os.cpu_count() or 1)
    peer = "QEMU -kernel -initrd, root image local"
    return [
        row("power-on to installed", koguma, "s"),
        row("direct boot (the floor)", floor, "s", peer=peer),
        row("power-on to installed / direct boot", ratios, "x", at_most=1.6, peer=peer),
        *phase_rows(records),
        row(f"{len(nodes)} nodes at once", storm, "s"),
        row(f"{len(nodes)} nodes at once / one node", together, "x", at_most=1.5 * share),
        row(f"{len(nodes)} direct boots at once / one", floor_together, "x", peer=peer),
        row("a core's work while all cores work / alone", busy_cores(runs), "x"),
        row("commit to bootable label, one-package edit", label_times(site, runs), "s", at_most=10),
        row("koguma image log", process_times(site, runs, "image", "log", "compute"), "s", at_most=0.25),
        row("koguma --help", process_times(site, runs, "--help"), "s", at_most=0.25),
    ]


if __name__ == "__main__":
    main()
