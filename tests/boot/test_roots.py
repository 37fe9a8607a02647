"""Roots that stay, on machines of a lab of their own: a disk that boots by itself, a volume that changes machines."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from koguma.lab import netns

from .sites import Site, site_of

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.root]

RECIPE = Path(__file__).resolve().parents[2] / "recipes/server.toml"
KERNEL_ARGS = "console=ttyS0,115200"
DISK_GIB = 4
DISKS = ("--disk", str(DISK_GIB), "--disks", "2")
WAIT_S = 1500
DEGRADED = ("MIRROR_DEGRADED", {"disks": 2, "working": 1})


class RootsSite(Site):
    """A site whose machines have disks, and whose newcomers get flavor `server`."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.environ["KOGUMA_ENROLLMENT_FLAVOR"] = "server"

    def build(self) -> None:
        """Stage 1 and the image, under the name too that the lab would otherwise build a larger one for."""
        repository = ["image", "--repo", str(self.state / "images")]
        if not (self.state / "images/keys/signing.pem").exists():
            self.koguma(*repository, "init")
        if not (self.state / "images/boot/stage1/current").exists():
            self.koguma(*repository, "build-stage1", timeout_s=1800)
        if '"server"' not in self._labels():
            self.koguma(*repository, "build", str(RECIPE), "-b", "server", timeout_s=1800)
            self.koguma(*repository, "branch", "compute", "server")

    def state_of(self, name: str, state: str, timeout_s: float = WAIT_S) -> None:
        def reached() -> bool:
            now = self.node(name)
            if now["provision_state"] != state and now["provision_state"].endswith("failed"):
                pytest.fail(f"{name} must become {state}, it is {now['provision_state']}: {now['last_error']}")
            return bool(now["provision_state"] == state)

        self.wait_for(f"{name} is {state}", reached, timeout_s)

    def set_instance_info(self, name: str, info: dict[str, str]) -> None:
        """As a client of Ironic does."""
        patch = [{"op": "add", "path": "/instance_info", "value": info}]
        headers = {"X-OpenStack-Ironic-API-Version": "1.82"}
        httpx.patch(f"{self.url}/v1/nodes/{name}", json=patch, headers=headers, trust_env=False).raise_for_status()

    def is_spare(self, name: str, flavor: str) -> None:
        at_rest = ("active", "available", "deploy failed")
        self.wait_for(f"{name} is at rest", lambda: self.node(name)["provision_state"] in at_rest, WAIT_S)
        if self.node(name)["provision_state"] != "available":
            self.koguma("node", "undeploy", name)
            self.wait_for(f"{name} is on its way", lambda: "fail" not in self.node(name)["provision_state"], 60)
        self.state_of(name, "available")
        self.koguma("node", "set-flavor", name, flavor)

    def becomes(self, name: str, flavor: str) -> None:
        """Whatever it was before, it is deployed anew."""
        self.is_spare(name, flavor)
        self.koguma("node", "deploy", name)
        self.state_of(name, "active")

    def off(self, name: str) -> None:
        self.koguma("node", "power", name, "off")
        self.wait_for(f"{name} is off", lambda: self.node(name)["power_state"] == "power off", WAIT_S)

    def disk(self, machine: str) -> Path:
        """The first one; to be looked at while the machine is off."""
        return self.state / "lab/machines" / machine / "disk.qcow2"

    def on(self, machine: str, command: str) -> str:
        """What the command says on a machine, which need not be asked of a Koguma that runs."""
        return self.koguma("lab", "ssh", machine, "--", command, timeout_s=60).stdout

    def says(self, machine: str, command: str, text: str) -> bool:
        """Whether that is what the command says; no as long as nobody answers."""
        done = self.koguma("lab", "ssh", machine, "--", command, check=False, timeout_s=60)
        return done.stdout.strip() == text

    def has_rebooted(self, machine: str) -> bool:
        """Whether it answers, from another boot than the one noted in /root/before."""
        return self.says(machine, "cmp -s /root/before /proc/sys/kernel/random/boot_id; echo $?", "1")

    def stop(self) -> None:
        """All of Koguma, as a site that lost its controller."""
        for pid in self.processes("koguma up"):
            os.kill(pid, signal.SIGTERM)
        self.wait_for("Koguma has stopped", lambda: not self.processes("koguma boot"), 60)

    def _labels(self) -> str:
        path = self.state / "images/boot/labels.json"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def site() -> Iterator[RootsSite]:
    """Two machines with disks, registered, of flavor `server`, which boots from a disk; one BIOS, one UEFI."""
    with site_of("roots", RootsSite) as site:
        site.build()
        site.koguma("lab", "up", "--nodes", "1", *DISKS, "--no-wait")
        site.koguma("lab", "up", "--nodes", "2", *DISKS, "--uefi", "--no-wait")
        flavors = {item["name"] for item in site.json("flavor", "list")}
        for name, method, disks in (("server", "disk", 1), ("mirrored", "disk", 2), ("volume", "iscsi", 0)):
            if name not in flavors:
                words = ["--label", "server", "--root-method", method, "--kernel-args", KERNEL_ARGS]
                words += ["--requirements", json.dumps({"root_disks": disks})] if disks else []
                site.koguma("flavor", "create", name, *words)
        site.wait_for("both machines are nodes", lambda: len(site.nodes()) == 2, WAIT_S)
        yield site


