"""Two tenants in the lab: their nodes are deployed at once, each reaches its own network, and nothing else.

Judged by real packets: an observer stands in each VLAN and writes down whose frames it sees, and each node, as root,
tries everything it can to get elsewhere: addresses of other networks on both of its NICs, and tags of other VLANs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from koguma.lab import netns

from .sites import Site

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, pytest.mark.long]

PROVISIONING, BMC = 100, 200
OBSERVER = 250
"""The last part of an observer's address."""

SNIFF = """
import socket, sys
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind((sys.argv[1], 0))
seen = set()
while True:
    mac = frames.recv(2048)[6:12].hex(":")
    if mac not in seen:
        seen.add(mac)
        print(mac, flush=True)
"""


@dataclass
class Vlan:
    """A VLAN of the lab with an observer in it: a namespace on a switch port of its own."""

    name: str
    tag: int
    subnet: str
    subnet6: str = ""
    namespace: str = ""
    link: str = "watch"
    log: Path = Path()
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"{self.subnet}.{OBSERVER}"

    def watch(self, directory: Path) -> None:
        """From now on; what was seen before is forgotten."""
        self.stop()
        self.log = directory / f"{self.name}.macs"
        with self.log.open("wb") as log:
            words = netns.argv_in(self.namespace, [sys.executable, "-c", SNIFF, self.link])
            self.process = subprocess.Popen(words, stdout=log)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def seen(self) -> set[str]:
        return set(self.log.read_text().split())


