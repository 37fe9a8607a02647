"""http_basic: the user file decides, and the root stays open."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.unit.api.ironic.client import Ironic


@pytest.fixture
def users(tmp_path: Path, settings_of_auth: Any) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"operator:{bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n")
    settings_of_auth("http_basic", str(path))
    return path


@pytest.fixture
def settings_of_auth(monkeypatch: pytest.MonkeyPatch) -> Any:
    from django.conf import settings

    def set_auth(auth: str, path: str) -> None:
        monkeypatch.setattr(settings, "KOGUMA_API_AUTH", auth)
        monkeypatch.setattr(settings, "KOGUMA_API_USERS", path)

    return set_auth


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_only_who_is_in_the_user_file_may_ask(ironic: Ironic, users: Path) -> None:
    assert ironic("GET", "/v1/nodes", **basic("operator", "right")).status == 200
    assert ironic("GET", "/v1/nodes", **basic("operator", "right")).status == 200
    for wrong in ({}, basic("operator", "wrong"), basic("nobody", "right"), {"authorization": "Basic nonsense"}):
        answer = ironic("GET", "/v1/nodes", **wrong)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="Baremetal API"'
    assert ironic("GET", "/").status == 200
    assert ironic("GET", "/v1/").status == 200


def test_the_user_file_is_read_again_when_it_changes(ironic: Ironic, users: Path) -> None:
    assert ironic("GET", "/v1/nodes", **basic("second", "too")).status == 401
    users.write_text(f"second:{bcrypt.hashpw(b'too', bcrypt.gensalt(4)).decode()}\n# no more\n")
    assert ironic("GET", "/v1/nodes", **basic("second", "too")).status == 200
    assert ironic("GET", "/v1/nodes", **basic("operator", "right")).status == 401


def test_a_user_file_that_is_missing_lets_nobody_in(ironic: Ironic, users: Path) -> None:
    users.unlink()
    assert ironic("GET", "/v1/nodes", **basic("operator", "right")).status == 500


def test_the_native_api_asks_the_same_users(ironic: Ironic, users: Path) -> None:
    assert ironic("GET", "/api/v1/nodes", **basic("operator", "right")).status == 200
    answer = ironic("GET", "/api/v1/nodes")
    assert (answer.status, answer.json) == (401, {"error": "Authorization required"})
    assert ironic("GET", "/api/v1/health").status == 200
    assert ironic("POST", "/boot/v1/reports", {}).json["error"].startswith("a boot service")
