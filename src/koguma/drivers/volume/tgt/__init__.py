"""Files served over iSCSI by `tgtd`, on the host of the worker."""

from __future__ import annotations

from koguma.contracts.volumes import VolumeAccess
from koguma.drivers.volume.tgt.driver import TgtVolumes


def open_volumes(access: VolumeAccess) -> TgtVolumes:
    return TgtVolumes(access)
