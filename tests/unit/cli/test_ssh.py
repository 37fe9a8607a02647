"""What ssh is told when an operator logs in to a node. The ssh that is run is a script that writes down its words."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from koguma.cli import node as node_commands
from koguma.cli.ssh import run

NODE: dict[str, Any] = {"name": "node-1", "addresses": ["10.77.0.2"], "ssh_host_public_keys": ["ssh-ed25519 AAAA"]}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the words are written down, one a line, those before the target left out."""
    written = tmp_path / "words"
    for name in ("ssh", "ip"):
        script = tmp_path / name
        skip = 'while [ "$1" ] && [ "$1" != root@10.77.0.2 ] && [ "$1" != netns ]; do shift; done'
        lines = [
            "#!/bin/sh",
            f'echo "{name}" >>{written}',
            skip,
            f'for word; do echo "$word" >>{written}; done',
            "exit 7",
        ]
        script.write_text("".join(f"{line}\n" for line in lines))
        script.chmod(0o755)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "operator").write_text("a key")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("KOGUMA_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KOGUMA_WORKER_NAMESPACE", raising=False)
    return written


def test_several_words_are_one_program_with_its_arguments(told: Path) -> None:
    assert run(NODE, "root", ["sh", "-c", "echo 'a  b'"]) == 7

    assert told.read_text().splitlines() == ["ssh", "root@10.77.0.2", "--", """sh -c 'echo '"'"'a  b'"'"''"""]


def test_one_word_is_a_shell_command_as_it_stands(told: Path) -> None:
    run(NODE, "root", ["echo $HOME"])

    assert told.read_text().splitlines() == ["ssh", "root@10.77.0.2", "--", "echo $HOME"]


def test_the_dashes_before_a_command_are_not_part_of_it(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def __init__(self, _: object) -> None: ...

        def get(self, *_: str) -> dict[str, Any]:
            return NODE

    monkeypatch.setattr(node_commands, "Client", Api)
    monkeypatch.setattr(sys, "argv", ["koguma"])

    with pytest.raises(SystemExit, match="7"):
        node_commands.app(["ssh", "node-1", "--", "uname", "-r"], standalone_mode=False)

    assert told.read_text().splitlines() == ["ssh", "root@10.77.0.2", "--", "uname -r"]


def test_nodes_of_a_lab_are_reached_from_its_controllers_namespace(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.json").write_text("{}")
    monkeypatch.setenv("KOGUMA_LAB_NAME", "t9")
    monkeypatch.setattr("koguma.lab.netns.RUN_DIR", tmp_path / "netns")
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "t9-ctl").touch()

    run(NODE, "root", ["true"])

    assert told.read_text().splitlines()[:4] == ["ip", "netns", "exec", "t9-ctl"]
