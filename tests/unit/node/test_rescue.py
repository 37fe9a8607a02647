"""The accounts of a rescue shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from koguma_node.errors import NodeError
from koguma_stage1.steps.rescue import write_accounts

DETAIL = {"node": "node-1", "ssh_authorized_keys": ["ssh-ed25519 AAAA operator"], "rescue": {"password_hash": "$2b$x"}}


def test_the_password_is_of_the_user_rescue_and_the_keys_are_of_both(tmp_path: Path) -> None:
    write_accounts(DETAIL, tmp_path)
    assert (tmp_path / "etc/shadow").read_text().splitlines() == [
        "root:*:19000:0:99999:7:::",
        "rescue:$2b$x:19000:0:99999:7:::",
    ]
    assert all(":0:0:" in line and ":/root:" in line for line in (tmp_path / "etc/passwd").read_text().splitlines())
    assert (tmp_path / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA operator\n"
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("root", "root/.ssh")} == {0o700}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("etc/shadow", "root/.ssh/authorized_keys")} == {0o600}


def test_without_a_password_only_keys_open_the_shell(tmp_path: Path) -> None:
    write_accounts({**DETAIL, "rescue": {"password_hash": ""}}, tmp_path)
    assert "rescue:*:" in (tmp_path / "etc/shadow").read_text()


def test_a_hash_cannot_become_another_account(tmp_path: Path) -> None:
    with pytest.raises(NodeError):
        write_accounts({**DETAIL, "rescue": {"password_hash": "x\nevil:y"}}, tmp_path)
