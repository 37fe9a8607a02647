"""The main job on real machines: commit, register, boot into memory, join, forget."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .sites import Site, send_signal

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow]


def test_unknown_machines_become_active_by_themselves(site: Site) -> None:
    nodes = site.json("node", "list")
    assert [node["provision_state"] for node in nodes] == ["active"] * 3
    assert [node["power_state"] for node in nodes] == ["power on"] * 3
    assert len({node["uuid"] for node in nodes}) == 3
    labels = json.loads((site.state / "images/boot/labels.json").read_text())["labels"]
    assert {node["commit"] for node in nodes} == {labels["compute"]["commit"]}
    firmware = {site.json("node", "show", node["name"])["firmware"] for node in nodes}
    assert firmware == {"bios", "uefi"}


def test_registration_found_neighbours_and_bmc(site: Site) -> None:
    for node in site.nodes():
        shown = site.json("node", "show", node["name"])
        neighbours = {port["lldp"]["port"] for port in shown["ports"] if port["lldp"]}
        assert f"{site.machine(node['name'])}-eth0" in neighbours
        assert re.fullmatch(r"10\.77\.8\.\d+", shown["bmc_address"])


def test_root_is_an_overlay_over_memory_and_configuration_is_rendered(site: Site) -> None:
    nodes = site.nodes()
    name = nodes[0]["name"]
    address = nodes[0]["addresses"][0].partition("/")[0]
    assert site.ssh(name, "findmnt -no FSTYPE /").stdout.strip() == "overlay"
    disks = json.loads(site.ssh(name, "lsblk -J -o NAME,TYPE").stdout or '{"blockdevices": []}')["blockdevices"]
    assert {disk["type"] for disk in disks} <= {"loop"}
    # The loop device's file is the only lower layer, and it lies in a tmpfs.
    backing = site.ssh(name, "losetup -nO BACK-FILE").stdout.split()
    assert len(backing) == 1
    assert site.ssh(name, "hostname").stdout.strip() == name
    assert f"{address}/24" in site.ssh(name, "ip -br -4 address").stdout
    nova = site.ssh(name, "cat /etc/nova/nova.conf").stdout
    assert f"my_ip = {address}" in nova
    assert f"host = {name}" in nova
    hosts = site.wait_for(
        "the first node knows the others", lambda: _knows_all(site.ssh(name, "cat /etc/hosts").stdout, nodes), 120
    )
    assert hosts
    assert site.ssh(name, "stat -c %a /etc/nova/nova.conf").stdout.strip() == "640"
    assert "koguma.token" not in site.ssh(name, "cat /proc/cmdline").stdout


def _knows_all(hosts: str, nodes: list[dict[str, Any]]) -> bool:
    words = {tuple(line.split()[:2]) for line in hosts.splitlines()}
    names = {name for line in hosts.splitlines() for name in line.split()[1:]}
    addresses = {word[0] for word in words if word}
    return all(node["name"] in names and node["addresses"][0].partition("/")[0] in addresses for node in nodes)


def test_reboot_forgets_everything(site: Site) -> None:
    name = site.nodes()[0]["name"]
    site.ssh(name, "touch /root/x /etc/y && systemctl mask ssh --quiet")
    boot = site.reboot(name)
    assert boot["phases"]
    assert site.node(name)["provision_state"] == "active"
    assert site.ssh(name, "ls /root/x /etc/y", check=False).stdout == ""


def test_boot_record_times_every_phase(site: Site) -> None:
    boot = site.boots(site.nodes()[0]["name"])[0]
    names = [phase["name"] for phase in boot["phases"]]
    wanted = ["ipxe", "stage1", "profile", "verify", "kexec", "root", "render", "userspace"]
    assert [name for name in names if name in wanted] == wanted
    assert all(phase["duration_s"] >= 0 and phase["outcome"] == "succeeded" for phase in boot["phases"])
    assert 0 < boot["duration_s"] < 600
    assert sum(phase["duration_s"] for phase in boot["phases"]) == pytest.approx(boot["duration_s"], rel=0.25, abs=3)


@pytest.mark.long
def test_maintenance_cycle(site: Site) -> None:
    """Branch, edit, commit, boot once, look at the difference, deliver to all, and back."""
    names = [node["name"] for node in site.nodes()]
    old = site.json("image", "log", "compute")[0]["commit"]
    site.koguma("image", "branch", "compute-next", "compute")
    site.koguma("image", "edit", "compute-next", "--", "apt-get", "install", "-y", "tree")
    new = site.koguma("image", "commit", "-b", "compute-next", "-m", "Add tree").stdout.split()[-1]
    labels = json.loads((site.state / "images/boot/labels.json").read_text())["labels"]
    assert labels["compute-next"]["commit"].startswith(new)
    assert labels["compute"]["commit"] == old

    before = site.boots(names[0])[0]["id"]
    site.koguma("node", "boot", names[0], "--label", "compute-next", "--once")
    assert site.wait_for_boot(names[0], before)["label"] == "compute-next"
    assert "|-- etc\n" in site.ssh(names[0], "tree -d -L 1 /").stdout
    difference = site.koguma("image", "diff", "compute", "compute-next").stdout
    assert re.search(r"\btree\b", difference)
    assert "usr/bin/tree" in difference
    assert site.reboot(names[0])["label"] == "compute", "a label for one boot is for one boot"

    for label, commit in (("compute-next", labels["compute-next"]["commit"]), ("compute", old)):
        marks = {name: site.boots(name)[0]["id"] for name in names}
        site.koguma("flavor", "set", "compute", "--label", label)
        for name in names:
            site.koguma("node", "power", name, "reboot")
        for name in names:
            assert site.wait_for_boot(name, marks[name], timeout_s=600)["commit"] == commit
        assert {node["commit"] for node in site.nodes()} == {commit}


@pytest.fixture
def artifact(site: Site) -> Path:
    labels = json.loads((site.state / "images/boot/labels.json").read_text())["labels"]
    return site.state / "images/boot/artifacts" / str(labels["compute"]["commit"])


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _other_key(data: bytes) -> bytes:
    """A signature of the right form by a key that nobody trusts."""
    key_id, _, signature = data.decode().partition(" ")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    return f"{key_id} {flipped}".encode()


Tampered = tuple[str, Callable[[bytes], bytes], list[str]]
"""A file of an artifact, what is done to it, and words of the reason it is refused for."""
SIGNED: list[Tampered] = [
    ("root.squashfs", _flip, ["root.squashfs", "sha-256"]),
    ("manifest.sig", _other_key, ["manifest", "sign"]),
]
LOADED: list[Tampered] = [
    ("kernel", _flip, ["kernel", "sha-256"]),
    ("initrd", lambda data: data[: len(data) // 3], ["initrd"]),
]


@pytest.mark.parametrize(
    "tampered", [pytest.param(SIGNED, id="signed"), pytest.param(LOADED, id="loaded", marks=pytest.mark.long)]
)
def test_tampered_artifacts_are_refused_with_their_reasons(
    site: Site, artifact: Path, tampered: list[Tampered]
) -> None:
    """One file after the other: a machine that refused one reboots by itself and meets the next."""
    name = site.nodes()[1]["name"]
    mark = site.boots(name)[0]["id"]
    spoilt: dict[Path, bytes] = {}
    try:
        for file, change, words in tampered:
            path = artifact / file
            good = path.read_bytes()
            before, spoilt = spoilt, {**spoilt, path: good}
            # There is no moment at which all is well: the machine would boot.
            _replace(path, change(good))
            _restore(before)
            spoilt = {path: good}
            if not before:
                site.koguma("node", "power", name, "cycle")
            failed = site.wait_for(f"a boot failed over {file}", partial(_failed_over, site, name, mark, words))
            assert failed["outcome"] != "succeeded"
            assert _failure(failed) in str(site.node(name)["last_error"])
            mark = failed["id"]
    finally:
        _restore(spoilt)
    assert site.wait_for_boot(name, mark, timeout_s=400)["label"] == "compute"


def _failed_over(site: Site, name: str, mark: str, words: list[str]) -> dict[str, Any] | None:
    """A boot after the one marked that failed for a reason with all these words."""
    boots = _boots_after(site, name, mark)
    return next((boot for boot in boots if all(word in _failure(boot).lower() for word in words)), None)


def _restore(spoilt: dict[Path, bytes]) -> None:
    for path, good in spoilt.items():
        _replace(path, good)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.test")
    temporary.write_bytes(data)
    temporary.replace(path)


def _boots_after(site: Site, name: str, mark: str) -> list[dict[str, Any]]:
    boots = site.boots(name)
    return boots[: next(number for number, boot in enumerate(boots) if boot["id"] == mark)]


def _failure(boot: dict[str, Any]) -> str:
    return next((phase["reason"] for phase in boot["phases"] if phase["outcome"] == "failed" and phase["reason"]), "")


@pytest.mark.long
def test_nfs_root_boots(site: Site) -> None:
    name = site.nodes()[1]["name"]
    site.koguma("flavor", "create", "compute-nfs", "--label", "compute", "--root-method", "nfs")
    before = site.boots(name)[0]["id"]
    try:
        site.koguma("node", "set-flavor", name, "compute-nfs")
        site.koguma("node", "power", name, "reboot")
        site.wait_for_boot(name, before, timeout_s=600)
        assert site.ssh(name, "findmnt -no FSTYPE /").stdout.strip() == "overlay"
        assert "nfs" not in site.ssh(name, "cat /proc/mounts").stdout
    finally:
        before = site.boots(name)[0]["id"]
        site.koguma("node", "set-flavor", name, "compute")
        site.koguma("node", "power", name, "reboot")
        site.wait_for_boot(name, before, timeout_s=600)


@pytest.mark.long
def test_uefi_machine_that_gets_nothing_over_tftp_boots_over_http(site: Site) -> None:
    name = next(node["name"] for node in site.nodes() if site.json("node", "show", node["name"])["firmware"] == "uefi")
    bridge = f"unix:{site.state}/lab/run/br0.mgmt"
    before = site.boots(name)[0]["id"]
    subprocess.run(["ovs-ofctl", "add-flow", bridge, "priority=100,udp,tp_dst=69,actions=drop"], check=True)
    try:
        site.koguma("node", "power", name, "reboot")
        site.wait_for_boot(name, before, timeout_s=600)
        assert "UEFI HTTPv4" in site.console(name)
    finally:
        subprocess.run(["ovs-ofctl", "del-flows", bridge, "udp,tp_dst=69"], check=True)


@pytest.mark.long
def test_machine_boots_without_kexec(site: Site) -> None:
    name = site.nodes()[0]["name"]
    before = site.boots(name)[0]["id"]
    try:
        site.koguma("node", "set", name, "--no-kexec")
        site.wait_until_boot_service_knows(name, kexec=False)
        site.koguma("node", "power", name, "reboot")
        boot = site.wait_for_boot(name, before)
        assert "stage1" not in [phase["name"] for phase in boot["phases"]]
    finally:
        site.koguma("node", "set", name, "--kexec")
        site.wait_until_boot_service_knows(name, kexec=True)


@pytest.mark.long
def test_boot_goes_on_without_control_plane_and_its_record_is_whole(site: Site) -> None:
    name = site.nodes()[0]["name"]
    machine = site.machine(name)
    before = site.boots(name)[0]["id"]
    up = site.processes("koguma up")
    assert up
    # Everything but the boot service is stopped for good: a supervisor that may not run cannot bring it back.
    send_signal(up, "STOP")
    try:
        for word in ("koguma server", "koguma worker"):
            assert site.kill(word) > 0, word
        site.kill_database()
        console = site.state / "lab" / "consoles" / f"{machine}.log"
        start = len(console.read_bytes())
        site.koguma("lab", "ssh", machine, "--", "systemctl reboot --no-wall", check=False)
        site_wait = time.monotonic() + 300
        while b"login:" not in console.read_bytes()[start:]:
            assert time.monotonic() < site_wait, "the node did not come back with the control plane away"
            time.sleep(1)
        time.sleep(5)
    finally:
        send_signal(up, "CONT")
    site.wait_for("the API answers again", site.nodes, 120)
    boot = site.wait_for_boot(name, before, timeout_s=120)
    wanted = {"ipxe", "stage1", "profile", "verify", "kexec", "root", "render", "userspace"}
    assert wanted <= {phase["name"] for phase in boot["phases"]}
    assert site.node(name)["provision_state"] == "active"
