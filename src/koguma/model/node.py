"""Node and what belongs to it: ports, BMC, the label it boots, its last installed commit. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from koguma.model.hardware import effective_interface
from koguma.model.states import PowerState, ProvisionState, StatusCode


@dataclass(frozen=True)
class Port:
    """A NIC; `network` and `address` are what the site has given it."""

    mac: str
    name: str = ""
    driver: str = ""
    boot: bool = False
    link: bool | None = None
    speed_mbps: int | None = None
    lldp: dict[str, Any] | None = None
    network: str | None = None
    address: str | None = None
    uuid: str = ""
    local_link: dict[str, Any] = field(default_factory=dict)
    """Where it is cabled to, as somebody said: Ironic's `local_link_connection`."""


@dataclass(frozen=True)
class Vif:
    """A network attached to this node alone, on one of its ports (by UUID) or on the next that is free."""

    network: str
    port: str | None = None


@dataclass(frozen=True)
class VlanAddress:
    """The node's address of a network that its flavor or an attachment puts it in; one of each family."""

    network: str
    address: str


@dataclass(frozen=True)
class Bmc:
    """How a machine's power is controlled. The password is no part of it: stores hand it out on its own."""

    driver: str
    address: str
    username: str = ""
    mac: str | None = None


@dataclass(frozen=True)
class Once:
    """A label for the next boot only; the id tells one such wish from the next."""

    id: str
    label: str


@dataclass(frozen=True)
class Installed:
    """The last boot that reached `installed`."""

    label: str | None
    commit: str | None
    at: datetime


@dataclass(frozen=True)
class Node:
    """One machine."""

    uuid: str
    name: str
    serial: str = ""
    manufacturer: str = ""
    product: str = ""
    architecture: str = "x86_64"
    firmware: str = "bios"
    provision_state: ProvisionState = ProvisionState.ENROLL
    target_provision_state: ProvisionState | None = None
    goal: ProvisionState | None = None
    """Where the node goes by itself, one verb after the other; any verb of an operator ends that."""
    power_state: PowerState = PowerState.UNKNOWN
    target_power_state: PowerState | None = None
    status_code: StatusCode = StatusCode.REGISTERED
    status: str = ""
    last_error: str | None = None
    maintenance: bool = False
    maintenance_reason: str = ""
    flavor: str | None = None
    label: str | None = None
    """Overrides the flavor's label until it is taken back."""
    once: Once | None = None
    kexec: bool = True
    """False after kexec failed on this machine twice in a row."""
    bmc: Bmc | None = None
    ports: tuple[Port, ...] = ()
    vlan_addresses: tuple[VlanAddress, ...] = ()
    vifs: tuple[Vif, ...] = ()
    """What it is handed over to, instead of its flavor's networks."""
    inventory: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    ssh_host_public_key: str = ""
    installed: Installed | None = None
    memory: dict[str, Any] | None = None
    mirror: dict[str, int] | None = None
    """Of a root on a mirror: how many `disks` it is made for, and how many are `working`."""
    last_seen: datetime | None = None
    registered_at: datetime | None = None
    """When the machine last told about itself; it powers itself off soon after."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 1
    """Counts the changes; the ETag of the API."""
    interfaces: dict[str, str] = field(default_factory=dict)
    """The hardware interfaces somebody chose, by kind; the others are the driver's defaults."""
    driver_info: dict[str, Any] = field(default_factory=dict)
    """What the driver is told besides the BMC's address and account; no secret is part of it."""
    resource_class: str | None = None
    traits: tuple[str, ...] = ()
    instance_uuid: str | None = None
    """Whose machine it is: the tenant's instance or the allocation."""
    protected: bool = False
    """Neither undeployed, rebuilt nor forgotten until that is taken back."""
    retired: bool = False
    """Not offered again after its present use."""
    automated_clean: bool | None = None
    disable_power_off: bool = False
    """Some machines cannot be powered on again from afar."""
    inspection_error: str | None = None
    """Why an inspection rule ended the inspection under way."""
    disk_wish: str | None = None
    """The id of the newest wish to write or to empty the node's disks."""
    disk_image: dict[str, Any] | None = None
    """What the wish is to write instead of a commit: url, sha256, size_bytes, format."""
    disk_used: bool = False
    """Whether its disks may hold something of its use."""

    def interface(self, kind: str) -> str:
        """The hardware interface of this kind (`koguma.model.hardware`)."""
        return effective_interface(self.bmc.driver if self.bmc else "", kind, self.interfaces)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of ports first, so that the first one is where the node is managed."""
        return (
            *(port.address for port in self.ports if port.address),
            *(item.address for item in self.vlan_addresses),
        )

    @property
    def boot_port(self) -> Port | None:
        return next((port for port in self.ports if port.boot), self.ports[0] if self.ports else None)
