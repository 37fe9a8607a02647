"""Renders the snapshot for boot services from the database.

Whether it may have changed costs one query: every row carries a version that a trigger raises, so their sums and
counts tell. Only then is it rendered, in a handful of queries. What changes all the time (heartbeats, status) is no
part of it, so equal content keeps its revision.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from koguma.db import root_volumes
from koguma.db.links import handover_of, links_of
from koguma.db.models import FlavorRow, NetworkRow, NodeRow
from koguma.db.node_rows import with_all
from koguma.db.rows import flavor_of, network_of, node_of, root_disks_of
from koguma.db.sealing import unseal
from koguma.model import names
from koguma.model.flavor import Flavor, RootMethod
from koguma.model.layout import Layout, layout_for, reason_not_fitting
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.root_disks import BadRootDisks
from koguma.model.snapshot import BootPlan, DiskPlan, Mode, Once, Snapshot, SnapshotNetwork, SnapshotNode, SnapshotPort
from koguma.model.states import ProvisionState as S

_REGISTERS = frozenset({S.ENROLL, S.VERIFYING, S.INSPECTING, S.INSPECT_WAIT, S.INSPECT_FAILED})
_RESCUES = frozenset({S.RESCUING, S.RESCUE_WAIT, S.RESCUE})
_BOOTS = frozenset(
    {S.DEPLOYING, S.WAIT_CALL_BACK, S.DEPLOY_HOLD, S.DEPLOY_FAILED, S.ACTIVE, S.SERVICING, S.SERVICE_WAIT,
     S.SERVICE_HOLD, S.SERVICE_FAILED, S.RESCUE_FAILED, S.UNRESCUING, S.UNRESCUE_FAILED}
)  # fmt: skip

_CLEANS = frozenset({S.CLEANING, S.CLEAN_WAIT})
_WRITES = frozenset({S.DEPLOYING, S.WAIT_CALL_BACK, S.DEPLOY_HOLD})
"""Where a wish to write the disk counts. An active node boots its disk, whatever the boot service has forgotten."""

_FINGERPRINT = " UNION ALL ".join(
    f"SELECT '{table}', count(*), coalesce(sum(id), 0), coalesce(sum(version), 0) FROM koguma_{table}"  # noqa: S608 - no value from outside
    for table in ("node", "port", "flavor", "network")
)


@dataclass(frozen=True)
class Secrets:
    """What only the node itself is told."""

    host_key: str
    rescue_password_hash: str
    volume: dict[str, Any] | None
    """How it logs in to its root volume."""
    config_drive: Any = None
    """For a disk that is being written."""


class Renderer:
    """Keeps the last rendering of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fingerprint: object = None
        self._rendered: tuple[str, bytes] | None = None

    def current(self) -> tuple[str, bytes]:
        """The revision, and the document as JSON."""
        fingerprint = _fingerprint()
        with self._lock:
            if self._rendered is None or fingerprint != self._fingerprint:
                snapshot = render()
                self._rendered = (snapshot.revision, json.dumps(snapshot.to_json(), separators=(",", ":")).encode())
                self._fingerprint = fingerprint
            return self._rendered


def render() -> Snapshot:
    networks = {row.name: network_of(row) for row in NetworkRow.objects.order_by("name")}
    flavors = {row.name: flavor_of(row) for row in FlavorRow.objects.all()}
    keys = _authorized_keys()
    volumes = root_volumes.of_all()
    nodes = []
    for row in with_all(NodeRow.objects.order_by("uuid")):
        node = node_of(row)
        flavor = flavors.get(node.flavor or "")
        disk = disk_plan(row, node, flavor)
        secrets = Secrets(
            unseal(row.ssh_host_key),
            unseal(row.rescue_password_hash),
            root_volumes.access(volumes.get(row.pk), str(row.uuid)),
            row.instance_info.get("configdrive") if disk and disk.wish else None,
        )
        nodes.append(_node(node, flavor, networks, keys, secrets, disk, known_by_mac=row.known_by_mac))
    return Snapshot(networks=tuple(_network(network) for network in networks.values()), nodes=tuple(nodes))


def _fingerprint() -> object:
    with connection.cursor() as cursor:
        cursor.execute(_FINGERPRINT)
        rows = cursor.fetchall()
        cursor.execute("SELECT count(*), coalesce(sum(id), 0), count(released_at) FROM koguma_address")
        return (*rows, *cursor.fetchall(), tuple(_authorized_keys()))


def _authorized_keys() -> list[str]:
    operator = Path(settings.KOGUMA_SECRETS_DIR or "/nonexistent") / "operator.pub"
    own = [operator.read_text(encoding="utf-8").strip()] if operator.is_file() else []
    return [*own, *settings.KOGUMA_NODES_SSH_AUTHORIZED_KEYS]


