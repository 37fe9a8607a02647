"""Power of `fake-hardware`: machines that exist on record only, so the record is their power, whoever asks.

`driver_info` may say `fake_power_delay_s`, how long a change takes, and `fake_power_failure`, why none is possible.
"""

from __future__ import annotations

import time

from koguma.contracts.errors import PowerRefused, PowerTimeout
from koguma.contracts.power import Access
from koguma.model.states import PowerState


def open_power(access: Access) -> FakeHardwarePower:
    return FakeHardwarePower(access)


class FakeHardwarePower:
    """`koguma.contracts.power.PowerDriver`. The caller writes down what it set."""

    def __init__(self, access: Access) -> None:
        self._state: PowerState = PowerState.OFF if access.recorded is PowerState.UNKNOWN else access.recorded
        self._delay_s = float(access.options.get("fake_power_delay_s", 0))
        self._failure = access.options.get("fake_power_failure")

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        self._answer(0.0, timeout_s)
        return self._state

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        if self._state is not target:
            self._answer(self._delay_s, timeout_s)
            self._state = target

    def request_shutdown(self, *, timeout_s: float) -> None:
        self.set_power_state(PowerState.OFF, timeout_s=timeout_s)

    def _answer(self, delay_s: float, timeout_s: float) -> None:
        if self._failure:
            raise PowerRefused(f"{self._failure} (fake-hardware)")
        time.sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise PowerTimeout(f"the power must change within {timeout_s:g} s, it takes {delay_s:g} s (fake-hardware)")
