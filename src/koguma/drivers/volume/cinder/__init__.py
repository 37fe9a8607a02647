"""Volumes of OpenStack's Cinder, by the library `openstacksdk` (the extra `koguma[openstack]`), which takes most of a
second to load: only those who open such a storage do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koguma.contracts.errors import VolumeRefused
from koguma.contracts.volumes import VolumeAccess

if TYPE_CHECKING:
    from koguma.drivers.volume.cinder.driver import CinderVolumes


def open_volumes(access: VolumeAccess) -> CinderVolumes:
    """Raises VolumeRefused where the library is not installed."""
    try:
        from koguma.drivers.volume.cinder.driver import CinderVolumes  # noqa: PLC0415 - start-up time, see above
    except ModuleNotFoundError as error:
        raise VolumeRefused(f"driver cinder needs the extra koguma[openstack]: no module {error.name!r}") from None
    return CinderVolumes(access)
