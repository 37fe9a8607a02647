"""The configuration file and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma.config import ConfigError, load


def test_defaults_need_no_file() -> None:
    assert load(environ={}).api.listen == "127.0.0.1:6385"


def test_file_is_read_and_environment_overrides_it(tmp_path: Path) -> None:
    path = tmp_path / "koguma.toml"
    path.write_text('state_dir = "/srv/koguma"\n[api]\nlisten = "127.0.0.1:1"\n[nodes]\nboot_timeout_s = 60\n')
    config = load(
        path, {"KOGUMA_API_LISTEN": "127.0.0.1:2", "KOGUMA_NODES_SSH_AUTHORIZED_KEYS": "ssh-ed25519 A, ssh-ed25519 B"}
    )
    assert (str(config.state_dir), config.api.listen, config.nodes.boot_timeout_s) == ("/srv/koguma", "127.0.0.1:2", 60)
    assert config.nodes.ssh_authorized_keys == ["ssh-ed25519 A", "ssh-ed25519 B"]


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[api]\nlisten = 5\n", {}, ["api.listen", "5", "koguma.toml"]),
        ("[api]\nlistne = 'x:1'\n", {}, ["api.listne", "no such key", "koguma.toml"]),
        ("api = 5\n", {}, ["api", "koguma.toml"]),
        ("api = 5\n", {"KOGUMA_API_LISTEN": "x:1"}, ["api", "koguma.toml"]),
        ("state_dir = 'relative'\n", {}, ["state_dir must be an absolute path", "'relative'"]),
        ("", {"KOGUMA_BOOT_POLL_S": "often"}, ["boot.poll_s", "'often'", "KOGUMA_BOOT_POLL_S"]),
        ("[api\n", {}, ["must be TOML", "koguma.toml"]),
        ("[volumes]\ndriver = 'tgt'\n", {}, ["volumes", "portal", "koguma.toml"]),
        ("[volumes]\ndriver = 'cinder'\n", {}, ["volumes", "clouds.yaml", "address", "koguma.toml"]),
        ("[volumes]\nportal = 'storage'\n", {}, ["volumes.portal", "'storage'", "koguma.toml"]),
        ("[boot]\nmedia_url = '10.0.0.1:8080'\n", {}, ["boot.media_url", "'10.0.0.1:8080'", "koguma.toml"]),
    ],
)
def test_error_names_key_value_and_place(tmp_path: Path, text: str, environ: dict[str, str], words: list[str]) -> None:
    path = tmp_path / "koguma.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    assert [word for word in words if word not in str(caught.value)] == []


def test_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml", {})
