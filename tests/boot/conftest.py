"""The site that most tests share, once for all of them: three machines, two with BIOS and one with UEFI firmware.

The tests use what an operator uses, the command line, and judge by what the machines themselves say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .sites import Site, site_of

ACTIVE_TIMEOUT_S = 900


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with site_of("boot", Site) as site:
        built = site.state / "lab" / "lab.json"
        if built.exists():
            machines = json.loads(built.read_bytes())["machines"]
            site.koguma("lab", "up", "--nodes", str(len(machines)), timeout_s=ACTIVE_TIMEOUT_S)
        else:
            site.koguma("lab", "up", "--nodes", "2", timeout_s=ACTIVE_TIMEOUT_S)
            site.koguma("lab", "up", "--nodes", "3", "--uefi", timeout_s=ACTIVE_TIMEOUT_S)
        yield site
