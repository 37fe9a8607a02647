"""What the lifecycle asks of the database: exclusive claims on nodes, and durable writes. `koguma.db.lifecycle_store`
provides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from koguma.contracts.power import Access
from koguma.contracts.switches import SwitchDriver
from koguma.model.boot_record import BootRecord
from koguma.model.disk_image import DiskImage
from koguma.model.flavor import Flavor
from koguma.model.limits import Limits
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.operation import Operation, StepRecord
from koguma.model.root_disks import RootDisks
from koguma.model.switch import Placement, Switch
from koguma.model.volume import RootVolume


class Claim(Protocol):
    """One node, held by one worker. It ends with the worker's database connection, so it never outlives its holder."""

    def look(self) -> tuple[Node, Operation | None]:
        """The node as it is now and the flow under way. Forgets that something woke the node: what woke it is looked
        at from here on.
        """

    def node(self) -> Node:
        """The node as it was looked at or written last."""

    def write(
        self,
        *,
        expected: str | None,
        operation: Operation | None,
        changes: Mapping[str, Any] = ...,
        steps: Sequence[StepRecord] = ...,
        wake_at: datetime | None,
    ) -> None:
        """Record, in one transaction: the operation (None: none is under way), changes of the node by field name,
        steps of its history, and when to look again (None: when something happens).

        Raises Superseded when the operation on record is not `expected`.
        """

    def woken(self) -> bool:
        """Whether something had woken the node since `look` when it was written last."""

    def admit(self, kind: str, limits: Limits) -> bool:
        """Let operations of the kind begin as far as the limits allow. Whether this node's is among them."""

    def power_turn(self, limits: Limits, now: datetime) -> datetime:
        """When the node's power may change: now, where nothing limits it. Every call takes another turn."""

    def flavor(self) -> Flavor | None: ...

    def access(self) -> Access | None:
        """How to reach the BMC, password included; None when no BMC is on record."""

    def ensure_addresses(self) -> None:
        """Give the boot port an address of the provisioning network, if it has none. Raises KogumaError when it
        cannot.
        """

    def networks(self) -> Mapping[str, Network]:
        """All of the site, by name."""

    def switches(self) -> Sequence[Switch]:
        """All that are on record."""

    def switch(self, name: str) -> AbstractContextManager[SwitchDriver | None]:
        """The switch for this worker alone; None while another worker has it. Raises SwitchError."""

    def placements(self) -> Sequence[Placement]:
        """The switch ports that were put into something for this node, last."""

    def record_placement(self, placement: Placement, *, written: bool) -> None:
        """What a port is about to be put into (`written` is false), or was and reads back as."""

    def end_attachments(self) -> None:
        """Nothing is attached to the node any more, and the addresses it had because of that are free."""

    def wanted_image(self) -> DiskImage | None:
        """The image by URL that the node's disk is to hold instead of a commit. Raises BadDiskImage."""

    def root_disks(self, flavor: Flavor) -> RootDisks:
        """Which disks the node's root goes to. Raises BadRootDisks."""

    def volume(self) -> RootVolume | None:
        """The volume that the node's root is on, as recorded."""

    def keep_volume(self, volume: RootVolume) -> None:
        """Record it, in place of what was recorded before."""

    def forget_volume(self) -> None: ...

    def hand_over(self, named: str | None, operation: str) -> None:
        """Give what the node is to others to the node of this UUID, or to any spare of its flavor, and start that
        one's deployment; once for each operation. Raises StepFailed when it cannot.
        """

    def record_power_on(self, at: datetime) -> None:
        """Remember when the machine was told to power on: its firmware phase starts there."""

    def boots_since(self, since: datetime) -> Sequence[BootRecord]:
        """The node's boots that began at `since` or later, newest first."""


class LifecycleStore(Protocol):
    def claim(self, uuid: str) -> AbstractContextManager[Claim | None]:
        """The node for this worker alone; None when another one has it or it does not exist."""

    def admit_waiting(self, kind: str, limits: Limits) -> None:
        """Let operations of the kind begin as far as the limits allow."""
