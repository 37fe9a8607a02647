"""Power of machines that do not exist, for tests and trials: one FakePower for each address, kept for the life of the
process.
"""

from __future__ import annotations

import threading

from koguma.contracts.power import Access, FakePower

_machines: dict[str, FakePower] = {}
_lock = threading.Lock()


def open_power(access: Access) -> FakePower:
    with _lock:
        return _machines.setdefault(access.address, FakePower())
