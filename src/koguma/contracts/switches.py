"""SwitchDriver: what the lifecycle asks of a switch, the values it speaks in, and a stateful fake.

`tests/contract/test_switches.py` holds every driver, the fake included, to what is said here. Drivers take no lock:
whoever calls them writes to one switch from one place at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from koguma.contracts.errors import SwitchDiffers, SwitchError, SwitchRefused, SwitchUnreachable
from koguma.model.errors import InvalidValue

VLAN_MAX = 4094
BOND_MAX = 999


@dataclass(frozen=True)
class SwitchAccess:
    """How to reach one switch. Stores keep `password` and `private_key` sealed and hand out this plain value."""

    driver: str
    address: str
    """A host name or address; for `ovs` the database, as `unix:/run/openvswitch/db.sock` or `tcp:192.0.2.1:6640`."""
    username: str = ""
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    """An OpenSSH private key, as text; used instead of the password."""
    host_key: str = ""
    """What an SSH server must prove to be: `ssh-ed25519 AAAA…`. Without it nothing is sent there."""
    port: int | None = None


@dataclass(frozen=True)
class PortVlans:
    """What a port or a bond does with frames: `untagged` is the VLAN of frames without a tag (an access port's VLAN, a
    trunk's native one; None: such frames are dropped), `tagged` the VLANs that pass with their tag, in order.

    Raises InvalidValue. At least one VLAN is needed: a port that must reach nothing goes into a VLAN of its own.
    """

    untagged: int | None = None
    tagged: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for vlan in (*self.tagged, *([] if self.untagged is None else [self.untagged])):
            if not 1 <= vlan <= VLAN_MAX:
                raise InvalidValue(f"a VLAN of a switch port must be 1 to {VLAN_MAX}, got {vlan}")
        if self.untagged is None and not self.tagged:
            raise InvalidValue("a switch port must be in at least one VLAN, got none")
        if self.untagged in self.tagged:
            raise InvalidValue(f"a VLAN must be either untagged or tagged on a port, got both for {self.untagged}")
        object.__setattr__(self, "tagged", tuple(sorted(set(self.tagged))))

    @classmethod
    def access(cls, vlan: int) -> PortVlans:
        return cls(vlan)

    @classmethod
    def trunk(cls, tagged: Iterable[int], native: int | None = None) -> PortVlans:
        return cls(native, tuple(tagged))

    @property
    def every(self) -> tuple[int, ...]:
        return tuple(sorted({*self.tagged, *([] if self.untagged is None else [self.untagged])}))

    def __str__(self) -> str:
        untagged = "no untagged VLAN" if self.untagged is None else f"VLAN {self.untagged} untagged"
        return f"{untagged}, {ranges(self.tagged)} tagged" if self.tagged else untagged


@dataclass(frozen=True)
class Bond:
    """An LACP bond of ports of one switch. The switch's own name for it is made of its number."""

    number: int
    members: tuple[str, ...]
    vlans: PortVlans

    def __post_init__(self) -> None:
        if not 1 <= self.number <= BOND_MAX:
            raise InvalidValue(f"a bond's number must be 1 to {BOND_MAX}, got {self.number}")
        if not self.members:
            raise InvalidValue(f"a bond must have at least one member, got none (bond {self.number})")
        object.__setattr__(self, "members", tuple(sorted(set(self.members))))


@dataclass(frozen=True)
class Observed:
    """A switch as it reads back: only what concerns VLANs and bonds."""

    ports: Mapping[str, PortVlans | None]
    """By name; None: the port is routed, a member of a bond, or in no VLAN."""
    bonds: Mapping[int, Bond]
    foreign: frozenset[str] = frozenset()
    """Ports in bonds that no driver of ours made: of another name or mode."""

    def bond_of(self, port: str) -> Bond | None:
        return next((bond for bond in self.bonds.values() if port in bond.members), None)


class SwitchDriver(Protocol):
    """One switch. Every call ends within about its timeout and raises SwitchError otherwise; `retry` on the error tells
    whether the same call may succeed later. A write reads back what it wrote and raises SwitchDiffers when that is
    something else; writing what is so already changes nothing. At no moment of a write is the port in a VLAN that is
    neither in what was nor in what will be.
    """

    def observe(self, *, timeout_s: float) -> Observed:
        """All ports and bonds."""

    def set_port(self, port: str, vlans: PortVlans, *, timeout_s: float) -> bool:
        """Ensure that a port is in these VLANs, which are made where they are missing; tells whether it was changed.

        Raises SwitchRefused for a port that does not exist or is a member of a bond.
        """

    def set_bond(self, bond: Bond, *, timeout_s: float) -> bool:
        """Ensure that the bond exists with LACP active, these members and these VLANs; tells whether it was changed.

        Raises SwitchRefused when a port does not exist, is in another bond, or is a member that `bond` leaves out:
        where such a port should go is not said here, so the bond is removed first.
        """

    def remove_bond(self, number: int, vlans: PortVlans, *, timeout_s: float) -> bool:
        """Ensure that there is no such bond; the ports that were in it are then in `vlans`, each for itself."""


OpenSwitch = Callable[[SwitchAccess], SwitchDriver]
"""Makes the driver that `SwitchAccess.driver` names. Raises UnknownSwitchDriver."""


def require_free_port(observed: Observed, port: str, place: str) -> None:
    """A port that can be set on its own. Raises SwitchRefused."""
    if port not in observed.ports:
        raise SwitchRefused(f"a port must exist on the switch, got {port!r} ({place})")
    if bond := observed.bond_of(port):
        raise SwitchRefused(f"a port must be set through its bond {bond.number}, got {port!r} ({place})")
    if port in observed.foreign:
        raise SwitchRefused(f"a port must not be in a bond that somebody else made, got {port!r} ({place})")


def require_free_members(observed: Observed, bond: Bond, place: str) -> None:
    """Members that can form this bond. Raises SwitchRefused."""
    for port in bond.members:
        if port not in observed.ports:
            raise SwitchRefused(f"a port must exist on the switch, got {port!r} ({place})")
        other = observed.bond_of(port)
        if other and other.number != bond.number:
            raise SwitchRefused(f"a port must be in one bond, {port!r} is in bond {other.number} ({place})")
        if port in observed.foreign:
            raise SwitchRefused(f"a port must not be in a bond that somebody else made, got {port!r} ({place})")
    before = observed.bonds.get(bond.number)
    leaving = sorted(set(before.members) - set(bond.members)) if before else []
    if leaving:
        raise SwitchRefused(
            f"a bond must be removed before a member leaves it, got bond {bond.number} without {', '.join(leaving)}"
            f" ({place})"
        )


def ranges(vlans: Iterable[int]) -> str:
    """`1-3,7` of 1, 2, 3 and 7."""
    parts: list[list[int]] = []
    for vlan in sorted(set(vlans)):
        if parts and parts[-1][-1] == vlan - 1:
            parts[-1] = [parts[-1][0], vlan]
        else:
            parts.append([vlan, vlan])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


class FakeSwitch:
    """A switch that exists in memory only.

    `failures` are raised, one for each call, before anything else; `delay_s` passes (by `sleep`) before an answer;
    `deaf` takes every command and does nothing.
    """

    def __init__(self, ports: Iterable[str] = (), sleep: Callable[[float], None] = time.sleep) -> None:
        self.observed = Observed(dict.fromkeys(ports, PortVlans.access(1)), {})
        self.any_port = not self.observed.ports
        """Without a list of ports, every port that is asked for exists."""
        self.delay_s = 0.0
        self.failures: list[SwitchError] = []
        self.deaf = False
        self.calls: list[str] = []
        self._sleep = sleep
        self._lock = threading.Lock()

    def observe(self, *, timeout_s: float) -> Observed:
        self._answer("observe", timeout_s)
        return self.observed

    def set_port(self, port: str, vlans: PortVlans, *, timeout_s: float) -> bool:
        self._answer(f"port {port}: {vlans}", timeout_s)
        self._plug_in(port)
        require_free_port(self.observed, port, "fake")
        return self._become(replace(self.observed, ports={**self.observed.ports, port: vlans}))

    def set_bond(self, bond: Bond, *, timeout_s: float) -> bool:
        self._answer(f"bond {bond.number} of {', '.join(bond.members)}: {bond.vlans}", timeout_s)
        self._plug_in(*bond.members)
        require_free_members(self.observed, bond, "fake")
        ports = {**self.observed.ports, **dict.fromkeys(bond.members)}
        return self._become(Observed(ports, {**self.observed.bonds, bond.number: bond}))

    def remove_bond(self, number: int, vlans: PortVlans, *, timeout_s: float) -> bool:
        self._answer(f"no bond {number}: {vlans}", timeout_s)
        bond = self.observed.bonds.get(number)
        if bond is None:
            return False
        bonds = {key: value for key, value in self.observed.bonds.items() if key != number}
        return self._become(Observed({**self.observed.ports, **dict.fromkeys(bond.members, vlans)}, bonds))

    def _plug_in(self, *ports: str) -> None:
        if self.any_port:
            missing = {port: PortVlans.access(1) for port in ports if port not in self.observed.ports}
            self.observed = replace(self.observed, ports={**self.observed.ports, **missing})

    def _answer(self, call: str, timeout_s: float) -> None:
        with self._lock:
            self.calls.append(call)
            failure = self.failures.pop(0) if self.failures else None
        if self.delay_s > timeout_s:
            self._sleep(timeout_s)
            raise SwitchUnreachable(f"the switch must answer within {timeout_s:g} s (fake)")
        if self.delay_s:
            self._sleep(self.delay_s)
        if failure:
            raise failure

    def _become(self, target: Observed) -> bool:
        if target == self.observed:
            return False
        if self.deaf:
            raise SwitchDiffers("the switch must read back what was written, nothing changed (fake)")
        self.observed = target
        return True
