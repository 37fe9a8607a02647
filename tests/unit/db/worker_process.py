"""A worker in a process of its own, for tests that kill it: `python -m tests.unit.db.worker_process DIRECTORY`.

Its machines are files in the directory, so that their power outlives the worker as a real machine's does: `<address>`
holds on or off, `<address>.log` every change. A power call takes a while, before and after it has its effect.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from koguma.contracts.power import Access
from koguma.model.states import PowerState

DELAY_S = 0.05


class FilePower:
    """A machine that is a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        time.sleep(DELAY_S)
        on = self._path.exists() and self._path.read_text() == "on"
        return PowerState.ON if on else PowerState.OFF

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        time.sleep(DELAY_S)
        word = "on" if target is PowerState.ON else "off"
        if not self._path.exists() or self._path.read_text() != word:
            temporary = self._path.with_suffix(f".{os.getpid()}")
            temporary.write_text(word)
            temporary.rename(self._path)
            with self._path.with_name(f"{self._path.name}.log").open("a") as log:
                log.write(f"{word}\n")
        time.sleep(DELAY_S)

    def request_shutdown(self, *, timeout_s: float) -> None:
        self.set_power_state(PowerState.OFF, timeout_s=timeout_s)


def open_power(access: Access) -> FilePower:
    return FilePower(Path(os.environ["MACHINES"]) / access.address)


def main() -> None:
    os.environ["MACHINES"] = sys.argv[1]
    import django
    from django.conf import settings

    settings.KOGUMA_POWER_DRIVERS = "tests.unit.db.worker_process.open_power"
    django.setup()
    from koguma.db.jobs import run_worker

    run_worker(4)


if __name__ == "__main__":
    main()
