"""A BMC's LAN settings: what ipmi_sim's `lan_config_program` runs, inside the chassis namespace.

    python -I -S lan_settings.py FILE LINK get NAME…
    python -I -S lan_settings.py FILE LINK set|check NAME VALUE [NAME VALUE…]
    python -I -S lan_settings.py FILE LINK apply

FILE holds `name:value` lines and outlives the BMC. `set` writes it and gives LINK the new address at once, so that
an address set in-band is where the BMC answers from then on. Standard library only: it runs for every parameter that
is read.
"""

from __future__ import annotations

import os
import re
import sys
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

ZERO_IP = "0.0.0.0"  # noqa: S104  "no gateway" in IPMI's words, not an address to listen on
ZERO_MAC = "00:00:00:00:00:00"
DEFAULTS = {
    "ip_addr": ZERO_IP,
    "ip_addr_src": "static",
    "mac_addr": ZERO_MAC,
    "subnet_mask": ZERO_IP,
    "default_gw_ip_addr": ZERO_IP,
    "default_gw_mac_addr": ZERO_MAC,
    "backup_gw_ip_addr": ZERO_IP,
    "backup_gw_mac_addr": ZERO_MAC,
}
MAC = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}")


def main(arguments: list[str]) -> int:
    """What it prints on failure reaches ipmi_sim's log, and its status 1 the machine that asked."""
    file, link, verb, *words = arguments
    try:
        settings = read(Path(file))
        if verb == "get":
            sys.stdout.write("".join(f"{name}:{settings[name]}\n" for name in words))
            return 0
        changed = settings | changes(words)
        if verb == "set":
            write(Path(file), changed)
        if verb in ("set", "apply"):
            apply(changed, link)
    except (ValueError, KeyError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


def read(path: Path) -> dict[str, str]:
    """The settings, with defaults for those that are missing."""
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines if ":" in line)
    return DEFAULTS | {name: value for name, _, value in pairs if name in DEFAULTS}


def write(path: Path, settings: dict[str, str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with part.open("w", encoding="ascii") as stream:
        stream.write("".join(f"{name}:{value}\n" for name, value in settings.items()))
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(path)


def changes(words: list[str]) -> dict[str, str]:
    """Pairs of name and value, validated; ValueError says what is wrong."""
    if len(words) % 2:
        raise ValueError(f"every parameter needs a value, got {' '.join(words)!r}")
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    for name, value in pairs.items():
        if name not in DEFAULTS:
            raise ValueError(f"there is no such parameter: {name!r}")
        if name == "ip_addr_src":
            if value != "static":
                raise ValueError(f"the BMC network has no DHCP: the address source must be static, got {value!r}")
        elif name.endswith("mac_addr"):
            if not MAC.fullmatch(value.lower()):
                raise ValueError(f"{name} must be a MAC address, got {value!r}")
        else:
            IPv4Address(value)
    return pairs


def apply(settings: dict[str, str], link: str) -> None:
    """Give the link what the settings say. Several are set one after the other, so half-set ones are no error."""
    if settings["mac_addr"] != ZERO_MAC:
        _ip("link", "set", "dev", link, "address", settings["mac_addr"])
    if ZERO_IP in (settings["ip_addr"], settings["subnet_mask"]):
        return
    interface = IPv4Interface(f"{settings['ip_addr']}/{settings['subnet_mask']}")
    _ip("address", "flush", "dev", link)
    _ip("address", "add", str(interface), "dev", link)
    gateway = settings["default_gw_ip_addr"]
    if gateway != ZERO_IP and IPv4Address(gateway) in interface.network and IPv4Address(gateway) != interface.ip:
        _ip("route", "replace", "default", "via", gateway, "dev", link)


def _ip(*words: str) -> None:
    status = os.spawnvp(os.P_WAIT, "ip", ["ip", *words])  # noqa: S606  no shell is the point
    if status != 0:
        raise OSError(f"ip {' '.join(words)} failed with status {status}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
