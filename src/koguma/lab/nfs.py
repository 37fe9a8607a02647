"""The lab's NFS server: nfs-ganesha in the controller's namespace, one read-only export, for root method nfs.

NFS version 3 asks a portmapper for ports, so a rpcbind of the lab's own runs beside it. Both keep their sockets in a
`/run` that only they see: the host's, if it has them, are left alone.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from koguma.lab import netns
from koguma.lab.command import wait_until
from koguma.lab.plan import Plan
from koguma.lab.processes import Processes, end, program_of, records_of, write_atomically

EXPORT = "/koguma"
NAME = "nfs"
START_S = 30
NFS_PORT_HEX = ":0801"


class NfsServer:
    """The export of one directory."""

    def __init__(self, plan: Plan, processes: Processes, directory: Path) -> None:
        self._plan = plan
        self._processes = processes
        self._directory = directory
        self._log = plan.logs_dir / f"{NAME}.log"

    def up(self) -> None:
        """Ensure that the directory exists and is served."""
        self._directory.mkdir(parents=True, exist_ok=True)
        state = self._plan.home / "nfs"
        state.mkdir(parents=True, exist_ok=True)
        settings = state / "ganesha.conf"
        write_atomically(settings, configuration(self._plan, self._directory))
        script = state / "serve"
        write_atomically(script, serve_script(settings, state), mode=0o755)
        if not self.running():
            self._end_portmapper()
        record = self._processes.start(
            NAME,
            netns.argv_in(self._plan.controller_namespace, [str(script)]),
            log=self._log,
        )

        def listens() -> bool:
            self._processes.require(NAME, self._log)
            return any(
                NFS_PORT_HEX in path.read_text(encoding="ascii")
                for path in (Path(f"/proc/{record.pid}/net/{table}") for table in ("tcp", "tcp6"))
                if path.exists()
            )

        wait_until("the NFS server listening", listens, timeout_s=START_S)

    def running(self) -> bool:
        return self._processes.running(NAME) is not None

    def _end_portmapper(self) -> None:
        """One that outlived a killed server holds the port and answers on a socket nobody sees any more."""
        inside = records_of(netns.pids(self._plan.controller_namespace))
        end([record for record in inside if program_of(record.pid) == "rpcbind"], term_s=1, kill_s=3)


def configuration(plan: Plan, directory: Path) -> str:
    """ganesha.conf. The pseudo path serves version 3 too, so that machines name the export the same in either."""
    return f"""\
NFS_CORE_PARAM {{
    Protocols = 3, 4;
    Bind_addr = {plan.controller_address};
    NFS_Port = 2049;
    MNT_Port = 20048;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    mount_path_pseudo = true;
}}
NFSv4 {{
    Graceless = true;
    RecoveryBackend = fs;
    RecoveryRoot = "{plan.home}/nfs/recovery";
}}
EXPORT {{
    Export_Id = 1;
    Path = "{directory}";
    Pseudo = "{EXPORT}";
    Access_Type = RO;
    Squash = No_Root_Squash;
    SecType = sys;
    Protocols = 3, 4;
    Transports = TCP;
    FSAL {{ Name = VFS; }}
}}
LOG {{
    Default_Log_Level = EVENT;
}}
"""


def serve_script(settings: Path, state: Path) -> str:
    """Runs in the private mount namespace that `ip netns exec` makes: the `/run` mounted here is nobody else's."""
    ganesha = shlex.join(["ganesha.nfsd", "-F", "-L", "STDOUT", "-f", str(settings), "-p", str(state / "ganesha.pid")])
    return f"""\
#!/bin/sh
set -e
mkdir -p {shlex.quote(str(state / "recovery"))}
mount --make-rprivate /
mount -t tmpfs -o mode=755 lab-run /run
rpcbind -f &
exec {ganesha}
"""
