"""Decides what a machine boots now: from the snapshot, the labels and the journal. Starts nothing, sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koguma.boot.errors import NotBootable, NotReady
from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal, Report
from koguma.boot.labels import Label, Labels
from koguma.model.snapshot import SnapshotNode

# The kernel boots faster than a serial line takes its chatter; BIOS disk probing finds nothing stage 1 uses.
STAGE1_CONSOLE = "console=tty0 console=ttyS0,115200 quiet edd=off"


@dataclass(frozen=True)
class Site:
    """Where machines find things."""

    url: str
    """The boot service, as machines reach it: `http://10.77.0.1:8080`."""
    nfs: str = ""
    """`HOST:/EXPORT` below which every commit of an nfs flavor has a directory; empty: none is served."""
    nfs_dir: Path | None = None
    """The directory behind `nfs`, where trees appear when they are whole."""
    console_args: str = STAGE1_CONSOLE

    def artifact_url(self, commit: str) -> str:
        return f"{self.url}/artifacts/{commit}/"


class Planner:
    """One decision a question; all of one boot agree, because choices are kept in the journal."""

    def __init__(self, site: Site, inventory: Inventory, labels: Labels, journal: Journal) -> None:
        self._site = site
        self._inventory = inventory
        self._labels = labels
        self._journal = journal

    def label(self, node: SnapshotNode, boot_id: str) -> Label:
        """The label of this boot: chosen at the console, else set for one boot, else the node's own. Raises
        NotBootable.
        """
        if chosen := self._journal.chosen(boot_id):
            return self._labels.resolve(chosen)
        once = node.boot.once
        if once and self._journal.claim_once(once.id, boot_id):
            self._journal.add(Report.now(node.uuid, boot_id, "once", {"id": once.id, "label": once.label}))
            return self._labels.resolve(once.label)
        return self._labels.resolve(node.boot.label)

    def boots_disk(self, node: SnapshotNode) -> bool:
        """Whether the machine is sent to its own disk: there is no wish, or it was fulfilled before."""
        disk = node.boot.disk
        if disk is None or node.boot.mode != "boot":
            return False
        return disk.wish is None or self._journal.writer_of(disk.wish) is not None

    def profile(self, node: SnapshotNode, boot_id: str) -> dict[str, Any]:
        """The answer of `profile`. Raises NotBootable."""
        label = self.label(node, boot_id)
        if node.boot.root_method == "iscsi" and "iscsi" not in node.detail:
            raise NotReady(f"the root volume of node {node.name} is not shown to it yet")
        return {
            "node": node.name,
            "label": label.name,
            "commit": label.commit,
            "root_method": node.boot.root_method,
            "kernel_args": node.boot.kernel_args,
            "artifact_url": self._site.artifact_url(label.commit),
            "overlay_size_bytes": node.boot.overlay_size_bytes,
            "nfs": self._nfs(node, label),
            "disk": self._disk(node),
        }

    def detail(self, node: SnapshotNode) -> dict[str, Any]:
        """The answer of `detail`, members included."""
        return {**node.detail, **self.members()}

    def members(self) -> dict[str, Any]:
        snapshot = self._inventory.snapshot
        return {"members": list(snapshot.members), "members_revision": snapshot.members_revision}

    def handover(self, node: SnapshotNode, boot_id: str, token: str, mac: str) -> dict[str, str | int]:
        """The values of `/koguma/boot.env` for a boot without stage 1. Raises NotBootable."""
        profile = self.profile(node, boot_id)
        manifest = self._labels.manifest(profile["commit"])
        port, network = self._boot_network(node)
        interfaces = node.detail.get("interfaces", ())
        return {
            "KOGUMA_URL": self._site.url,
            "KOGUMA_UUID": node.uuid,
            "KOGUMA_TOKEN": token,
            "KOGUMA_MAC": mac,
            "KOGUMA_ADDRESS": f"{port.address}/{network.prefix}",
            "KOGUMA_GATEWAY": network.gateway or "",
            "KOGUMA_MTU": network.mtu,
            "KOGUMA_NODE": node.name,
            "KOGUMA_LABEL": profile["label"],
            "KOGUMA_COMMIT": profile["commit"],
            "KOGUMA_ROOT_METHOD": profile["root_method"],
            "KOGUMA_ROOT_URL": profile["artifact_url"] + manifest.files["root"].name,
            "KOGUMA_ROOT_NAME": manifest.files["root"].name,
            "KOGUMA_ROOT_FORMAT": manifest.root_format,
            "KOGUMA_ROOT_SHA256": manifest.files["root"].sha256,
            "KOGUMA_ROOT_SIZE_BYTES": manifest.files["root"].size_bytes,
            "KOGUMA_OVERLAY_SIZE_BYTES": profile["overlay_size_bytes"],
            "KOGUMA_NFS": profile["nfs"] or "",
            "KOGUMA_INTERFACES": " ".join(f"{item['mac']}={item['name']}" for item in interfaces),
        }

    def _disk(self, node: SnapshotNode) -> dict[str, Any] | None:
        disk = node.boot.disk
        if disk is None:
            return None
        image = dict(disk.image) if disk.image else None
        if image and not image["url"].startswith("http://"):
            image["url"] = f"{self._site.url}/artifacts/{image['url']}"
        mirror = None if disk.mirror is None else dict(disk.mirror)
        return {"hints": dict(disk.hints), "mirror": mirror, "image": image}

    def _nfs(self, node: SnapshotNode, label: Label) -> str | None:
        if node.boot.root_method != "nfs":
            return None
        if not self._site.nfs:
            raise NotBootable(f"root method nfs needs an export (boot.nfs), node {node.name} asks for it")
        if self._site.nfs_dir and not (self._site.nfs_dir / label.commit).is_dir():
            raise NotReady(f"the NFS tree of label {label.name!r} is being unpacked")
        return f"{self._site.nfs}/{label.commit}"

    def _boot_network(self, node: SnapshotNode) -> tuple[Any, Any]:
        port = node.boot_port
        network = next((item for item in self._inventory.snapshot.networks if port and item.name == port.network), None)
        if port is None or network is None:
            raise NotBootable(f"node {node.name} must have a port with an address on a known network")
        return port, network
