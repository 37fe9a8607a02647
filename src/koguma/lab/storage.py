"""The lab's storage: tgtd in the controller's namespace, for roots on volumes (root method iscsi).

Debian's own tgtd is never started: it would listen on every address of the host.
"""

from __future__ import annotations

from pathlib import Path

from koguma.lab import netns
from koguma.lab.command import wait_until
from koguma.lab.plan import Plan
from koguma.lab.processes import Processes

NAME = "storage"
PORT = 3260
PORT_HEX = ":0CBC"
START_S = 30


class Storage:
    """The volumes in one directory, served by iSCSI."""

    def __init__(self, plan: Plan, processes: Processes, directory: Path) -> None:
        self._plan = plan
        self._processes = processes
        self._directory = directory
        self._log = plan.logs_dir / f"{NAME}.log"

    def up(self) -> None:
        """Ensure that the directory exists and is served; volumes are shown by Koguma, one by one."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = self._processes.start(
            NAME,
            netns.argv_in(
                self._plan.controller_namespace,
                ["tgtd", "--foreground", "--iscsi", f"portal={portal(self._plan)}"],
            ),
            log=self._log,
            environ={"TGT_IPC_SOCKET": str(self._directory / "tgtd")},
        )

        def listens() -> bool:
            self._processes.require(NAME, self._log)
            return PORT_HEX in Path(f"/proc/{record.pid}/net/tcp").read_text(encoding="ascii")

        wait_until("the storage listening", listens, timeout_s=START_S)

    def running(self) -> bool:
        return self._processes.running(NAME) is not None


def portal(plan: Plan) -> str:
    return f"{plan.controller_address}:{PORT}"
