"""The released `baremetal` command (python-ironicclient) takes two lab machines through their whole life: one whose BMC
speaks IPMI, and one whose BMC speaks Redfish and whose firmware cannot boot from the network: its BMC's virtual media
brings iPXE. Nothing is registered beforehand: the command makes the nodes.

`KOGUMA_TEST_SITE_BAREMETAL` names a state directory that is kept, `KOGUMA_TEST_BAREMETAL_CLI` an environment that has
the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import paramiko
import pytest

from koguma import config as configuration
from koguma.cli.lab import lab_of
from koguma.lab import netns
from koguma.lab.command import run
from koguma.lab.lab import Lab
from koguma.lab.plan import BmcKind, Hardware, Machine
from koguma.lab.ssh import Target, ssh_command
from tests.openstack.released import environment

from .sites import Site, site_of

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, pytest.mark.long]

VERSION = "1.109"
STATE_S = 1500
PASSWORD = "rescue me, please"


class Cli:
    """`baremetal`, as a user types it."""

    def __init__(self, program: Path, url: str) -> None:
        self._argv = [
            str(program),
            "--os-auth-type",
            "none",
            "--os-endpoint",
            url,
            "--os-baremetal-api-version",
            VERSION,
        ]

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._argv, *words], text=True, capture_output=True, check=False, timeout=STATE_S + 60)
        if done.returncode != 0:
            pytest.fail(f"baremetal {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-f", "json"))

    def state(self, node: str) -> str:
        return str(self.json("node", "show", node, "--fields", "provision_state")["provision_state"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # The lab's Koguma reads its settings where everybody's does.
    with site_of("baremetal", Site) as site, mock.patch.dict(os.environ, site.environ):
        yield site


@pytest.fixture(scope="module")
def lab(site: Site) -> Lab:
    """Koguma, its images, and two machines that are off and that it has never heard of."""
    lab_with(1, BmcKind.IPMI)
    lab = lab_with(2, BmcKind.REDFISH)
    lab.koguma_up()
    for command in lab.control_plane.missing_images():
        lab.control_plane.build(command)
    lab.machines_up(power_on=False)
    return lab


def lab_with(nodes: int, bmc: BmcKind) -> Lab:
    """The site's lab with so many machines, the new ones with this BMC."""
    lab = lab_of(configuration.load(None), None, nodes, hardware=Hardware(bmc=bmc, pxe=bmc is BmcKind.IPMI))
    lab.network_up()
    return lab


@pytest.fixture(scope="module")
def cli(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    given = os.environ.get("KOGUMA_TEST_BAREMETAL_CLI")
    python = (
        Path(given) / "bin/python"
        if given
        else environment(tmp_path_factory.mktemp("cli") / "venv", ("python-openstackclient", "python-ironicclient"))
    )
    return Cli(python.with_name("baremetal"), site.url)


def driver_info(lab: Lab, machine: Machine) -> list[str]:
    """What an operator types of the machine's BMC."""
    account = {"username": "admin", "password": "factory"}
    if machine.hardware.bmc is BmcKind.IPMI:
        told = {f"ipmi_{key}": value for key, value in (account | {"address": lab.bmc(machine).address()}).items()}
    else:
        place = {"address": f"https://{lab.bmc(machine).address()}", "system_id": f"/redfish/v1/Systems/{machine.uuid}"}
        told = {f"redfish_{key}": value for key, value in (account | place | {"verify_ca": "False"}).items()}
    return [word for key, value in told.items() for word in ("--driver-info", f"{key}={value}")]


def over_key(lab: Lab, site: Site, name: str, command: str) -> str:
    """What a command says over SSH with the operator's key, from the controller; the host key is the node's own."""
    node = site.node(name)
    target = Target(name, node["addresses"][0].partition("/")[0], tuple(node["ssh_host_public_keys"]))
    known_hosts = lab.plan.run_dir / f"known_hosts.{name}"
    known_hosts.write_text("".join(f"{name} {line.strip()}\n" for line in target.host_keys))
    key = site.state / "secrets" / "operator"
    return run(ssh_command(lab.plan.controller_namespace, target, key, known_hosts, [command]), timeout_s=60)


def over_password(lab: Lab, address: str, command: str) -> str:
    """What a command says over SSH as the user rescue, with the rescue password, from the controller."""
    with netns.inside(lab.plan.controller_namespace):
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            address, username="rescue", password=PASSWORD, look_for_keys=False, allow_agent=False, timeout=30
        )
        try:
            return client.exec_command(command, timeout=30)[1].read().decode()
        finally:
            client.close()


@pytest.mark.parametrize(("number", "kind"), [(1, "ipmi"), (2, "redfish")])
def test_a_machine_lives_its_whole_life_by_the_command(lab: Lab, site: Site, cli: Cli, number: int, kind: str) -> None:
    machine = lab.plan.machines[number - 1]
    # Not the machine's own UUID: who makes a node by hand knows its MAC.
    name, own = f"bm-{kind}", str(uuid.uuid4())
    wait = ("--wait", str(STATE_S))
    told = driver_info(lab, machine)
    if kind == "redfish":
        told += ["--boot-interface", "redfish-virtual-media"]
    cli("node", "create", "--driver", kind, "--uuid", own, "--name", name, "--resource-class", "compute", *told)
    cli("port", "create", machine.nics[0].mac, "--node", own)
    assert cli.state(name) == "enroll"

    cli("node", "manage", name, *wait)
    assert cli.json("node", "show", name, "--fields", "power_state")["power_state"] == "power off"
    cli("node", "provide", name, *wait)
    cli("node", "deploy", name, *wait)
    assert cli.state(name) == "active"
    first = over_key(lab, site, name, "cat /proc/sys/kernel/random/boot_id")
    assert "overlay" in over_key(lab, site, name, "findmnt -no FSTYPE /")

    cli("node", "rebuild", name, *wait)
    second = over_key(lab, site, name, "cat /proc/sys/kernel/random/boot_id")
    assert second not in ("", first)

    cli("node", "rescue", name, "--rescue-password", PASSWORD, *wait)
    assert cli.state(name) == "rescue"
    address = site.node(name)["addresses"][0].partition("/")[0]
    assert over_password(lab, address, "cat /proc/cmdline").count("koguma.mode=rescue") == 1
    assert "rescue" in over_key(lab, site, name, "cat /proc/cmdline"), "by the operator's key"

    cli("node", "unrescue", name, *wait)
    assert "overlay" in over_key(lab, site, name, "findmnt -no FSTYPE /")
    cli("node", "undeploy", name, *wait)
    assert not lab.bmc(machine).power_is_on()
    cli("node", "delete", name)
    assert name not in cli("node", "list")
