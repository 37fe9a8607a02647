"""Power drivers, one folder each; `open_power` finds the one a node's BMC record names. README.md tells how to add
one.
"""

from __future__ import annotations

import re
from importlib import import_module

from koguma.contracts.errors import UnknownDriver
from koguma.contracts.power import Access, PowerDriver


def open_power(access: Access) -> PowerDriver:
    """The driver for this BMC. Raises UnknownDriver."""
    if re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", access.driver):
        try:
            module = import_module(f"koguma.drivers.power.{access.driver.replace('-', '_')}")
        except ModuleNotFoundError:
            pass
        else:
            driver: PowerDriver = module.open_power(access)
            return driver
    raise UnknownDriver(f"a power driver must be one of those in koguma/drivers/power, got {access.driver!r}")
