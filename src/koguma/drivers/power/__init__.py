"""Drivers of BMCs, one folder each; `open_power` and `open_management` find the one a node's BMC record names.
README.md tells how to add one.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from koguma.contracts.errors import UnknownDriver, Unsupported
from koguma.contracts.management import ManagementDriver
from koguma.contracts.power import Access, PowerDriver


def open_power(access: Access) -> PowerDriver:
    """The driver for this BMC. Raises UnknownDriver."""
    driver: PowerDriver = _module(access).open_power(access)
    return driver


def open_management(access: Access) -> ManagementDriver:
    """The driver for all that this BMC can do beside power. Raises UnknownDriver or Unsupported."""
    opener = getattr(_module(access), "open_management", None)
    if opener is None:
        raise Unsupported(f"a BMC must be managed by a driver that can do more than power, got {access.driver!r}")
    driver: ManagementDriver = opener(access)
    return driver


def _module(access: Access) -> ModuleType:
    name = f"koguma.drivers.power.{access.driver.replace('-', '_')}"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", access.driver) or find_spec(name) is None:
        raise UnknownDriver(f"a power driver must be one of those in koguma/drivers/power, got {access.driver!r}")
    return import_module(name)
