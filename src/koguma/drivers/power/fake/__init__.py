"""Machines that do not exist, for tests and trials: one FakeMachine for each address.

With `KOGUMA_FAKE_HARDWARE` set to a directory, machines live in files there, so that they outlive a worker and are the
same to all of them (`stored.py`); otherwise in memory, for the life of the process.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from koguma.contracts.management import FakeMachine
from koguma.contracts.power import Access
from koguma.drivers.power.fake.stored import StoredMachine

_machines: dict[str, FakeMachine] = {}
_lock = threading.Lock()


def open_power(access: Access) -> FakeMachine:
    directory = os.environ.get("KOGUMA_FAKE_HARDWARE")
    if directory:
        return StoredMachine(Path(directory), access.address)
    with _lock:
        return _machines.setdefault(access.address, FakeMachine())


def open_management(access: Access) -> FakeMachine:
    return open_power(access)
