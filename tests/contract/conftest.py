"""Fixtures of more than one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.cinder_api import CinderApi


@pytest.fixture
def cinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CinderApi]:
    """The recorded APIs; openstacksdk finds them as the cloud `cinder_api.CLOUD`."""
    api = CinderApi()
    api.write_clouds(tmp_path / "clouds.yaml")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield api
    api.close()
