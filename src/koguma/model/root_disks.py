"""Which disks of a machine its root goes to: one, or two that mirror each other. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koguma.errors import KogumaError

_ASKED = {"controller": "software", "raid_level": "1", "size_gb": "MAX"}
"""Of Ironic's logical disks, the one that stage 1 makes."""


class BadRootDisks(KogumaError):
    """What a node or its flavor says of the disks for the root cannot be followed."""


@dataclass(frozen=True)
class RootDisks:
    hints: Mapping[str, Any]
    """Ironic's root-device hints."""
    mirror: Mapping[str, Any] | None = None
    """Hints for the second disk; None where the root is on one."""


def root_disks(
    root_device: object, target_raid_config: Mapping[str, Any], requirements: Mapping[str, Any]
) -> RootDisks:
    """By the node's hints and its RAID configuration, in Ironic's words, or else by `root_disks` of the flavor's
    requirements. Raises BadRootDisks.
    """
    hints = root_device if isinstance(root_device, Mapping) else {}
    if target_raid_config:
        return _of_raid(target_raid_config, hints)
    count = requirements.get("root_disks", 1)
    if count not in (1, 2) or isinstance(count, bool):
        raise BadRootDisks(f"a root must be on 1 disk or on 2, got {count!r} (requirements.root_disks of the flavor)")
    return RootDisks(hints, hints if count == 2 else None)


def _of_raid(config: Mapping[str, Any], hints: Mapping[str, Any]) -> RootDisks:
    place = "target_raid_config.logical_disks"
    logical = config.get("logical_disks")
    if not isinstance(logical, list) or len(logical) != 1 or not isinstance(logical[0], Mapping):
        raise BadRootDisks(f"a software RAID must be one logical disk, got {logical!r} ({place})")
    for key, value in _ASKED.items():
        if logical[0].get(key) != value:
            raise BadRootDisks(f"{key} of a software RAID must be {value!r}, got {logical[0].get(key)!r} ({place}[0])")
    members = logical[0].get("physical_disks", [hints, hints])
    if not isinstance(members, list) or len(members) != 2 or not all(isinstance(item, Mapping) for item in members):
        raise BadRootDisks(
            f"physical_disks of a software RAID must be hints for two disks, got {members!r} ({place}[0])"
        )
    return RootDisks(*members)
