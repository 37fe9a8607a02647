"""Fixtures of the Ironic API's tests. Tables are imported late: pytest may load this before Django is set up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.api.ironic.client import Ironic, Worker


@pytest.fixture
def ironic(db: str) -> Iterator[Ironic]:
    from koguma.api.ironic import workers
    from koguma.db import heartbeats
    from tests.unit.api.ironic.client import Ironic

    heartbeats.say_alive()
    workers.forget()
    yield Ironic()
    workers.forget()


@pytest.fixture
def worker(db: str) -> Worker:
    from tests.unit.api.ironic.client import Worker

    return Worker()
