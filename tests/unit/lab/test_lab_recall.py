"""What a lab remembers of itself between two `up`s."""

from __future__ import annotations

import json
from pathlib import Path

from koguma.lab.lab import plan_of, recall
from koguma.lab.plan import Firmware


def remembered(home: Path, *firmwares: str) -> None:
    machines = [{"firmware": firmware, "cpus": 2, "memory_mib": 512, "disk_gib": 0} for firmware in firmwares]
    (home / "lab.json").write_text(json.dumps({"machines": machines}))


def test_a_new_lab_is_as_asked(tmp_path: Path) -> None:
    assert recall(plan_of("t1", tmp_path, 2)) == plan_of("t1", tmp_path, 2)


def test_machines_that_are_there_stay_as_they_were_built(tmp_path: Path) -> None:
    remembered(tmp_path, "bios")
    plan = recall(plan_of("t1", tmp_path, 2, uefi=True))
    assert [one.firmware for one in plan.hardware] == [Firmware.BIOS, Firmware.UEFI]
    assert plan.hardware[0].memory_mib == 512


def test_asking_for_fewer_machines_removes_none(tmp_path: Path) -> None:
    remembered(tmp_path, "bios", "bios", "bios")
    assert len(recall(plan_of("t1", tmp_path, 0)).machines) == 3


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text("{")
    assert len(recall(plan_of("t1", tmp_path, 1)).machines) == 1
