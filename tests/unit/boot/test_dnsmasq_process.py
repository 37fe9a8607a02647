"""The dnsmasq process: it ends with the boot service, however that ends, and forgets leases that stand in the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="DHCP needs root"),
]

SERVICE = """
import asyncio, sys
from pathlib import Path
from koguma.boot.dnsmasq import DhcpSettings, Dnsmasq
from koguma.model.snapshot import Snapshot, SnapshotNetwork

async def serve():
    dhcp = Dnsmasq(DhcpSettings("prov", "http://10.99.0.1:8080", Path(sys.argv[1])))
    dhcp.apply(Snapshot(networks=(SnapshotNetwork("p", "provisioning", 1, "10.99.0.0/24"),)))
    await dhcp.run_forever()

asyncio.run(serve())
"""


def test_a_killed_boot_service_takes_its_dhcp_server_with_it(tmp_path: Path) -> None:
    service = _start(SERVICE, tmp_path)
    try:
        child = _wait_for(lambda: _dnsmasq_below(service.pid))
        os.kill(service.pid, signal.SIGKILL)
        service.wait(10)
        assert _wait_for(lambda: not Path(f"/proc/{child}").exists() or _state(child) == "Z")
    finally:
        service.kill()


MOVING = """
import asyncio, sys
from pathlib import Path
from koguma.boot.dnsmasq import DhcpSettings, Dnsmasq
from koguma.model.snapshot import BootPlan, Snapshot, SnapshotNetwork, SnapshotNode, SnapshotPort

def snapshot(mac):
    network = SnapshotNetwork("p", "provisioning", 1, "10.99.0.0/24")
    port = SnapshotPort(mac, address="10.99.0.2")
    node = SnapshotNode("u", "node-1", "s", "active", "compute", BootPlan("compute"), (port,))
    return Snapshot(networks=(network,), nodes=(node,))

async def serve():
    folder = Path(sys.argv[1])
    dhcp = Dnsmasq(DhcpSettings("prov", "http://10.99.0.1:8080", folder))
    dhcp.apply(snapshot("52:54:00:00:00:01"))
    serving = asyncio.create_task(dhcp.run_forever())
    while not (folder / "moved").exists():
        await asyncio.sleep(0.05)
    dhcp.apply(snapshot("52:54:00:00:00:02"))
    await serving

asyncio.run(serve())
"""


def test_an_address_that_moves_to_another_machine_is_not_kept_by_the_lease_of_the_first(tmp_path: Path) -> None:
    service = _start(MOVING, tmp_path)
    try:
        first = _wait_for(lambda: _dnsmasq_below(service.pid))
        leases = tmp_path / "leases"
        leases.write_text("4000000000 52:54:00:00:00:01 10.99.0.2 node-1 *\n")
        (tmp_path / "moved").touch()
        assert _wait_for(lambda: (found := _dnsmasq_below(service.pid)) not in (None, first) and found)
        assert "52:54:00:00:00:01" not in leases.read_text()
    finally:
        service.terminate()
        service.wait(10)


def _start(program: str, folder: Path) -> subprocess.Popen[bytes]:
    """In a network namespace of its own, so that nobody is offered anything."""
    command = ["unshare", "--net", "--", sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _dnsmasq_below(parent: int) -> int | None:
    """Its pid, once it has changed into what it stays: leases are opened after that."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            name = (path.parent / "comm").read_text().strip()
            files = [str(link.readlink()) for link in (path.parent / "fd").iterdir()]
        except OSError:
            continue
        if int(fields[1]) == parent and name == "dnsmasq" and any(file.endswith("inotify") for file in files):
            return int(path.parent.name)
    return None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wait_for(condition):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 15
    while not (value := condition()):
        assert time.monotonic() < deadline, "not within 15 s"
        time.sleep(0.1)
    return value
