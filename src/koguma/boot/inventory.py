"""What the boot service knows of the site: the last good snapshot, in memory and on disk.

A snapshot is written beside the old one and renamed over it, so a crash leaves one or the other. The identity rules of
machines, as far as a snapshot can tell them, are here; the server has the last word at registration.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from koguma.boot.errors import IdentityConflict, NotThisMachine, UnknownMachine
from koguma.model.snapshot import Snapshot, SnapshotError, SnapshotNode

log = logging.getLogger(__name__)


class Inventory:
    """The snapshot in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.snapshot = self._read()

    def replace(self, document: object) -> Snapshot:
        """Take a newer snapshot into force. Raises SnapshotError and keeps the old one when it is not one."""
        snapshot = Snapshot.from_json(document)
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            # It holds the nodes' SSH host keys.
            os.fchmod(file.fileno(), 0o600)
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self.snapshot = snapshot
        return snapshot

    def node(self, uuid: str) -> SnapshotNode:
        """Raises UnknownMachine."""
        node = self.snapshot.by_uuid.get(uuid)
        if node is None:
            raise UnknownMachine(f"a machine must be registered before it boots, {uuid} is not")
        return node

    def identity(self, uuid: str, mac: str) -> str:
        """The UUID by which a machine is spoken of: its own, or that of the node that was made for its MAC."""
        owner = self.snapshot.by_mac.get(mac)
        return owner.uuid if owner and owner.known_by_mac and uuid not in self.snapshot.by_uuid else uuid

    def reject_foreign_mac(self, uuid: str, mac: str) -> None:
        """Raises IdentityConflict when the MAC is another node's: that node's name is nobody else's business."""
        owner = self.snapshot.by_mac.get(mac)
        if owner and owner.uuid != uuid:
            raise IdentityConflict(f"a MAC address belongs to one machine only, {mac} is another's ({uuid})")

    def reject_foreign_address(self, node: SnapshotNode, address: str) -> None:
        """Raises NotThisMachine unless the request comes from an address reserved for the node."""
        if address not in node.addresses:
            raise NotThisMachine(
                f"machine {node.uuid} must ask from the address reserved for it, got a request from {address}"
            )

    def _read(self) -> Snapshot:
        try:
            return Snapshot.from_json(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Snapshot()
        except (ValueError, SnapshotError) as error:
            # Boots of known machines wait for the server then, which is better than boots by half a document.
            log.warning("the snapshot on disk is not usable: %s (%s)", error, self._path)
            return Snapshot()
