"""The snapshot: everything the boot service needs to boot every known node, as one document.

The server renders it from the database; the boot service keeps the last good one on disk and answers from it.
ARCHITECTURE.md shows the JSON. No I/O here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

from koguma.errors import KogumaError

FORMAT = "koguma-snapshot/1"

Mode = Literal["boot", "register", "rescue", "clean", "refuse"]
RootMethod = Literal["ram", "nfs", "iscsi", "disk"]


class SnapshotError(KogumaError):
    """The document is not a snapshot this version understands."""


@dataclass(frozen=True)
class Once:
    """A label for the next boot only; `id` tells one such wish from the next."""

    id: str
    label: str


@dataclass(frozen=True)
class DiskPlan:
    """What is to be done to the disks of a node whose root is on one."""

    wish: str | None = None
    """To be fulfilled once, by a boot of stage 1; without one, the machine boots its disk."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Ironic's root-device hints."""
    mirror: Mapping[str, Any] | None = None
    """Hints for the second disk of a root that is on two."""
    image: Mapping[str, Any] | None = None
    """A foreign whole-disk image instead of the commit: url, sha256, size_bytes, format."""


@dataclass(frozen=True)
class BootPlan:
    """What a node boots."""

    label: str
    root_method: RootMethod = "ram"
    kernel_args: str = ""
    overlay_size_bytes: int = 0
    """Limit of the writable layer in memory; 0 lets stage 2 choose half of the memory."""
    kexec: bool = True
    """False: iPXE boots the artifact directly, because kexec failed on this machine."""
    mode: Mode = "boot"
    refuse_reason: str | None = None
    once: Once | None = None
    disk: DiskPlan | None = None
    """Root method disk, and cleaning."""


@dataclass(frozen=True)
class SnapshotPort:
    """A NIC and the address reserved for it, if any."""

    mac: str
    network: str | None = None
    address: str | None = None
    boot: bool = False


@dataclass(frozen=True)
class SnapshotNode:
    """One known machine: how to recognise it, what it boots, who it is."""

    uuid: str
    name: str
    serial: str
    provision_state: str
    flavor: str
    boot: BootPlan
    ports: tuple[SnapshotPort, ...] = ()
    architecture: str = "x86_64"
    firmware: str = "bios"
    known_by_mac: bool = False
    """A machine with one of its MACs is this node, whatever UUID its firmware says."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """The answer of `detail`, without the members."""

    @cached_property
    def macs(self) -> frozenset[str]:
        return frozenset(port.mac for port in self.ports)

    @cached_property
    def addresses(self) -> frozenset[str]:
        return frozenset(port.address for port in self.ports if port.address)

    @cached_property
    def boot_port(self) -> SnapshotPort | None:
        """The port the machine boots from: the one marked so, else the first with an address."""
        marked = [port for port in self.ports if port.boot and port.address]
        return next(iter(marked or [port for port in self.ports if port.address]), None)


@dataclass(frozen=True)
class SnapshotNetwork:
    """A network as DHCP and the machines see it. Addresses are text, the subnet in CIDR notation."""

    name: str
    purpose: str
    vlan: int
    subnet: str
    gateway: str | None = None
    discovery_start: str | None = None
    discovery_end: str | None = None
    dns_servers: tuple[str, ...] = ()
    ntp_servers: tuple[str, ...] = ()
    domain: str = ""
    mtu: int = 1500

    @property
    def prefix(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen


@dataclass(frozen=True)
class Snapshot:
    networks: tuple[SnapshotNetwork, ...] = ()
    nodes: tuple[SnapshotNode, ...] = ()

    @cached_property
    def revision(self) -> str:
        """SHA-256 of the content: equal content has an equal revision."""
        return hashlib.sha256(_canonical(self._body())).hexdigest()

    @cached_property
    def by_uuid(self) -> Mapping[str, SnapshotNode]:
        return {node.uuid: node for node in self.nodes}

    @cached_property
    def by_mac(self) -> Mapping[str, SnapshotNode]:
        return {mac: node for node in self.nodes for mac in node.macs}

    @cached_property
    def members(self) -> tuple[dict[str, str], ...]:
        """Every node's name, address and flavor, sorted by name: what templates and /etc/hosts know of the others."""
        known = [
            {"name": node.name, "address": node.boot_port.address, "flavor": node.flavor}
            for node in self.nodes
            if node.boot_port and node.boot_port.address
        ]
        return tuple(sorted(known, key=lambda member: member["name"]))

    @cached_property
    def members_revision(self) -> str:
        return hashlib.sha256(_canonical(self.members)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "revision": self.revision, **self._body()}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Raises SnapshotError when the document has another format, misses a key or does not match its revision."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            found = document.get("format") if isinstance(document, dict) else type(document).__name__
            raise SnapshotError(f"the snapshot's format must be {FORMAT!r}, got {found!r}")
        try:
            snapshot = cls(
                networks=tuple(_network(item) for item in document["networks"]),
                nodes=tuple(_node(item) for item in document["nodes"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SnapshotError(f"the snapshot must have the keys of {FORMAT}: {error!r}") from error
        if snapshot.revision != document.get("revision"):
            raise SnapshotError(
                f"the snapshot's revision must be the digest of its content {snapshot.revision},"
                f" got {document.get('revision')!r}"
            )
        return snapshot

    def _body(self) -> dict[str, Any]:
        return {"networks": [asdict(item) for item in self.networks], "nodes": [asdict(item) for item in self.nodes]}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _network(item: Mapping[str, Any]) -> SnapshotNetwork:
    lists = {key: tuple(item.get(key, ())) for key in ("dns_servers", "ntp_servers")}
    return SnapshotNetwork(**{**item, **lists})


def _node(item: Mapping[str, Any]) -> SnapshotNode:
    once, disk = item["boot"].get("once"), item["boot"].get("disk")
    return SnapshotNode(
        **{
            **item,
            "ports": tuple(SnapshotPort(**port) for port in item["ports"]),
            "boot": BootPlan(
                **{
                    **item["boot"],
                    "once": Once(**once) if once else None,
                    "disk": DiskPlan(**disk) if disk else None,
                }
            ),
        }
    )
