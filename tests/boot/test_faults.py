"""Processes are killed while a machine registers and boots: it ends active, once."""

from __future__ import annotations

import time

import pytest

from .sites import Site

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("victim", ["koguma server", "koguma worker", "koguma boot", "database", "koguma up"])
def test_killed_process_delays_a_registration_but_does_not_spoil_it(site: Site, victim: str) -> None:
    """The third machine is forgotten, comes back as an unknown one, and meets a killed process on its way."""
    node = site.nodes()[2]
    machine = site.machine(node["name"])
    site.koguma("lab", "power", machine, "off")
    site.koguma("node", "delete", node["name"], "--yes")
    time.sleep(5)
    site.koguma("lab", "power", machine, "on")
    for pause_s in (9, 12, 20):
        time.sleep(pause_s)
        if victim == "database":
            site.kill_database()
        elif victim == "koguma up":
            site.kill(victim)
            time.sleep(2)
            site.koguma("lab", "up", "--no-wait")
        else:
            site.kill(victim)

    def active() -> bool:
        mine = [item for item in site.nodes() if item["uuid"] == node["uuid"]]
        return [item["provision_state"] for item in mine] == ["active"]

    site.wait_for(f"the machine is active, once, although {victim} was killed", active, 600)
    assert len(site.nodes()) == 3
    assert len(site.processes("--group=root --pid-file=")) == 1, "a DHCP server outlived its boot service"
