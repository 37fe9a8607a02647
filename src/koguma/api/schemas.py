"""What the native API takes: bodies, checked. Unknown keys are refused, because a typing error must not be ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from koguma.model.flavor import RootMethod
from koguma.model.layout import BondMode
from koguma.model.network import Purpose

Line = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Path = Annotated[str, Field(max_length=500, pattern=r"^/[^\x00-\x1f\x7f]*$")]
Size = Annotated[int, Field(ge=0, le=2**60)]


class Body(Schema):
    model_config = ConfigDict(extra="forbid")


class BmcBody(Body):
    driver: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    address: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:/?=_%+\[\]-]+$")]
    """A host, or a URL as the driver takes it."""
    username: Annotated[str, Field(max_length=64)] = ""
    password: Annotated[str, Field(max_length=128)] = ""


class PortBody(Body):
    mac: Annotated[str, Field(max_length=32)]
    name: Annotated[str, Field(max_length=64)] = ""
    boot: bool = False


class NodeCreate(Body):
    uuid: Annotated[str, Field(max_length=64)] | None = None
    name: Annotated[str, Field(max_length=64)] | None = None
    flavor: str | None = None
    serial: Annotated[str, Field(max_length=128)] = ""
    bmc: BmcBody | None = None
    ports: Annotated[list[PortBody], Field(max_length=128)] = []


class NodePatch(Body):
    name: Annotated[str, Field(max_length=64)] | None = None
    flavor: str | None = None
    label: str | None = None
    maintenance: bool | None = None
    maintenance_reason: Line | None = None
    kexec: bool | None = None
    variables: dict[str, Any] | None = None
    networks: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=32)] | None = None
    """What it is handed over to instead of its flavor's networks, from its next deployment on."""
    bmc: BmcBody | None = None


class PowerBody(Body):
    target: Literal["on", "off", "soft off", "cycle", "reboot"]


class ProvisionBody(Body):
    target: str
    rescue_password: Annotated[str, Field(min_length=1, max_length=72)] | None = None
    """For the user `rescue`, beside the operator's keys."""


class ReplacementBody(Body):
    with_node: Annotated[str, Field(max_length=255)] | None = None
    """Its name or UUID; otherwise any spare of the node's flavor."""


class BootLabelBody(Body):
    label: Annotated[str, Field(max_length=200)] | None
    once: bool = False
    reboot: bool = True


class TemplateBody(Body):
    source: Path
    target: Path
    mode: Annotated[str, Field(pattern=r"^[0-7]{3,4}$")] = "0644"
    reload: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9@._:-]+$")] | None = None


InterfaceName = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[A-Za-z][A-Za-z0-9._-]*$")]
"""As Linux allows; `koguma.model.layout` has the other rules."""


class BondBody(Body):
    name: InterfaceName
    mode: BondMode
    interfaces: Annotated[list[InterfaceName], Field(min_length=1, max_length=32)]


class VlanBody(Body):
    network: Annotated[str, Field(max_length=63)]
    interface: InterfaceName


class AccessBody(Body):
    network: Annotated[str, Field(max_length=63)]
    interface: InterfaceName = "eth0"


Bonds = Annotated[list[BondBody], Field(max_length=16)]
Vlans = Annotated[list[VlanBody], Field(max_length=256)]
Accesses = Annotated[list[AccessBody], Field(max_length=32)]


class FlavorBody(Body):
    label: str
    root_method: RootMethod = RootMethod.RAM
    kernel_args: Line = ""
    overlay_size_bytes: Size = 0
    templates: Annotated[list[TemplateBody], Field(max_length=200)] = []
    variables: dict[str, Any] = {}
    requirements: dict[str, Any] = {}
    bonds: Bonds = []
    vlans: Vlans = []
    networks: Accesses = []


class FlavorCreate(FlavorBody):
    name: str
    label: str = ""


class FlavorPatch(Body):
    label: str | None = None
    root_method: RootMethod | None = None
    kernel_args: Line | None = None
    overlay_size_bytes: Size | None = None
    templates: Annotated[list[TemplateBody], Field(max_length=200)] | None = None
    variables: dict[str, Any] | None = None
    requirements: dict[str, Any] | None = None
    bonds: Bonds | None = None
    vlans: Vlans | None = None
    networks: Accesses | None = None


Span = Annotated[str, Field(max_length=100)]
"""One address, or FIRST-LAST."""


class SubnetBody(Body):
    subnet: Annotated[str, Field(max_length=64)]
    gateway: Annotated[str, Field(max_length=64)] | None = None
    ranges: Annotated[list[Span], Field(max_length=100)] = []


class ReservationBody(Body):
    range: Span
    reason: Annotated[str, Field(max_length=200)] = ""
    node: Annotated[str, Field(max_length=255)] | None = None
    """By name or UUID; a UUID may be of a machine that is still to come."""


class NetworkPatch(Body):
    """Only the keys that are given are changed; null clears what may be null."""

    purpose: Purpose = Purpose.PROVISIONING
    vlan: int = 0
    subnet: str = ""
    gateway: str | None = None
    discovery_start: str | None = None
    discovery_end: str | None = None
    ranges: Annotated[list[Span], Field(max_length=100)] = []
    more_subnets: Annotated[list[SubnetBody], Field(max_length=100)] = []
    reserved: Annotated[list[Span | ReservationBody], Field(max_length=1000)] = []
    dns_servers: Annotated[list[str], Field(max_length=8)] = []
    ntp_servers: Annotated[list[str], Field(max_length=8)] = []
    domain: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9.-]*$")] = ""
    mtu: int = 1500


class NetworkBody(NetworkPatch):
    """A whole network: what is not given has its default."""

    subnet: str


class NetworkCreate(NetworkBody):
    name: str


DriverName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class SwitchPatch(Body):
    """Only the keys that are given are changed."""

    driver: DriverName = "fake"
    address: Annotated[str, Field(max_length=1000)] = ""
    username: Annotated[str, Field(max_length=64)] = ""
    password: Annotated[str, Field(max_length=1000)] = ""
    private_key: Annotated[str, Field(max_length=20000)] = ""
    host_key: Annotated[str, Field(max_length=5000)] = ""
    port: int | None = None
    chassis: Annotated[str, Field(max_length=255)] = ""
    parking_vlan: int = 999


class SwitchCreate(SwitchPatch):
    name: str
    driver: DriverName
    address: Annotated[str, Field(max_length=1000)]


class WebhookCreate(Body):
    """`kinds` empty: every kind of event."""

    name: str
    url: str
    secret: str
    kinds: list[str] = []


class WebhookPatch(Body):
    url: str | None = None
    kinds: list[str] | None = None
    enabled: bool | None = None
