"""Open vSwitch, through its database."""

from __future__ import annotations

from koguma.contracts.switches import SwitchAccess
from koguma.drivers.switch.ovs.driver import OvsSwitch


def open_switch(access: SwitchAccess) -> OvsSwitch:
    return OvsSwitch(access)
