"""Switch: what the site knows of one, and Placement: what Koguma last put a port of it into. Values only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from koguma.model.errors import InvalidValue
from koguma.model.names import noun_name, shown

PARKING_VLAN = 999


@dataclass(frozen=True)
class Switch:
    """Without its secrets, which stores hand out on their own."""

    name: str
    driver: str
    address: str
    username: str = ""
    port: int | None = None
    host_key: str = ""
    chassis: str = ""
    """What it calls itself in LLDP, or its MAC as `switch_id` of a port says it; empty: its name."""
    parking_vlan: int = PARKING_VLAN
    """Where ports go that are in no network: a VLAN that leads nowhere."""
    version: int = 1

    def is_called(self, text: object) -> bool:
        return isinstance(text, str) and text.lower() in {self.name.lower(), self.chassis.lower()} - {""}


@dataclass(frozen=True)
class Placement:
    """A port as Koguma left it: the VLANs that were read back after the write, and what for."""

    switch: str
    port: str
    node: str | None
    """UUID; None when the node was forgotten."""
    network: str
    """Names of networks, or `parking`."""
    untagged: int | None
    tagged: tuple[int, ...] = ()
    bond: int | None = None
    written_at: datetime | None = None


def validated(switch: Switch) -> Switch:
    """Raises InvalidValue."""
    place = f"(switch {switch.name})"
    noun_name(switch.name, "switch name")
    for key in ("address", "username", "host_key", "chassis"):
        if not getattr(switch, key).isprintable() or len(getattr(switch, key)) > 1000:
            raise InvalidValue(f"{key} must be one line, got {shown(getattr(switch, key))} {place}")
    if not switch.address:
        raise InvalidValue(f"a switch must have an address {place}")
    if not 1 <= switch.parking_vlan <= 4094:
        raise InvalidValue(f"parking_vlan must be 1 to 4094, got {switch.parking_vlan} {place}")
    if switch.port is not None and not 1 <= switch.port <= 65535:
        raise InvalidValue(f"port must be 1 to 65535, got {switch.port} {place}")
    return replace(switch, chassis=switch.chassis.strip())
