"""Power and management over IPMI 2.0 (RMCP+), by `ipmitool -I lanplus`."""

from __future__ import annotations

from koguma.contracts.power import Access
from koguma.drivers.power.ipmi.driver import IpmiPower
from koguma.drivers.power.ipmi.management import IpmiManagement


def open_power(access: Access) -> IpmiPower:
    return IpmiPower(access)


def open_management(access: Access) -> IpmiManagement:
    return IpmiManagement(access)
