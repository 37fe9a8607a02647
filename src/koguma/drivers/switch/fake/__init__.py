"""Switches that do not exist, for tests and trials: one FakeSwitch for each address, kept for the life of the process.
It has whatever port it is asked for.
"""

from __future__ import annotations

import threading

from koguma.contracts.switches import FakeSwitch, SwitchAccess

_switches: dict[str, FakeSwitch] = {}
_lock = threading.Lock()


def open_switch(access: SwitchAccess) -> FakeSwitch:
    with _lock:
        return _switches.setdefault(access.address, FakeSwitch())
