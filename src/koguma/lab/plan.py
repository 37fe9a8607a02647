"""What a lab consists of: names, addresses, MACs, paths. Pure: nothing here touches the machine.

A plan is made from a name, a directory and the machines asked for; everything else follows from it, so that two runs,
and two programs, agree without talking to each other.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from koguma.lab.errors import NoSuchNodeError, PlanError

NAME = re.compile(r"[a-z][a-z0-9]{0,5}")
SOCKET_PATH_MAX = 107
"""Linux allows 108 bytes for the path of a unix socket, the final zero included."""
LONGEST_SOCKET = "run/ovs-vswitchd.ctl"
FIRST_BMC_HOST = 11
NODES_MAX = 99
MTU = 9000
"""Of every port of the switch. To an emulated machine a packet costs more than its bytes do."""
UUID_SPACE = uuid.UUID("6e2c4b0e-6f0c-5d0f-9d3a-6b6f67756d61")
"""Version-5 UUIDs of lab machines are made in this space, so that a machine keeps its UUID for ever."""


class Firmware(Enum):
    """What a machine starts with."""

    BIOS = "bios"  # SeaBIOS; the network card's own iPXE ROM is its PXE
    UEFI = "uefi"  # OVMF; its PXE loads ipxe.efi over TFTP


class BmcKind(Enum):
    """What a machine's BMC speaks."""

    IPMI = "ipmi"  # ipmi_sim, with a KCS interface inside the machine
    REDFISH = "redfish"  # sushy-tools' emulator over HTTPS; the machine itself cannot reach it


class Vlan(Enum):
    """The VLANs of the lab's switch and their tags."""

    PROVISIONING = 100
    BMC = 200
    TENANT = 300


CPUS_MAX = 2
DISKS_MAX = 4
"""Of a machine that nobody said anything of: with two, drivers, DHCP and Python of a boot run beside each other."""


