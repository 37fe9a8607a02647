"""Files of systemd-networkd for the NICs, bonds and VLANs of `detail`. Pure: computes contents, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from koguma_stage2 import places

LLDP = (("LLDP", "yes"), ("EmitLLDP", "nearest-bridge"))
"""The switch sees which node is plugged in where, without a daemon of its own on the node."""
Section = tuple[str, list[tuple[str, Any]]]


def networkd_files(detail: dict[str, Any]) -> dict[str, str]:
    """Contents by path. A NIC is matched by its permanent MAC, because a bond gives its own MAC to its NICs."""
    vlans = [*detail.get("vlans", []), *(item for item in detail.get("interfaces", []) if item.get("parent"))]
    bond_of = {mac: bond["name"] for bond in detail.get("bonds", []) for mac in bond["interfaces"]}
    files: dict[str, str] = {}
    for interface in detail.get("interfaces", []):
        if not interface.get("parent"):
            match = [("PermanentMACAddress", interface["mac"])]
            bond = bond_of.pop(interface["mac"], None) or interface.get("bond")
            files[_network(interface["name"])] = _link_file(match, interface, vlans, detail, bond, LLDP)
    for mac, bond in bond_of.items():
        name = f"{bond}-{mac.replace(':', '')}"
        files[_network(name)] = _file([("Match", [("PermanentMACAddress", mac)]), ("Network", [*LLDP, ("Bond", bond)])])
    for bond in detail.get("bonds", []):
        files |= _bond_files(bond, vlans, detail)
    for vlan in vlans:
        kind: list[Section] = [("NetDev", [("Name", vlan["name"]), ("Kind", "vlan")]), ("VLAN", [("Id", vlan["vlan"])])]
        files[f"{places.NETWORKD}/10-koguma-{vlan['name']}.netdev"] = _file(kind)
        files[_network(vlan["name"])] = _link_file([("Name", vlan["name"])], vlan, vlans, detail, None)
    return files


def _bond_files(bond: dict[str, Any], vlans: list[dict[str, Any]], detail: dict[str, Any]) -> dict[str, str]:
    kind: list[Section] = [
        ("NetDev", [("Name", bond["name"]), ("Kind", "bond")]),
        ("Bond", [("Mode", bond["mode"]), ("MIIMonitorSec", "100ms"), *_bond_options(bond["mode"])]),
    ]
    return {
        f"{places.NETWORKD}/10-koguma-{bond['name']}.netdev": _file(kind),
        _network(bond["name"]): _link_file([("Name", bond["name"])], bond, vlans, detail, None),
    }


def _bond_options(mode: str) -> list[tuple[str, str]]:
    return [("LACPTransmitRate", "fast"), ("TransmitHashPolicy", "layer3+4")] if mode == "802.3ad" else []


def _link_file(
    match: list[tuple[str, Any]],
    link: dict[str, Any],
    vlans: Iterable[dict[str, Any]],
    detail: dict[str, Any],
    bond: str | None,
    more: Iterable[tuple[str, str]] = (),
) -> str:
    options: list[tuple[str, Any]] = [*more]
    if bond:
        options.append(("Bond", bond))
    else:
        options += [("Address", address) for address in link.get("addresses", [])]
        options += [("Gateway", link[key]) for key in ("gateway", "gateway6") if link.get(key)]
        options += [("DNS", server) for server in detail.get("dns_servers", [])] if link.get("addresses") else []
        # The boot NIC already has its address from the initramfs; it must not lose it for a moment.
        options += [("KeepConfiguration", "yes"), ("IPv6AcceptRA", "no")]
        options += [("LinkLocalAddressing", "no")] if not link.get("addresses") else []
    options += [("VLAN", vlan["name"]) for vlan in vlans if vlan["parent"] == link["name"]]
    mtu: list[Section] = [("Link", [("MTUBytes", link["mtu"])])] if link.get("mtu") else []
    return _file([("Match", match), *mtu, ("Network", options)])


def _network(name: str) -> str:
    return f"{places.NETWORKD}/10-koguma-{name}.network"


def _file(sections: Iterable[Section]) -> str:
    parts = [f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options) for name, options in sections]
    return "# Written by koguma-render from this boot's detail.\n" + "\n".join(parts)
