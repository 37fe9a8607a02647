"""Arista EOS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koguma.contracts.switches import SwitchAccess

if TYPE_CHECKING:
    from koguma.drivers.switch.netmiko.driver import CliSwitch


def open_switch(access: SwitchAccess) -> CliSwitch:
    # Only those who open such a switch import netmiko, which takes a while.
    from koguma.drivers.switch.netmiko.driver import CliSwitch  # noqa: PLC0415 - start-up time
    from koguma.drivers.switch.netmiko.eos.dialect import Eos  # noqa: PLC0415 - start-up time

    return CliSwitch(access, Eos())
