"""PowerDriver: what the lifecycle asks of a BMC, and a stateful fake with delays and failures one can set.

`tests/contract/test_power.py` holds every driver, the fake included, to what is said here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from koguma.contracts.errors import PowerError, PowerTimeout
from koguma.model.states import PowerState


@dataclass(frozen=True)
class Access:
    """How to reach one BMC."""

    driver: str
    address: str
    username: str = ""
    password: str = field(default="", repr=False)
    port: int | None = None
    recorded: PowerState = PowerState.UNKNOWN
    """What is on record of the power: machines that do not exist have no other memory."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else the node's `driver_info` says, secrets included."""


class PowerDriver(Protocol):
    """One machine's power. Every call ends within its timeout and raises PowerError otherwise; `retry` on the error
    tells whether the same call may succeed later.
    """

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        """ON or OFF, as the BMC says now."""

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        """Bring the power to ON or OFF at once, and return when the BMC confirms it. Harmless when it is so already.

        Raises PowerTimeout when the BMC does not confirm in time.
        """

    def request_shutdown(self, *, timeout_s: float) -> None:
        """Ask the machine's operating system to power off (ACPI); returns when the BMC took the wish."""


OpenPower = Callable[[Access], PowerDriver]
"""Makes the driver that `Access.driver` names. Raises UnknownDriver."""


class FakePower:
    """A machine's power that exists in memory only.

    `failures` are raised, one for each call, before anything else; `delay_s` passes (by `sleep`) before an answer;
    `stuck` leaves the power as it is; `on_change` is told of every change.
    """

    def __init__(self, state: PowerState = PowerState.OFF, sleep: Callable[[float], None] = time.sleep) -> None:
        self.state = state
        self.delay_s = 0.0
        self.failures: list[PowerError] = []
        self.stuck = False
        self.obeys_shutdown = True
        self.calls: list[str] = []
        self.on_change: Callable[[PowerState], None] = lambda _: None
        self._sleep = sleep
        self._lock = threading.Lock()

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        self._answer("get", timeout_s)
        return self.state

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        self._answer(f"set {target.value}", timeout_s)
        if self.stuck:
            raise PowerTimeout(
                f"the power must be {target.value!r} within {timeout_s:g} s, it is {self.state.value!r} (fake)"
            )
        self._become(target)

    def request_shutdown(self, *, timeout_s: float) -> None:
        self._answer("shutdown", timeout_s)
        if self.obeys_shutdown and not self.stuck:
            self._become(PowerState.OFF)

    def _answer(self, call: str, timeout_s: float) -> None:
        with self._lock:
            self.calls.append(call)
            failure = self.failures.pop(0) if self.failures else None
        if self.delay_s > timeout_s:
            self._sleep(timeout_s)
            raise PowerTimeout(f"the BMC must answer within {timeout_s:g} s (fake)")
        if self.delay_s:
            self._sleep(self.delay_s)
        if failure:
            raise failure

    def _become(self, target: PowerState) -> None:
        if self.state is not target:
            self.state = target
            self.on_change(target)
