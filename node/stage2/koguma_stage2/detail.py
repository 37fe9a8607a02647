"""`detail.json` checked: every name, address and path that becomes part of a file of this machine.

The boot service is trusted to say what the machine is, but a value with a line break in it would write more than the
operator meant; so what reaches a file must have the form of what it claims to be.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koguma_stage2.errors import DetailError

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,14}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HOST_KEY = re.compile(r"ssh_host_[a-z0-9]+_key(\.pub)?")
BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
MODE = re.compile(r"0?[0-7]{3,4}")


def load_detail(path: Path) -> dict[str, Any]:
    """Raises DetailError with rule, value and place."""
    try:
        detail = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DetailError(f"detail.json must be readable JSON: {error} ({path})") from error
    if not isinstance(detail, dict):
        raise DetailError(f"detail.json must be a JSON object, got {type(detail).__name__} ({path})")
    check_detail(detail)
    return detail


def check_detail(detail: dict[str, Any]) -> None:
    _matches(detail.get("hostname"), NAME, "hostname", "a host name")
    _matches(detail.get("uuid"), UUID, "uuid", "a UUID in lower case")
    if detail.get("domain"):
        _matches(detail["domain"], DOMAIN, "domain", "a domain name")
    _check_links(detail)
    if detail.get("handover"):
        _require(isinstance(detail["handover"], dict), detail["handover"], "handover", "an object")
        _check_links(detail["handover"])
        for index, server in enumerate(detail["handover"].get("dns_servers", [])):
            _check_address(server, f"handover.dns_servers[{index}]")
    for key in ("dns_servers", "ntp_servers"):
        for index, server in enumerate(detail.get(key, [])):
            _check_address(server, f"{key}[{index}]")
    check_members(detail.get("members", []))
    _check_keys(detail)
    for place, template in _items(detail, "templates"):
        _matches(template.get("mode") or "0644", MODE, f"{place}.mode", "an octal mode")
        for key in ("source", "target"):
            _require(isinstance(template.get(key), str), template.get(key), f"{place}.{key}", "a path")


def _check_links(detail: dict[str, Any]) -> None:
    for place, interface in _items(detail, "interfaces"):
        _matches(interface.get("mac"), MAC, f"{place}.mac", "a MAC in lower case with colons")
        _matches(interface.get("name"), INTERFACE, f"{place}.name", "an interface name of 15 characters at most")
        _check_link(interface, place)
        for key in ("parent", "bond"):
            if interface.get(key):
                _matches(interface[key], INTERFACE, f"{place}.{key}", "an interface name")
    for place, bond in _items(detail, "bonds"):
        _matches(bond.get("name"), INTERFACE, f"{place}.name", "an interface name")
        _one_of(bond.get("mode"), BOND_MODES, f"{place}.mode")
        for index, mac in enumerate(bond.get("interfaces", [])):
            _matches(mac, MAC, f"{place}.interfaces[{index}]", "a MAC in lower case with colons")
        _check_link(bond, place)
    for place, vlan in _items(detail, "vlans"):
        _matches(vlan.get("name"), INTERFACE, f"{place}.name", "an interface name")
        _matches(vlan.get("parent"), INTERFACE, f"{place}.parent", "an interface name")
        _check_vlan(vlan.get("vlan"), f"{place}.vlan")
        _check_link(vlan, place)


def check_members(members: Any) -> None:
    _require(isinstance(members, list), members, "members", "a list")
    for index, member in enumerate(members):
        _require(isinstance(member, dict), member, f"members[{index}]", "an object")
        _matches(member.get("name"), NAME, f"members[{index}].name", "a host name")
        _check_address(member.get("address"), f"members[{index}].address")


def own_address(detail: dict[str, Any]) -> str:
    """The address other members know this machine by, else its first one, else nothing."""
    for member in detail.get("members", []):
        if member["name"] == detail["node"]:
            return str(member["address"])
    for link in (*detail.get("interfaces", []), *detail.get("bonds", []), *detail.get("vlans", [])):
        for address in link.get("addresses", []):
            return str(address).split("/", maxsplit=1)[0]
    return ""


def _items(detail: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, item in enumerate(detail.get(key) or []):
        _require(isinstance(item, dict), item, f"{key}[{index}]", "an object")
        yield f"{key}[{index}]", item


def _check_link(link: dict[str, Any], place: str) -> None:
    for index, address in enumerate(link.get("addresses") or []):
        try:
            ipaddress.ip_interface(address)
        except ValueError:
            _require(False, address, f"{place}.addresses[{index}]", "an address with its prefix length")
    for key in ("gateway", "gateway6"):
        if link.get(key):
            _check_address(link[key], f"{place}.{key}")
    if link.get("mtu") is not None:
        _require(
            type(link["mtu"]) is int and 576 <= link["mtu"] <= 65535,
            link["mtu"],
            f"{place}.mtu",
            "between 576 and 65535",
        )
    if link.get("vlan") is not None:
        _check_vlan(link["vlan"], f"{place}.vlan")


def _check_vlan(value: Any, place: str) -> None:
    _require(type(value) is int and 1 <= value <= 4094, value, place, "a VLAN id from 1 to 4094")


def _check_address(value: Any, place: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        _require(False, value, place, "an IP address")


def _check_keys(detail: dict[str, Any]) -> None:
    for index, key in enumerate(detail.get("ssh_authorized_keys") or []):
        rule = "one line"
        _require(
            isinstance(key, str) and key.isprintable() and bool(key.strip()), key, f"ssh_authorized_keys[{index}]", rule
        )
    for name, key in (detail.get("ssh_host_keys") or {}).items():
        _matches(name, HOST_KEY, "ssh_host_keys", "named like ssh_host_ed25519_key or ssh_host_ed25519_key.pub")
        # The value is a private key: it is not shown.
        _require(isinstance(key, str), "something else", f"ssh_host_keys.{name}", "text")


def _matches(value: Any, pattern: re.Pattern[str], place: str, rule: str) -> None:
    _require(isinstance(value, str) and bool(pattern.fullmatch(value)), value, place, rule)


def _one_of(value: Any, allowed: tuple[str, ...], place: str) -> None:
    _require(value in allowed, value, place, f"one of {', '.join(allowed)}")


def _require(holds: bool, value: Any, place: str, rule: str) -> None:
    if not holds:
        raise DetailError(f"{place} must be {rule}, got {value!r} (detail.json)")