def firmware(site: RootsSite, kind: str) -> tuple[str, str]:
    """The node with this firmware, and its machine."""
    name = next(str(node["name"]) for node in site.nodes() if node["firmware"] == kind)
    return name, site.machine(name)


@pytest.mark.parametrize("kind", ["bios", "uefi"])
def test_node_boots_from_its_disk_with_the_boot_service_stopped(site: RootsSite, kind: str) -> None:
    name, machine = firmware(site, kind)
    site.state_of(name, "active")
    assert site.on(machine, "findmnt -n -o SOURCE,FSTYPE /").split() == ["/dev/vda4", "ext4"]
    assert site.on(machine, "hostname").strip() == name
    site.on(machine, "cp /proc/sys/kernel/random/boot_id /root/before; sync")
    site.stop()
    try:
        site.koguma("lab", "power", machine, "cycle")
        site.wait_for("it is up again by itself", lambda: site.has_rebooted(machine), WAIT_S)
        assert site.on(machine, "hostname").strip() == name
    finally:
        site.koguma("lab", "up", "--no-wait")


def test_qcow2_image_that_somebody_serves_is_written_and_boots(site: RootsSite, tmp_path: Path) -> None:
    name, machine = firmware(site, "bios")
    site.state_of(name, "active")
    site.on(machine, "echo golden > /root/golden; sync")
    site.off(name)
    golden = tmp_path / "golden.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(site.disk(machine)), str(golden)], check=True)
    site.is_spare(name, "server")
    with served(site, tmp_path) as url:
        info = {"image_source": f"{url}/golden.qcow2", "image_disk_format": "qcow2", "image_os_hash_algo": "sha256"}
        info["image_os_hash_value"] = hashlib.sha256(golden.read_bytes()).hexdigest()
        site.set_instance_info(name, info)
        site.becomes(name, "server")
    site.wait_for("the image is up", lambda: site.says(machine, "cat /root/golden", "golden"), WAIT_S)
    site.set_instance_info(name, {})


@contextlib.contextmanager
def served(site: RootsSite, directory: Path) -> Iterator[str]:
    """Files over HTTP, as a mirror would, where the site's worker is."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with netns.inside(f"{site.lab}-ctl"):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_disk_of_a_node_that_was_undeployed_is_empty(site: RootsSite, tmp_path: Path) -> None:
    name, machine = firmware(site, "bios")
    site.state_of(name, "active")
    site.koguma("node", "undeploy", name)
    site.state_of(name, "available")
    disk = site.disk(machine)
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(disk), str(raw)], check=True, capture_output=True)
    # What is zero is a hole of the copy, but for its first 4 KiB.
    assert raw.stat().st_size == DISK_GIB << 30
    assert raw.stat().st_blocks <= 8
    with raw.open("rb") as file:
        assert set(file.read(4096)) == {0}


@pytest.mark.parametrize("kind", ["bios", "uefi"])
def test_node_on_mirrored_disks_outlives_the_one_that_it_boots_from(site: RootsSite, kind: str) -> None:
    name, machine = firmware(site, kind)
    site.becomes(name, "mirrored")
    assert site.on(machine, "findmnt -n -o SOURCE,FSTYPE /").split() == ["/dev/md0", "ext4"]
    assert "[UU]" in site.on(machine, "cat /proc/mdstat")
    site.on(machine, "echo kept > /root/kept; cp /proc/sys/kernel/random/boot_id /root/before; sync")
    site.off(name)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(site.disk(machine)), f"{DISK_GIB}G"], check=True)
    site.koguma("node", "power", name, "on")
    site.wait_for("it is up with the other disk", lambda: site.has_rebooted(machine), WAIT_S)
    assert site.on(machine, "cat /root/kept").strip() == "kept"
    assert "[2/1]" in site.on(machine, "cat /proc/mdstat")
    site.wait_for(
        "the node says so", lambda: (site.node(name)["status_code"], site.node(name)["mirror"]) == DEGRADED, WAIT_S
    )


def test_file_written_to_a_volume_survives_a_power_cut_and_appears_on_the_replacement(site: RootsSite) -> None:
    names = [node["name"] for node in site.nodes()]
    name, spare = names
    machine, other = site.machine(name), site.machine(spare)
    site.is_spare(spare, "volume")
    site.becomes(name, "volume")
    assert site.on(machine, "findmnt -n -o FSTYPE /").strip() == "ext4"
    keys = site.node(name)["ssh_host_public_keys"]
    address = site.node(name)["addresses"]
    site.on(machine, "echo kept > /root/kept; cp /proc/sys/kernel/random/boot_id /root/before; sync")
    site.koguma("lab", "power", machine, "cycle")
    site.wait_for("it is up again", lambda: site.has_rebooted(machine), WAIT_S)
    assert site.on(machine, "cat /root/kept").strip() == "kept"
    site.koguma("node", "replace", name, "--wait", "--timeout", str(WAIT_S), timeout_s=WAIT_S + 60)
    assert site.machine(name) == other
    assert site.on(other, "cat /root/kept").strip() == "kept"
    assert site.on(other, "hostname").strip() == name
    assert site.node(name)["ssh_host_public_keys"] == keys
    assert site.node(name)["addresses"] == address
    assert site.node(spare)["maintenance"]
