"""Koguma as the lab runs it: `koguma up` in the lab's network, its networks, flavor, images, and what it says of nodes.

The lab is a site like any other: it uses the API, and the command line where there is no API, for images.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from koguma.lab.api_client import ApiClient
from koguma.lab.command import PATH, wait_until
from koguma.lab.errors import ApiError, CommandError, LabError
from koguma.lab.plan import MTU, Machine, Plan, Vlan
from koguma.lab.processes import Processes, end, records_of
from koguma.lab.ssh import Target
from koguma.lab.storage import portal

NAME = "koguma"
HEALTH_S = 60
BUILD_S = 1800
STOP_S = 25
"""`koguma up` stops its parts one after the other; what is left after this is killed."""
LABEL = "compute"
FLAVOR: dict[str, Any] = {
    "name": "compute",
    "label": LABEL,
    "root_method": "ram",
    "kernel_args": "console=ttyS0,115200",
    "templates": [{"source": "/etc/nova/nova.conf.tpl", "target": "/etc/nova/nova.conf", "mode": "0640"}],
}
DOMAIN = "lab.koguma"


@dataclass(frozen=True)
class Site:
    """Where this Koguma lives; plain values of its configuration."""

    state_dir: Path
    repository: Path
    nfs_dir: Path
    api: str
    """HOST:PORT."""
    program: Path
    """The `koguma` to run."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Beside the caller's environment: what makes a child read the same configuration."""


class ControlPlane:
    """Koguma's processes, started and stopped; and its API, asked."""

    def __init__(self, plan: Plan, site: Site, processes: Processes) -> None:
        self._plan = plan
        self._site = site
        self._processes = processes
        self.api = ApiClient(site.api)
        self._log = plan.logs_dir / f"{NAME}.log"

    def up(self) -> None:
        """Ensure that `koguma up` runs in the lab's network and its API answers."""
        if self.api.healthy() and self._processes.running(NAME) is None:
            raise LabError(
                f"another Koguma than this lab's answers at {self.api.url}: stop it, or choose another api.listen"
            )
        self._processes.start(
            NAME, [str(self._site.program), "up"], log=self._log, environ=self._environ(), cwd=Path.cwd()
        )

        def answers() -> bool:
            self._processes.require(NAME, self._log)
            return self.api.healthy()

        wait_until(f"Koguma's API answering at {self.api.url}", answers, timeout_s=HEALTH_S, every_s=0.25)

    def stop(self) -> None:
        """Stop `koguma up` if the lab started it, and its PostgreSQL with it."""
        ours = self._processes.recorded(NAME)
        self._processes.stop(NAME, term_s=STOP_S)
        if ours:
            end(records_of(postmasters(self._site.state_dir)), term_s=10, kill_s=5)

    def running(self) -> bool:
        return self._processes.running(NAME) is not None

    def ensure_site(self) -> None:
        """Ensure that the lab's networks, switch and flavor exist. What exists is left as the operator made it."""
        networks = {item.get("name") for item in self.api.networks()}
        for network in networks_of(self._plan):
            if network["name"] not in networks:
                self.api.create("networks", network)
        if self._plan.switch_name not in {item.get("name") for item in self.api.switches()}:
            self.api.create("switches", switch_of(self._plan))
        if FLAVOR["name"] not in {item.get("name") for item in self.api.flavors()}:
            self.api.create("flavors", FLAVOR)

    def missing_images(self) -> list[list[str]]:
        """The `koguma image` commands still to run before a machine can boot, in order."""
        repository = self._site.repository
        image = ["image", "--repo", str(repository)]
        commands = []
        if not (repository / "keys" / "signing.pem").exists():
            commands.append([*image, "init"])
        if not (repository / "boot" / "stage1" / "current").exists():
            commands.append([*image, "build-stage1"])
        if LABEL not in _labels(repository / "boot" / "labels.json"):
            commands.append([*image, "build", str(recipe()), "-b", LABEL])
        return commands

    def build(self, command: Sequence[str]) -> None:
        """Run one of `missing_images`, showing its own progress; CommandError when it fails. One whose caller was ended
        is ended by `lab down`.
        """
        try:
            status = subprocess.run(
                [str(self._site.program), *command],
                stdin=subprocess.DEVNULL,
                timeout=BUILD_S,
                check=False,
                env={**os.environ, **self._environ(), "PATH": PATH, **self._processes.mark},
            ).returncode
        except subprocess.TimeoutExpired:
            raise CommandError(f"`koguma {' '.join(command)}` must end within {BUILD_S} s") from None
        if status != 0:
            raise CommandError(f"`koguma {' '.join(command)}` failed with status {status}")

    def ssh_target(self, machine: Machine) -> Target:
        """Where a machine answers, asked from the API, or read from the boot service's snapshot while there is none."""
        try:
            return self._target_from_api(machine)
        except ApiError:
            return target_from_snapshot(self._site.state_dir / "boot" / "snapshot.json", machine, self._plan)

    def machine_named(self, name: str) -> Machine:
        """A machine by the lab's name, or by the name or UUID Koguma knows it by."""
        if any(machine.name == name for machine in self._plan.machines):
            return self._plan.machine(name)
        try:
            uuids = {str(node.get("name")): str(node.get("uuid")) for node in self.api.nodes()}
        except ApiError:
            uuids = names_in_snapshot(self._site.state_dir / "boot" / "snapshot.json")
        wanted = uuids.get(name, name)
        for machine in self._plan.machines:
            if machine.uuid == wanted:
                return machine
        return self._plan.machine(name)

    def _target_from_api(self, machine: Machine) -> Target:
        node = self.api.node(machine.uuid)
        keys = tuple(str(line) for line in node.get("ssh_host_public_keys") or ())
        return Target(machine.name, _address(node.get("addresses") or (), self._plan), keys)

    def _environ(self) -> dict[str, str]:
        return {**self._site.environ, **lab_environment(self._plan, self._site)}


