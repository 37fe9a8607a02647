"""Labels as the boot service reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from koguma.boot.labels import Labels

PUBLISHED = '{"format": "koguma-labels/1", "labels": {"compute": {"commit": "%s", "kind": "branch"}}}'


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"labels": {"compute": 1}}'])
def test_a_damaged_list_of_labels_takes_none_from_a_machine(
    tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "boot" / "labels.json"
    path.parent.mkdir()
    path.write_text(PUBLISHED % ("1" * 64))
    labels = Labels(tmp_path)
    assert labels.all()["compute"].commit == "1" * 64
    path.write_text(damaged)
    os.utime(path, ns=(1, 1))

    assert labels.all()["compute"].commit == "1" * 64
    assert "must be readable" in caplog.text
    path.write_text(PUBLISHED % ("2" * 64))
    assert labels.all()["compute"].commit == "2" * 64
