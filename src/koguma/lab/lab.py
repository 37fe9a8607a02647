"""The lab as a whole, layer by layer: network, Koguma, machines. Each layer may be brought up alone, and again.

`up` of anything means: what is there and works stays, what is missing comes back. `down` means: nothing of the lab is
left but its logs, the BMCs' memories and what Koguma stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from koguma.lab import machine as machines
from koguma.lab import netns, packages
from koguma.lab.bmc import LINK, Bmc, PowerAction
from koguma.lab.command import run
from koguma.lab.control_plane import ControlPlane, Site
from koguma.lab.errors import CommandError, ForeignNamespaceError, LabError, ToolsMissingError
from koguma.lab.ipmi_bmc import IpmiBmc
from koguma.lab.nfs import NfsServer
from koguma.lab.plan import MTU, BmcKind, Firmware, Hardware, Machine, Plan, Vlan
from koguma.lab.processes import Processes, end, records_of, write_atomically
from koguma.lab.redfish_bmc import RedfishBmc
from koguma.lab.storage import Storage
from koguma.lab.switch import Switch

CONTROLLER_PORTS = {Vlan.PROVISIONING: ("ctl-prov", "prov"), Vlan.BMC: ("ctl-bmc", "bmc")}
"""VLAN -> the switch's port and the controller's interface."""

CONTROLLER_IPV6 = "fd4b:6f67:756d::1/64"
"""A unique local address on the provisioning VLAN; see docs/operating/network.md."""


class Lab:
    """One lab, with a Koguma of its own where a site is given. Constructing it touches nothing."""

    def __init__(self, plan: Plan, site: Site | None = None) -> None:
        self.plan = recall(plan)
        self.site = site
        self.processes = Processes(plan.home)
        self.switch = Switch(self.plan, self.processes)

    @property
    def control_plane(self) -> ControlPlane:
        return ControlPlane(self.plan, self._site(), self.processes)

    @property
    def nfs(self) -> NfsServer:
        return NfsServer(self.plan, self.processes, self._site().nfs_dir)

    @property
    def storage(self) -> Storage:
        return Storage(self.plan, self.processes, self._site().state_dir / "volumes")

    def network_up(self) -> None:
        """Ensure that the switch, the controller and the cabling of every machine are there."""
        require_tools()
        with self._locked():
            _remember(self.plan)
            self._refuse_foreign_namespaces()
            fresh = not netns.exists(self.plan.switch_namespace)
            for namespace in self.plan.namespaces:
                self._ensure_namespace(namespace)
            self.switch.up(fresh=fresh)
            self._connect_controller()
            for machine in self.plan.machines:
                self._connect_machine(machine)
            self.switch.deepen_queues()

    def koguma_up(self) -> None:
        """Ensure that NFS export and storage are served and that Koguma runs in the lab's network and knows it."""
        with self._locked():
            self.nfs.up()
            self.storage.up()
            self.control_plane.up()
            self.control_plane.ensure_site()

    def machines_up(self, *, power_on: bool = True) -> dict[str, datetime]:
        """Ensure that every machine's BMC answers, and power on the machines that are off; when that was, by name."""
        with self._locked():
            for machine in self.plan.machines:
                machines.prepare(machine, self.plan.switch_namespace, self.processes)
                self.bmc(machine).up()
        powered_on: dict[str, datetime] = {}
        for machine in self.plan.machines if power_on else ():
            if not self.bmc(machine).power_is_on():
                powered_on[machine.name] = datetime.now(UTC)
                self.bmc(machine).power(PowerAction.ON)
        return powered_on

    def bmc(self, machine: Machine | str) -> Bmc:
        one = self.plan.machine(machine) if isinstance(machine, str) else machine
        kind = RedfishBmc if one.hardware.bmc is BmcKind.REDFISH else IpmiBmc
        return kind(one, self.plan.controller_namespace, self.processes)

    def down(self) -> None:
        """End and remove everything. May be repeated, and works on what is left of a lab that was killed."""
        self.plan.home.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self.site is not None:
                self.control_plane.stop()  # first: it would power on again what is powered off here
            self.processes.stop_all()
            for namespace in self._namespaces_there():
                end(records_of(netns.pids(namespace)), term_s=1, kill_s=5)
                netns.delete(namespace)
            _unmount_below(self.plan.home)
            shutil.rmtree(self.plan.run_dir, ignore_errors=True)
            shutil.rmtree(self.plan.home / "ovs", ignore_errors=True)
            (self.plan.home / "lab.json").unlink(missing_ok=True)

    def _site(self) -> Site:
        if self.site is None:
            raise LabError(f"this lab was made without a Koguma ({self.plan.home})")
        return self.site

    def _namespaces_there(self) -> list[str]:
        """The lab's namespaces by name: its plan may have been lost with its directory."""
        if not netns.RUN_DIR.is_dir():
            return []
        names = (path.name for path in netns.RUN_DIR.iterdir())
        return sorted(name for name in names if is_namespace_of(self.plan.name, name))

    def _refuse_foreign_namespaces(self) -> None:
        """A namespace that another lab of this name made, from another directory, must not be shared."""
        known = _read_json(self.plan.home / "namespaces.json")
        for namespace in self._namespaces_there():
            if netns.identity(namespace) != known.get(namespace):
                raise ForeignNamespaceError(
                    f"the namespace {namespace} exists and was not made by this lab ({self.plan.home}): "
                    f"use another lab.name, or remove it with `koguma lab down`"
                )

    def _ensure_namespace(self, namespace: str) -> None:
        if netns.exists(namespace):
            return
        netns.create(namespace)
        path = self.plan.home / "namespaces.json"
        known = {name: number for name, number in _read_json(path).items() if netns.identity(name) == number}
        known[namespace] = netns.identity(namespace)
        write_atomically(path, json.dumps(known) + "\n")

    def _connect_controller(self) -> None:
        plan, namespace = self.plan, self.plan.controller_namespace
        for vlan, (port, link) in CONTROLLER_PORTS.items():
            netns.add_veth(plan.switch_namespace, port, namespace, link, mtu=MTU)
            self.switch.connect(port, vlan)
        netns.set_address(namespace, "prov", f"{plan.controller_address}/{plan.provisioning.prefixlen}")
        # With it, the boot service answers iPXE's router solicitations, which spares every boot a wait of 16 s.
        netns.set_ipv6_address(namespace, "prov", CONTROLLER_IPV6)
        netns.set_address(namespace, "bmc", f"{plan.controller_bmc_address}/{plan.bmc.prefixlen}")

    def _connect_machine(self, machine: Machine) -> None:
        switch = self.plan.switch_namespace
        connected = self.switch.interfaces()
        for nic in machine.nics:
            netns.add_tap(switch, nic.switch_port, mtu=MTU)
            if nic.switch_port not in connected:  # else Koguma may have put it elsewhere since, or into a bond
                self.switch.connect(nic.switch_port, nic.vlan)
        netns.add_veth(switch, machine.bmc_port, machine.namespace, LINK, machine.bmc_mac, mtu=MTU)
        self.switch.connect(machine.bmc_port, Vlan.BMC)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two programs must not build or remove the same lab at once."""
        for directory in (self.plan.home, self.plan.run_dir, self.plan.logs_dir, self.plan.home / "pids"):
            directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.plan.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def is_namespace_of(lab: str, namespace: str) -> bool:
    """Whether a namespace's name is one that a lab of this name would use."""
    prefix, _, rest = namespace.rpartition("-")
    return prefix == lab and (rest in ("sw", "ctl") or (rest.startswith("node") and rest[4:].isdigit()))


