"""Power and management over Redfish, by the `sushy` library. Only those who open a Redfish BMC import sushy and the
HTTP client below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koguma.contracts.power import Access

if TYPE_CHECKING:
    from koguma.drivers.power.redfish.management import RedfishManagement
    from koguma.drivers.power.redfish.power import RedfishPower


def open_power(access: Access) -> RedfishPower:
    from koguma.drivers.power.redfish.power import RedfishPower  # noqa: PLC0415 - start-up time, see above

    return RedfishPower(access)


def open_management(access: Access) -> RedfishManagement:
    from koguma.drivers.power.redfish.management import RedfishManagement  # noqa: PLC0415 - start-up time

    return RedfishManagement(access)
