"""Decides which node a registering machine is: by SMBIOS UUID, serial number and MACs together. Pure.

A machine is the node with its UUID when nothing speaks against it: no other serial number, no MAC of another node, and
one thing besides the UUID in common, because careless vendors give one UUID to many boards. Without such a node it is
new, when none of its identifiers is another node's. Serial numbers that are a vendor's placeholder arrive here as
empty text and identify nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koguma.lifecycle.errors import IdentityConflict, NotAcceptedNow
from koguma.model.states import ProvisionState

OPEN_STATES = frozenset(
    {
        ProvisionState.ENROLL,
        ProvisionState.VERIFYING,
        ProvisionState.INSPECTING,
        ProvisionState.INSPECT_WAIT,
        ProvisionState.INSPECT_FAILED,
    }
)
"""Where a registration may change a node: nobody relies on it yet, or its hardware is being asked for."""


@dataclass(frozen=True)
class Known:
    """What is on record of a node that shares an identifier with the machine."""

    uuid: str
    serial: str
    macs: frozenset[str]


def which_node(uuid: str, serial: str, macs: Sequence[str], known: Sequence[Known]) -> Known | None:
    """The node the machine is, or None when it is new. Raises IdentityConflict, which tells nothing of another node."""
    for mac in macs:
        if any(mac in node.macs and node.uuid != uuid for node in known):
            raise IdentityConflict(f"a MAC address belongs to one machine, {mac} is another node's")
    if serial and any(node.serial == serial and node.uuid != uuid for node in known):
        raise IdentityConflict(f"a serial number belongs to one machine, {serial!r} is another node's")
    same = next((node for node in known if node.uuid == uuid), None)
    if same is None:
        return None
    if serial and same.serial and serial != same.serial:
        raise IdentityConflict(f"a UUID belongs to one machine, {uuid} is on record with another serial number")
    if not (serial and serial == same.serial) and same.macs and not same.macs & set(macs):
        raise IdentityConflict(f"a UUID belongs to one machine, {uuid} is on record with other MAC addresses")
    return same


def reject_unless_open(state: ProvisionState, *, changes_bmc: bool) -> bool:
    """Whether the registration may change the node; telling again what is known is always harmless. Raises
    NotAcceptedNow.
    """
    if state in OPEN_STATES:
        return True
    if changes_bmc:
        raise NotAcceptedNow(
            f"a registration may change the BMC's credentials of a node in {ProvisionState.ENROLL.value!r} only,"
            f" this node is {state.value!r}"
        )
    return False
