"""Switch drivers, one folder each; `open_switch` finds the one a switch's record names. README.md tells how to add
one.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

from koguma.contracts.errors import UnknownSwitchDriver
from koguma.contracts.switches import SwitchAccess, SwitchDriver

_FAMILIES = ("koguma.drivers.switch", "koguma.drivers.switch.netmiko")


def open_switch(access: SwitchAccess) -> SwitchDriver:
    """The driver for this switch. Raises UnknownSwitchDriver."""
    if re.fullmatch(r"[a-z][a-z0-9_]{0,31}", access.driver):
        for family in _FAMILIES:
            name = f"{family}.{access.driver}"
            if find_spec(name) is None:
                continue
            if opener := getattr(import_module(name), "open_switch", None):
                driver: SwitchDriver = opener(access)
                return driver
    raise UnknownSwitchDriver(f"a switch driver must be one of those in koguma/drivers/switch, got {access.driver!r}")