class Tenants:
    """Two nodes, the networks red and blue, and who watches."""

    def __init__(self, site: Site, names: list[str], directory: Path) -> None:
        self.site = site
        self.directory = directory
        self.red = Vlan("red", 301, "10.91.1", "fd4b:6f67:301:")
        self.blue = Vlan("blue", 302, "10.91.2", "fd4b:6f67:302:")
        self.provisioning = Vlan("prov", PROVISIONING, "10.77.0")
        self.bmc = Vlan("bmc", BMC, "10.77.8")
        self.vlans = [self.red, self.blue, self.provisioning, self.bmc]
        self.of = dict(zip(names, (self.red, self.blue), strict=True))
        self.macs = {name: {port["mac"] for port in site.node(name)["ports"]} for name in names}

    def up(self) -> None:
        lab = self.site.lab
        for vlan in self.vlans:
            vlan.namespace, port = f"{lab}-watch-{vlan.name}", f"watch-{vlan.name}"
            netns.delete(vlan.namespace)
            netns.create(vlan.namespace)
            netns.add_veth(f"{lab}-sw", port, vlan.namespace, vlan.link)
            self.vsctl("--may-exist", "add-port", "br0", port, "--", "set", "port", port, f"tag={vlan.tag}")
            netns.set_address(vlan.namespace, vlan.link, f"{vlan.address}/24")
            if vlan.subnet6:
                netns.set_ipv6_address(vlan.namespace, vlan.link, f"{vlan.subnet6}:{OBSERVER}/64")
            vlan.watch(self.directory)

    def down(self) -> None:
        for vlan in self.vlans:
            vlan.stop()
            self.vsctl("--if-exists", "del-port", "br0", f"watch-{vlan.name}")
            netns.delete(vlan.namespace)

    def vsctl(self, *words: str) -> str:
        database = f"--db=unix:{self.site.state}/lab/run/ovsdb.sock"
        return subprocess.run(["ovs-vsctl", database, *words], check=True, capture_output=True, text=True).stdout

    def tag(self, name: str, nic: int = 0) -> int:
        return int(self.vsctl("get", "port", f"{self.site.machine(name)}-eth{nic}", "tag"))

    def ssh(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Over the tenant's own network, as its owner does."""
        vlan = self.of[name]
        options = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "BatchMode=yes", "ConnectTimeout=5"]
        words = [word for option in options for word in ("-o", option)]
        key = ["-i", str(self.site.state / "secrets/operator"), "-o", "LogLevel=ERROR"]
        target = f"root@{self.address(name)}"
        return subprocess.run(
            netns.argv_in(vlan.namespace, ["ssh", *words, *key, target, command]),
            capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip

    def address(self, name: str, *, family6: bool = False) -> str:
        given = {item["address"] for item in self.site.node(name)["vlan_addresses"]}
        return next(address for address in given if (":" in address) == family6)

    def answers(self, name: str) -> bool:
        return self.ssh(name, "true").returncode == 0


@pytest.fixture
def tenants(site: Site, tmp_path: Path) -> Iterator[Tenants]:
    names = [node["name"] for node in site.nodes()][:2]
    made = Tenants(site, names, tmp_path)
    for vlan in (made.red, made.blue):
        more = ["--more-subnet", f"{vlan.subnet6}:/64"]
        words = ["--purpose", "tenant", "--vlan", str(vlan.tag), "--subnet", f"{vlan.subnet}.0/24"]
        site.koguma("network", "create", vlan.name, *words, "--reserve", vlan.address, *more)
    for name in names:
        site.koguma("node", "undeploy", name, "--wait")
        site.koguma("node", "set", name, "--network", made.of[name].name)
    made.up()
    try:
        yield made
    finally:
        made.down()
        for name in names:
            if site.node(name)["provision_state"] != "available":
                site.koguma("node", "undeploy", name, "--wait", check=False)
            site.koguma("node", "set", name, "--network", "", check=False)
            site.koguma("node", "deploy", name, "--wait", check=False)
        for vlan in (made.red, made.blue):
            site.koguma("network", "delete", vlan.name, check=False)


def test_two_tenants_deployed_at_once_reach_their_own_network_and_nothing_else(tenants: Tenants) -> None:
    site = tenants.site
    _deploy_both_and_see_them_in_provisioning_only(tenants)
    for name, vlan in tenants.of.items():
        assert tenants.tag(name) == vlan.tag
        site.wait_for(f"{name} answers in {vlan.name}", lambda name=name: tenants.answers(name), 60)
    for vlan in tenants.vlans:
        vlan.watch(tenants.directory)  # whoever is seen from here on was not seen because it booted
    for name, vlan in tenants.of.items():
        own = tenants.ssh(name, f"ping -c 2 -W 3 {vlan.address} && ping -6 -c 2 -W 3 {vlan.subnet6}:{OBSERVER}")
        assert own.returncode == 0, own.stdout + own.stderr
        assert tenants.ssh(name, "ip -br address show to 10.77.0.0/16").stdout.strip() == ""
        tried = tenants.ssh(name, _escape(tenants, name))
        assert tried.returncode == 0, tried.stdout + tried.stderr
        answers = json.loads(tried.stdout.splitlines()[-1])
        assert len(answers) == 2 * 2 * 4, tried.stdout + tried.stderr  # NICs, tagged or not, destinations
        assert [way for way, answered in answers.items() if answered] == []
        assert tenants.answers(name), "it still reaches its own network after that"
    time.sleep(1)
    for vlan in tenants.vlans:
        expected = {mac for name, own in tenants.of.items() if own is vlan for mac in tenants.macs[name]}
        strangers = {mac for macs in tenants.macs.values() for mac in macs} - expected
        assert vlan.seen() & strangers == set(), f"frames of another's node in {vlan.name}"
    assert tenants.red.seen() & tenants.macs[next(iter(tenants.of))], "the observer sees who is there"
    _undeploy_both_and_see_them_back(tenants)


def test_a_tenants_node_that_reboots_comes_back_unattended(tenants: Tenants) -> None:
    site = tenants.site
    name, other = tenants.of
    for one in (name, other):
        site.koguma("node", "deploy", one)
    for one in (name, other):
        site.wait_for(f"{one} is active", lambda one=one: site.node(one)["provision_state"] == "active", 900)
    for one in (name, other):
        site.wait_for(f"{one} answers", lambda one=one: tenants.answers(one), 60)
    marks = {one: site.boots(one)[0]["id"] for one in (name, other)}
    site.koguma("node", "power", name, "reboot")  # Koguma's own
    tenants.ssh(other, "systemctl reboot --no-wall")  # the tenant's
    for one, vlan in tenants.of.items():
        site.wait_for_boot(one, marks[one], timeout_s=900)
        site.wait_for(f"{one} is in {vlan.name} again", lambda one=one, vlan=vlan: tenants.tag(one) == vlan.tag, 60)
        site.wait_for(f"{one} answers again", lambda one=one: tenants.answers(one), 60)


def _deploy_both_and_see_them_in_provisioning_only(tenants: Tenants) -> None:
    site = tenants.site
    for name in tenants.of:
        site.koguma("node", "deploy", name)
    tags: dict[str, list[tuple[str, int]]] = {name: [] for name in tenants.of}
    deadline = time.monotonic() + 900
    waiting = set(tenants.of)
    while waiting:
        assert time.monotonic() < deadline, [site.node(name) for name in waiting]
        for name, vlan in tenants.of.items():
            # Read in this order: a tag seen before the state cannot be of a later state.
            tag, seen = tenants.tag(name), vlan.seen() & tenants.macs[name]
            state = site.node(name)["provision_state"]
            tags[name].append((state, tag))
            if state == "wait call-back":
                assert (tag, seen) == (PROVISIONING, set()), f"{name} was elsewhere while it booted"
            if state == "active":
                waiting.discard(name)
        time.sleep(0.5)
    for name, vlan in tenants.of.items():
        assert ("wait call-back", PROVISIONING) in tags[name]
        assert {tag for _, tag in tags[name]} <= {PROVISIONING, vlan.tag}
    assert tenants.macs[next(iter(tenants.of))] & tenants.provisioning.seen(), "it booted from provisioning"


def _escape(tenants: Tenants, name: str) -> str:
    """A program for the node: from each NIC, untagged and tagged, ask for who is in each other network by ARP."""
    targets: list[tuple[int, str, str]] = [
        (vlan.tag, f"{vlan.subnet}.{OBSERVER}", f"{vlan.subnet}.177/24")
        for vlan in tenants.vlans
        if vlan is not tenants.of[name]
    ]
    targets.append((BMC, str(site_bmc(tenants.site, name)), "10.77.8.178/24"))
    return f"""python3 - <<'EOF'
import glob, json, subprocess
def run(*words):
    return subprocess.run(words, capture_output=True).returncode
run("modprobe", "8021q")
answers = {{}}
for nic in sorted(path.split("/")[4] for path in glob.glob("/sys/class/net/*/device")):
    run("ip", "link", "set", nic, "up")
    for tag, target, own in {targets!r}:
        for tagged in (False, True):
            link = nic
            if tagged:
                link = f"{{nic}}.{{tag}}"
                assert run("ip", "link", "add", "link", nic, "name", link, "type", "vlan", "id", str(tag)) == 0
                run("ip", "link", "set", link, "up")
            assert run("ip", "address", "add", own, "dev", link) == 0
            answers[f"{{target}} on {{link}}"] = run("ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", link, target) == 0
            run("ip", "address", "del", own, "dev", link)
            if tagged:
                run("ip", "link", "del", link)
print(json.dumps(answers))
EOF"""


def site_bmc(site: Site, name: str) -> Any:
    return site.json("node", "show", name)["bmc_address"]


def _undeploy_both_and_see_them_back(tenants: Tenants) -> None:
    site = tenants.site
    for name in tenants.of:
        site.koguma("node", "undeploy", name)
    for name, vlan in tenants.of.items():
        site.wait_for(f"{name} is available", lambda name=name: site.node(name)["provision_state"] == "available", 300)
        assert (tenants.tag(name), site.node(name)["networks"]) == (PROVISIONING, [])
        held = site.json("network", "addresses", vlan.name)["given"]
        assert [item for item in held if item["node"] == name] == []
    (switch,) = site.json("switch", "list")
    ports = site.json("switch", "ports", switch["name"])
    with contextlib.suppress(KeyError):
        assert {item["network"] for item in ports} <= {"provisioning", "parking"}
