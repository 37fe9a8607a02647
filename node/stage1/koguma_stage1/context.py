"""What the steps of one boot hand to each other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koguma_node.errors import NodeError
from koguma_node.service import Service
from koguma_node.watchdog import Watchdog

from koguma_stage1.arguments import Arguments

if TYPE_CHECKING:
    from koguma_stage1.disk.layout import Disk, Root


class Lease:
    """What DHCP gave the boot NIC."""

    def __init__(self, interface: str, address: str, gateway: str, mtu: str = "") -> None:
        self.interface = interface
        self.address = address
        self.gateway = gateway
        self.mtu = mtu
        """Bytes, in digits; empty where the site says nothing and the NIC keeps its own."""


class Context:
    """Filled by the steps in their order; asking for what no step has filled yet is a defect of that order."""

    def __init__(
        self, arguments: Arguments, service: Service, watchdog: Watchdog, work: Path = Path("/run/koguma")
    ) -> None:
        self.arguments = arguments
        self.service = service
        self.watchdog = watchdog
        self.work = work
        self.deadline = time.monotonic()
        self.lease: Lease | None = None
        self.inventory: dict[str, Any] = {}
        self.profile: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        self.disks: list[Disk] = []
        """Those that the root is on."""
        self.root: Root | None = None
        """None for a whole-disk image, which brings its own."""

    def required_lease(self) -> Lease:
        if self.lease is None:
            raise NodeError("the network must be up before this step")
        return self.lease

    def required_disks(self) -> list[Disk]:
        if not self.disks:
            raise NodeError("the root's disks must be chosen before this step")
        return self.disks

    def required_root(self) -> Root:
        if self.root is None:
            raise NodeError("the root's file system must be made before this step")
        return self.root