def require_tools() -> None:
    """ToolsMissingError that names the packages to install."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and must be run as root")
    absent = packages.missing()
    if absent:
        items = "; ".join(f"{package} (for {', '.join(names)})" for package, names in absent.items())
        raise ToolsMissingError(
            f"the lab needs Debian packages that are not installed: {items}. "
            f"Install them with: apt-get install -y --no-install-recommends {' '.join(absent)}"
        )


def plan_of(name: str, home: Path, nodes: int, *, uefi: bool = False, hardware: Hardware | None = None) -> Plan:
    """A plan of equal machines."""
    one = replace(hardware or Hardware(), firmware=Firmware.UEFI if uefi else Firmware.BIOS)
    return Plan(name, home, (one,) * nodes)


def recall(plan: Plan) -> Plan:
    """The plan with the machines that the lab has already: they stay as they were built, and asked ones are added."""
    machines_built = _read_json(plan.home / "lab.json").get("machines")
    built = tuple(_hardware(values) for values in machines_built) if isinstance(machines_built, list) else ()
    return replace(plan, hardware=built + plan.hardware[len(built) :])


def _remember(plan: Plan) -> None:
    values = {
        "name": plan.name,
        "provisioning": str(plan.provisioning),
        "bmc": str(plan.bmc),
        "machines": [
            {
                "firmware": one.firmware.value,
                "cpus": one.cpus,
                "memory_mib": one.memory_mib,
                "disk_gib": one.disk_gib,
                "disks": one.disks,
                "bmc": one.bmc.value,
                "pxe": one.pxe,
            }
            for one in plan.hardware
        ],
    }
    write_atomically(plan.home / "lab.json", json.dumps(values, indent=1) + "\n")


def _hardware(values: dict[str, object]) -> Hardware:
    return Hardware(
        Firmware(values["firmware"]),
        int(str(values["cpus"])),
        int(str(values["memory_mib"])),
        int(str(values["disk_gib"])),
        BmcKind(values.get("bmc", BmcKind.IPMI.value)),
        pxe=bool(values.get("pxe", True)),
        disks=int(str(values.get("disks", 1))),
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _unmount_below(directory: Path) -> None:
    """Mounts the lab or its processes left below its directory, the innermost first."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in table]
    for point in sorted((point for point in points if Path(point).is_relative_to(directory)), key=len, reverse=True):
        with contextlib.suppress(CommandError):
            run(["umount", "--lazy", point])
