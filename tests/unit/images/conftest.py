from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.repository import Repository
from tests.unit.images.making import make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")