def fair_cpus(machines: int, cores: int) -> int:
    """How many processors each machine of a host with so many cores gets: all of them together no more than the host,
    one at least. A guest's processor that waits for another of the same guest, which the host does not run just then,
    wastes a core: three machines of two processors boot in 114 s on two cores, of one in 76 s.
    """
    return max(1, min(CPUS_MAX, cores // machines))


@dataclass(frozen=True)
class Hardware:
    """How a machine is built."""

    firmware: Firmware = Firmware.BIOS
    cpus: int = CPUS_MAX
    memory_mib: int = 2560
    disk_gib: int = 0
    """Of each disk; 0: no disk at all."""
    bmc: BmcKind = BmcKind.IPMI
    pxe: bool = True
    """Whether the firmware can boot from the network; without it, the BMC's virtual media must bring iPXE."""
    disks: int = 1

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.memory_mib < 64 or self.disk_gib < 0:
            raise PlanError(f"a machine needs a processor and 64 MiB of memory at least, got {self}")
        if not 1 <= self.disks <= DISKS_MAX:
            raise PlanError(f"a machine has 1 to {DISKS_MAX} disks, got {self.disks}")
        if not self.pxe and self.bmc is not BmcKind.REDFISH:
            raise PlanError("a machine that cannot boot from the network needs a BMC with virtual media (redfish)")


@dataclass(frozen=True)
class Nic:
    """One network card of a machine and the switch port it is cabled to."""

    name: str
    mac: str
    vlan: Vlan
    switch_port: str


@dataclass(frozen=True)
class Machine:
    """One chassis: a machine, its BMC, and where both keep their files."""

    lab: str
    index: int
    hardware: Hardware
    home: Path
    bmc_network: IPv4Network

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def namespace(self) -> str:
        return f"{self.lab}-{self.name}"

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(UUID_SPACE, f"{self.lab}/{self.name}"))

    @property
    def serial(self) -> str:
        return f"KGM-{self.lab.upper()}-{self.index:04d}"

    @property
    def nics(self) -> tuple[Nic, ...]:
        """The first one boots, on the provisioning VLAN; the second is the tenants'."""
        return tuple(
            Nic(f"eth{number}", mac(self.lab, self.name, f"eth{number}"), vlan, f"{self.name}-eth{number}")
            for number, vlan in enumerate((Vlan.PROVISIONING, Vlan.TENANT))
        )

    @property
    def bmc_mac(self) -> str:
        return mac(self.lab, self.name, "bmc")

    @property
    def bmc_port(self) -> str:
        return f"{self.name}-bmc"

    @property
    def bmc_address(self) -> IPv4Address:
        """The address the BMC leaves the factory with; it may have been given another one in-band since."""
        return self.bmc_network[FIRST_BMC_HOST - 1 + self.index]

    @property
    def bmc_dir(self) -> Path:
        return self.home / "bmc" / self.name

    @property
    def machine_dir(self) -> Path:
        return self.home / "machines" / self.name

    @property
    def console_socket(self) -> Path:
        return self.home / "run" / f"{self.name}.console"

    @property
    def console_log(self) -> Path:
        return self.home / "consoles" / f"{self.name}.log"

    @property
    def qmp_socket(self) -> Path:
        return self.home / "run" / f"{self.name}.qmp"


@dataclass(frozen=True)
class Plan:
    """A whole lab."""

    name: str
    home: Path
    """`<state_dir>/lab`."""
    hardware: tuple[Hardware, ...] = ()
    """One entry per machine: node1, node2, …"""
    provisioning: IPv4Network = field(default=IPv4Network("10.77.0.0/24"))
    bmc: IPv4Network = field(default=IPv4Network("10.77.8.0/24"))
    tenant: IPv4Network = field(default=IPv4Network("10.77.16.0/24"))
    """Known to Koguma only: nobody but the tenants has addresses there."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise PlanError(f"a lab's name is one to six lower-case letters or digits, got {self.name!r}")
        if len(self.hardware) > NODES_MAX:
            raise PlanError(f"a lab has at most {NODES_MAX} machines, got {len(self.hardware)}")
        if len(str(self.home / LONGEST_SOCKET).encode()) > SOCKET_PATH_MAX:
            raise PlanError(
                f"the lab's directory must leave room for unix sockets, whose paths are at most {SOCKET_PATH_MAX} "
                f"bytes long, got {self.home}"
            )
        if self.provisioning.overlaps(self.bmc):
            raise PlanError(f"the lab's subnets may not overlap, got {self.provisioning} and {self.bmc}")
        for subnet in (self.provisioning, self.bmc):
            if subnet.prefixlen > 24:
                raise PlanError(f"a subnet of the lab must be /24 or larger, got {subnet}")

    @property
    def switch_namespace(self) -> str:
        return f"{self.name}-sw"

    @property
    def controller_namespace(self) -> str:
        return f"{self.name}-ctl"

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.switch_namespace, self.controller_namespace, *(machine.namespace for machine in self.machines))

    @property
    def switch_name(self) -> str:
        """What the switch calls itself in LLDP."""
        return f"{self.name}-switch"

    @property
    def machines(self) -> tuple[Machine, ...]:
        return tuple(
            Machine(self.name, number, hardware, self.home, self.bmc)
            for number, hardware in enumerate(self.hardware, start=1)
        )

    def machine(self, name: str) -> Machine:
        for machine in self.machines:
            if machine.name == name:
                return machine
        known = ", ".join(machine.name for machine in self.machines) or "none"
        raise NoSuchNodeError(f"the lab {self.name} has no machine {name!r} (machines: {known})")

    @property
    def controller_address(self) -> IPv4Address:
        """The controller on the provisioning VLAN: boot service, gateway, NFS server."""
        return self.provisioning[1]

    @property
    def controller_bmc_address(self) -> IPv4Address:
        return self.bmc[1]

    @property
    def discovery(self) -> tuple[IPv4Address, IPv4Address]:
        """The addresses lent to machines nobody knows."""
        return self.provisioning[200], self.provisioning[250]

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"


def mac(lab: str, machine: str, nic: str) -> str:
    """A stable MAC of QEMU's own range."""
    digest = hashlib.sha256(f"{lab}/{machine}/{nic}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])
