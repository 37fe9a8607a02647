"""Which disks a root goes to, by what a node and its flavor say."""

from __future__ import annotations

from typing import Any

import pytest

from koguma.model.root_disks import BadRootDisks, RootDisks, root_disks

HINTS = {"size": ">= 100"}
MIRROR = {"controller": "software", "raid_level": "1", "size_gb": "MAX"}


def raid(**changed: Any) -> dict[str, Any]:
    return {"logical_disks": [MIRROR | changed]}


def test_a_root_is_on_one_disk_unless_two_are_asked_for() -> None:
    assert root_disks(HINTS, {}, {}) == RootDisks(HINTS)
    assert root_disks(None, {}, {}) == RootDisks({})
    assert root_disks(HINTS, {}, {"root_disks": 2}) == RootDisks(HINTS, HINTS)


def test_ironics_software_raid_counts_more_than_the_flavor_and_chooses_each_disk() -> None:
    assert root_disks(HINTS, raid(is_root_volume=True), {"root_disks": 1}) == RootDisks(HINTS, HINTS)
    members = [{"name": "/dev/sda"}, {"name": "/dev/sdb"}]
    assert root_disks(HINTS, raid(physical_disks=members), {}) == RootDisks(*members)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (raid(raid_level="5"), "raid_level of a software RAID must be '1', got '5'"),
        (raid(controller="hardware"), "controller of a software RAID must be 'software'"),
        (raid(size_gb=100), "size_gb of a software RAID must be 'MAX', got 100"),
        (raid(physical_disks=[{}]), "hints for two disks"),
        (raid(physical_disks=["sda", "sdb"]), "hints for two disks"),
        ({"logical_disks": [MIRROR, MIRROR]}, "must be one logical disk"),
        ({"logical_disks": "x"}, "must be one logical disk"),
    ],
)
def test_a_raid_that_stage_1_does_not_make_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRootDisks, match=said):
        root_disks(HINTS, config, {})


@pytest.mark.parametrize("count", [0, 3, True, "2", None])
def test_a_number_of_disks_that_is_neither_one_nor_two_is_refused(count: object) -> None:
    with pytest.raises(BadRootDisks, match=r"requirements\.root_disks"):
        root_disks(HINTS, {}, {"root_disks": count})