def _network(network: Network) -> SnapshotNetwork:
    return SnapshotNetwork(
        name=network.name,
        purpose=network.purpose.value,
        vlan=network.vlan,
        subnet=network.subnet,
        gateway=network.gateway,
        discovery_start=network.discovery_start,
        discovery_end=network.discovery_end,
        dns_servers=network.dns_servers,
        ntp_servers=network.ntp_servers,
        domain=_domain(network),
        mtu=network.mtu,
    )


def _node(
    node: Node,
    flavor: Flavor | None,
    networks: dict[str, Network],
    keys: list[str],
    secrets: Secrets,
    disk: DiskPlan | None,
    *,
    known_by_mac: bool,
) -> SnapshotNode:
    mode, reason = mode_of(node, flavor)
    return SnapshotNode(
        uuid=node.uuid,
        name=names.as_host_name(node.name, node.uuid),
        serial=node.serial,
        provision_state=node.provision_state.value,
        flavor=node.flavor or "",
        architecture=node.architecture,
        firmware=node.firmware,
        known_by_mac=known_by_mac,
        ports=tuple(SnapshotPort(port.mac, port.network, port.address, port.boot) for port in node.ports),
        boot=BootPlan(
            label=node.label or (flavor.label if flavor else ""),
            root_method=flavor.root_method.value if flavor else "ram",
            kernel_args=flavor.kernel_args if flavor else "",
            overlay_size_bytes=flavor.overlay_size_bytes if flavor else 0,
            kexec=node.kexec,
            mode=mode,
            refuse_reason=reason,
            once=Once(node.once.id, node.once.label) if node.once else None,
            disk=disk,
        ),
        detail=_detail(node, flavor, networks, keys, secrets),
    )


def mode_of(node: Node, flavor: Flavor | None) -> tuple[Mode, str | None]:
    """What a machine that asks for its script is told, by its node's state."""
    if mode := _stage1_mode(node):
        return mode, None
    if node.provision_state not in _BOOTS:
        return "refuse", f"the node is {node.provision_state.value}, it boots when it is deployed"
    if flavor is None:
        return "refuse", "the node has no flavor"
    if reason := reason_not_fitting(layout_for(node, flavor.layout), node):
        return "refuse", f"flavor {flavor.name} does not fit the node: {reason}"
    return "boot", None


def _stage1_mode(node: Node) -> Mode | None:
    """Where stage 1 does all the work."""
    if node.provision_state in _REGISTERS:
        return "register"
    if node.provision_state in _RESCUES:
        return "rescue"
    return "clean" if node.provision_state in _CLEANS and node.disk_used and node.disk_wish else None


def disk_plan(row: NodeRow, node: Node, flavor: Flavor | None) -> DiskPlan | None:
    if _stage1_mode(node) == "clean":
        return DiskPlan(wish=node.disk_wish)
    if flavor is None or flavor.root_method is not RootMethod.DISK:
        return None
    try:
        disks = root_disks_of(row, flavor)
    except BadRootDisks:
        return DiskPlan()  # said wrong since the deployment began: nothing is written by what cannot be followed
    return DiskPlan(
        wish=node.disk_wish if node.provision_state in _WRITES else None,
        hints=disks.hints,
        mirror=disks.mirror,
        image=node.disk_image,
    )


def _detail(
    node: Node, flavor: Flavor | None, networks: dict[str, Network], keys: list[str], secrets: Secrets
) -> dict[str, Any]:
    boot_network = next((networks[port.network] for port in node.ports if port.network in networks), None)
    layout = _fitting_layout(node, flavor)
    return {
        "node": node.name,
        "uuid": node.uuid,
        "hostname": names.as_host_name(node.name, node.uuid).partition(".")[0],
        "domain": _domain(boot_network),
        "flavor": node.flavor or "",
        **links_of(node, layout, networks),
        "handover": handover_of(node, layout, networks),
        "dns_servers": list(boot_network.dns_servers) if boot_network else [],
        "ntp_servers": list(boot_network.ntp_servers) if boot_network else [],
        "ssh_authorized_keys": keys,
        "ssh_host_keys": {
            "ssh_host_ed25519_key": secrets.host_key,
            "ssh_host_ed25519_key.pub": node.ssh_host_public_key + "\n",
        },
        "templates": [vars(template) for template in flavor.templates] if flavor else [],
        "variables": {**(flavor.variables if flavor else {}), **node.variables},
        **({"iscsi": secrets.volume} if secrets.volume else {}),
        **({"config_drive": secrets.config_drive} if secrets.config_drive else {}),
        **({"rescue": {"password_hash": secrets.rescue_password_hash}} if node.provision_state in _RESCUES else {}),
    }


def _fitting_layout(node: Node, flavor: Flavor | None) -> Layout:
    """A node that its flavor's layout does not fit is not booted; its links are its NICs until then."""
    if flavor is None:
        return Layout()
    layout = layout_for(node, flavor.layout)
    return Layout() if reason_not_fitting(layout, node) else layout


def _domain(network: Network | None) -> str:
    return (network.domain if network else "") or str(settings.KOGUMA_NODES_DOMAIN)
