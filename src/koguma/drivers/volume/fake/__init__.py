"""Storages that do not exist, for tests and trials: one FakeVolumes for each address, kept for the life of the
process.
"""

from __future__ import annotations

import threading

from koguma.contracts.volumes import FakeVolumes, VolumeAccess

_storages: dict[str, FakeVolumes] = {}
_lock = threading.Lock()


def open_volumes(access: VolumeAccess) -> FakeVolumes:
    with _lock:
        return _storages.setdefault(access.address, FakeVolumes())
