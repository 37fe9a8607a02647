"""What a machine says of the mirror below its root, by the kernel's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from koguma_stage2 import mirror, report


@pytest.fixture
def array(tmp_path: Path) -> Path:
    device = tmp_path.stat().st_dev
    folder = tmp_path / f"sys/dev/block/{os.major(device)}:{os.minor(device)}/md"
    folder.mkdir(parents=True)
    (folder / "raid_disks").write_text("2\n")
    (folder / "degraded").write_text("0\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2 kB\n")
    return folder


def test_disks_of_the_mirror_are_counted(array: Path, tmp_path: Path) -> None:
    assert mirror.figures(tmp_path) == {"disks": 2, "working": 2}
    (array / "degraded").write_text("1\n")
    assert report._body(tmp_path)["mirror"] == {"disks": 2, "working": 1}


def test_another_root_has_no_mirror(array: Path, tmp_path: Path) -> None:
    array.rename(array.with_name("no-md"))
    assert mirror.figures(tmp_path) is None
    assert "mirror" not in report._body(tmp_path)
