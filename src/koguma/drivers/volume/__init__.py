"""Volume drivers, one folder each; `open_volumes` finds the one a storage's record names. README.md tells how to add
one.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

from koguma.contracts.errors import UnknownVolumeDriver
from koguma.contracts.volumes import VolumeAccess, VolumeDriver


def open_volumes(access: VolumeAccess) -> VolumeDriver:
    """The driver for this storage. Raises UnknownVolumeDriver."""
    name = f"koguma.drivers.volume.{access.driver}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", access.driver) or find_spec(name) is None:
        raise UnknownVolumeDriver(
            f"a volume driver must be one of those in koguma/drivers/volume, got {access.driver!r}"
        )
    driver: VolumeDriver = import_module(name).open_volumes(access)
    return driver