def lab_environment(plan: Plan, site: Site) -> dict[str, str]:
    """The settings that make a Koguma serve the lab's network."""
    namespace, address = plan.controller_namespace, plan.controller_address
    return {
        "KOGUMA_STATE_DIR": str(site.state_dir),
        "KOGUMA_BOOT_NAMESPACE": namespace,
        "KOGUMA_WORKER_NAMESPACE": namespace,
        "KOGUMA_BOOT_INTERFACE": "prov",
        "KOGUMA_BOOT_LISTEN": "0.0.0.0:8080",  # of the namespace: machines and BMCs are in different networks
        "KOGUMA_BOOT_URL": f"http://{address}:8080",
        "KOGUMA_BOOT_MEDIA_URL": f"http://{plan.controller_bmc_address}:8080",
        "KOGUMA_BOOT_NFS": f"{address}:/koguma",
        "KOGUMA_NODES_DOMAIN": DOMAIN,
        "KOGUMA_VOLUMES_DRIVER": "tgt",
        "KOGUMA_VOLUMES_PORTAL": portal(plan),
        "KOGUMA_VOLUMES_SIZE_GIB": "4",
    }


def networks_of(plan: Plan) -> list[dict[str, Any]]:
    """The lab's networks as the API takes them."""
    first, last = plan.discovery
    return [
        {
            "name": "provisioning",
            "purpose": "provisioning",
            "vlan": Vlan.PROVISIONING.value,
            "subnet": str(plan.provisioning),
            "gateway": str(plan.controller_address),
            "discovery_start": str(first),
            "discovery_end": str(last),
            "domain": DOMAIN,
            "mtu": MTU,
        },
        {"name": "bmc", "purpose": "bmc", "vlan": Vlan.BMC.value, "subnet": str(plan.bmc)},
        {"name": "tenant", "purpose": "tenant", "vlan": Vlan.TENANT.value, "subnet": str(plan.tenant)},
    ]


def switch_of(plan: Plan) -> dict[str, Any]:
    """The lab's switch as the API takes it; its name is what LLDP calls it."""
    return {"name": plan.switch_name, "driver": "ovs", "address": f"unix:{plan.run_dir}/ovsdb.sock"}


def recipe() -> Path:
    """The compute image's recipe: in the working directory, or in the checkout this program runs from."""
    place = Path("recipes") / f"{LABEL}.toml"
    here = (Path.cwd() / place, Path(__file__).resolve().parents[3] / place)
    for path in here:
        if path.is_file():
            return path
    raise LabError(
        f"the recipe of the compute image is not there: looked for {' and '.join(str(path) for path in here)}"
    )


def postmasters(state_dir: Path) -> list[int]:
    """The PostgreSQL servers whose data directory is below this state directory and which run now."""
    found = []
    for lock in [*state_dir.glob("*/postmaster.pid"), *state_dir.glob("*/*/postmaster.pid")]:
        try:
            pid = int(lock.read_text(encoding="utf-8").split("\n", 1)[0])
            if Path(f"/proc/{pid}/cwd").resolve() == lock.parent.resolve():
                found.append(pid)
        except (OSError, ValueError):
            continue
    return found


def target_from_snapshot(snapshot: Path, machine: Machine, plan: Plan) -> Target:
    """LabError when the snapshot does not know the machine."""
    for node in _snapshot_nodes(snapshot):
        if node.get("uuid") == machine.uuid:
            keys = (node.get("detail") or {}).get("ssh_host_keys") or {}
            lines = tuple(str(text) for name, text in keys.items() if str(name).endswith(".pub"))
            addresses = [str(port.get("address")) for port in node.get("ports", []) if port.get("boot")]
            return Target(machine.name, _address(addresses, plan), lines)
    raise LabError(f"neither the API nor the boot service's snapshot knows {machine.name} ({snapshot})")


def names_in_snapshot(snapshot: Path) -> dict[str, str]:
    return {str(node.get("name")): str(node.get("uuid")) for node in _snapshot_nodes(snapshot)}


def _snapshot_nodes(snapshot: Path) -> list[dict[str, Any]]:
    try:
        nodes = json.loads(snapshot.read_text(encoding="utf-8"))["nodes"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [node for node in nodes if isinstance(node, dict)]


def _address(texts: Iterable[str], plan: Plan) -> str:
    """The one of these addresses that is on the provisioning network."""
    for text in texts:
        try:
            address = ip_interface(str(text)).ip
        except ValueError:
            continue
        if address in plan.provisioning:
            return str(address)
    raise LabError(f"the node has no address on {plan.provisioning} yet")


def _labels(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
