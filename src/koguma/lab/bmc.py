"""What the lab asks of a BMC, whatever it speaks: `ipmi_bmc` and `redfish_bmc` are the two kinds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

FACTORY_USER = "admin"
FACTORY_PASSWORD = "factory"  # noqa: S105  printed on the chassis, so to speak: a BMC leaves the factory with it
LINK = "bmc"
"""The BMC's interface inside the chassis."""


class PowerAction(Enum):
    """What a BMC is asked to do; the values are ipmitool's words."""

    ON = "on"  # start the machine; nothing when it is on
    OFF = "off"  # cut the power
    CYCLE = "cycle"  # off, and on a second later
    RESET = "reset"  # the reset button
    SOFT = "soft"  # the power button: ask the operating system to shut down


@dataclass(frozen=True)
class Account:
    """A user of a BMC."""

    username: str = FACTORY_USER
    password: str = FACTORY_PASSWORD


class Bmc(Protocol):
    """The BMC of one machine, seen from the lab: started and stopped here, spoken with over the network only.

    Every question raises CommandError when it is not answered.
    """

    def up(self) -> None:
        """Ensure that the BMC has its address and answers."""

    def running(self) -> bool: ...

    def address(self) -> str:
        """Where it answers now."""

    def power(self, action: PowerAction, account: Account | None = None) -> None: ...

    def power_is_on(self, account: Account | None = None) -> bool: ...

    def power_is_on_or_none(self, account: Account | None = None) -> bool | None:
        """None: the BMC cannot be reached, or refuses this account."""

    def credentials(self) -> dict[str, str] | None:
        """What an operator tells Koguma of it, as the API takes it; None when the machine tells it itself."""
