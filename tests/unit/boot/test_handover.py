"""The second initramfs, read back by cpio and by a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from koguma.boot.handover import handover


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_and_shell_read_back_what_was_handed_over(tmp_path: Path) -> None:
    odd = 'it\'s $(reboot) `x` \\ "y" = z'
    archive = handover({"KOGUMA_NODE": "node-1", "KOGUMA_LABEL": odd}, {"hostname": "node-1", "odd": odd})
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    env = tmp_path / "koguma" / "boot.env"
    assert env.stat().st_mode & 0o777 == 0o600
    assert env.parent.stat().st_mode & 0o777 == 0o700
    shell = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$KOGUMA_LABEL"', "sh", str(env)], capture_output=True, text=True, check=True
    )
    assert shell.stdout == odd
    assert json.loads((tmp_path / "koguma" / "detail.json").read_text())["odd"] == odd


def test_archive_can_follow_another_one() -> None:
    assert len(handover({"A": "b"}, {})) % 4 == 0
