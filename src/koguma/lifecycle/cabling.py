"""Which switch ports a node is cabled to, and what VLANs they should have: pure plans from records.

    while it boots, is cleaned, inspected or rescued   the boot port in the provisioning VLAN, each port for itself
    from the hand-over on                              its layout's networks, without a tag; its layout's VLANs, tagged;
                                                       bonds of mode 802.3ad as bonds of the switch

A port is cabled to what somebody said of it (`local_link_connection`), else to its LLDP neighbour. Ports whose switch
is not on record are nobody's business here, unless isolation depends on them. A port that has no network of its own is
left as it is; where Koguma placed it before, or the node is handed over to a tenant, it is parked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koguma.contracts.switches import PortVlans
from koguma.lifecycle.errors import StepFailed
from koguma.model.layout import BondMode, Layout, interface_names
from koguma.model.network import Network, Purpose
from koguma.model.node import Node, Port
from koguma.model.states import StatusCode
from koguma.model.switch import Placement, Switch

PARKING = "parking"
Cable = tuple[str, str]
"""A switch's name and its port's."""


@dataclass(frozen=True)
class Wish:
    """Ports of one switch and their VLANs; several together are one LACP bond."""

    switch: str
    ports: tuple[str, ...]
    vlans: PortVlans
    lacp: bool
    network: str
    """For people: the names of the networks, or `parking`."""


@dataclass(frozen=True)
class Site:
    """The records that a plan is made from."""

    networks: Mapping[str, Network]
    switches: Sequence[Switch]
    placements: Sequence[Placement]
    """Those of the node."""

    def switch(self, name: str) -> Switch:
        return next(switch for switch in self.switches if switch.name == name)


def cable_of(port: Port, switches: Sequence[Switch]) -> Cable | None:
    """None when its switch is not on record."""
    said, seen = port.local_link, port.lldp or {}
    for names, port_name in (
        ((said.get("switch_info"), said.get("switch_id")), said.get("port_id")),
        ((seen.get("chassis"),), seen.get("port")),
    ):
        for switch in switches:
            if port_name and any(switch.is_called(name) for name in names):
                return switch.name, str(port_name)
    return None


def plan_for_boot(node: Node, site: Site, *, tenants: bool) -> list[Wish]:
    """The boot port in the provisioning network; `tenants`: nothing else of the node may be in any other.

    Raises StepFailed.
    """
    cables = _cables(node, site)
    boot = node.boot_port
    cable = cables.get(boot.mac) if boot else None
    if boot is None or cable is None:
        return _parked(site, cables, (), tenants=tenants)
    network = _provisioning(boot, site, node)
    wish = Wish(cable[0], (cable[1],), PortVlans.access(network.vlan), lacp=False, network=network.name)
    # Parked first: at no moment are two ports of a node in one network.
    return [*_parked(site, cables, (cable,), tenants=tenants), wish]


def plan_for_use(node: Node, layout: Layout, site: Site) -> list[Wish]:
    """Where the ports of a node that is handed over are. Raises StepFailed."""
    cables = _cables(node, site)
    by_name = {name: mac for mac, name in interface_names(node.ports).items()}
    wishes = []
    for link in _links(layout, by_name):
        bond = next((bond for bond in layout.bonds if bond.name == link), None)
        nics = bond.interfaces if bond else (link,)
        found = [(nic, cables.get(by_name.get(nic, ""))) for nic in nics]
        untagged, tagged = _networks_on(link, layout, site, node, by_name)
        if any(cable is None for _, cable in found):
            _require_nothing(untagged, [nic for nic, cable in found if cable is None], node)
            continue
        wishes += _wishes_of([cable for _, cable in found if cable], bond is not None and bond.mode is BondMode.LACP,
                             untagged, tagged, node)  # fmt: skip
    used = tuple((wish.switch, port) for wish in wishes for port in wish.ports)
    return [*_parked(site, cables, used, tenants=bool(layout.networks)), *wishes]


def must_move(layout: Layout) -> bool:
    """Whether a node of this layout is elsewhere while it is used than while it boots."""
    return bool(layout.networks) or any(bond.mode is BondMode.LACP for bond in layout.bonds)


def _cables(node: Node, site: Site) -> dict[str, Cable]:
    """By MAC."""
    found = {port.mac: cable_of(port, site.switches) for port in node.ports}
    return {mac: cable for mac, cable in found.items() if cable}


def _links(layout: Layout, by_name: Mapping[str, str]) -> list[str]:
    """The NICs and bonds that have a network or a VLAN, and the one that the node boots from."""
    carrying = [*(access.interface for access in layout.networks), *(vlan.interface for vlan in layout.vlans)]
    boot = ["eth0"] if "eth0" in by_name else []
    links = [layout.link_of(name) for name in (*boot, *carrying)]
    return list(dict.fromkeys([*links, *(bond.name for bond in layout.bonds)]))


def _networks_on(
    link: str, layout: Layout, site: Site, node: Node, by_name: Mapping[str, str]
) -> tuple[Network | None, list[Network]]:
    tagged = [site.networks[vlan.network] for vlan in layout.vlans if vlan.interface == link]
    for access in layout.networks:
        if layout.link_of(access.interface) == link:
            return site.networks[access.network], tagged
    boots_here = layout.link_of("eth0") == link and not layout.networks
    boot = next((port for port in node.ports if port.mac == by_name.get("eth0")), None)
    governed = boot is not None and cable_of(boot, site.switches) is not None
    return (_provisioning(boot, site, node) if boots_here and boot and governed else None), tagged


def _wishes_of(
    cables: list[Cable], lacp: bool, untagged: Network | None, tagged: list[Network], node: Node
) -> list[Wish]:
    names = [network.name for network in (*([untagged] if untagged else []), *tagged)]
    if not names:
        return []
    vlans = PortVlans.trunk((network.vlan for network in tagged), native=untagged.vlan if untagged else None)
    text = ", ".join(names)
    if not lacp:
        return [Wish(switch, (port,), vlans, lacp=False, network=text) for switch, port in cables]
    switches = {switch for switch, _ in cables}
    if len(switches) > 1:
        raise StepFailed(
            StatusCode.SWITCH_REFUSED,
            f"an 802.3ad bond must be cabled to one switch, got {', '.join(sorted(switches))} (node {node.name})",
        )
    return [Wish(cables[0][0], tuple(sorted(port for _, port in cables)), vlans, lacp=True, network=text)]


def _require_nothing(untagged: Network | None, nics: list[str], node: Node) -> None:
    """A node that is to leave the provisioning network must be cabled to a switch on record."""
    if untagged and untagged.purpose is not Purpose.PROVISIONING:
        raise StepFailed(
            StatusCode.SWITCH_REFUSED,
            f"network {untagged.name} needs the switch of {', '.join(nics)} on record: neither"
            f" local_link_connection nor an LLDP neighbour names one (node {node.name})",
        )


def _parked(site: Site, cables: Mapping[str, Cable], used: Sequence[Cable], *, tenants: bool) -> list[Wish]:
    """Ports of the node that have no network now: every one of a tenant's node, else those that Koguma placed."""
    placed = [(item.switch, item.port) for item in site.placements]
    known = {switch.name for switch in site.switches}
    idle = dict.fromkeys([*(cables.values() if tenants else ()), *placed])
    return [
        Wish(switch, (port,), PortVlans.access(site.switch(switch).parking_vlan), lacp=False, network=PARKING)
        for switch, port in idle
        if (switch, port) not in used and switch in known
    ]


def _provisioning(port: Port, site: Site, node: Node) -> Network:
    named = site.networks.get(port.network or "")
    candidates = [named] if named and named.purpose is Purpose.PROVISIONING else [
        network for network in site.networks.values() if network.purpose is Purpose.PROVISIONING
    ]  # fmt: skip
    if not candidates or candidates[0].vlan == 0:
        what = f"network {candidates[0].name} has none" if candidates else "there is no such network"
        raise StepFailed(
            StatusCode.SWITCH_REFUSED,
            f"a switched port needs a provisioning network with a VLAN, {what} (node {node.name})",
        )
    return candidates[0]
