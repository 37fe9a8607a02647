"""The lab's switch: Open vSwitch's userspace datapath with VLAN access ports, and LLDP on machine ports.

It has a database, sockets and a run directory of its own and shares nothing with an Open vSwitch of the host.
"""

from __future__ import annotations

import shutil

from koguma.lab import netns, queues
from koguma.lab.command import run, wait_until
from koguma.lab.errors import CommandError
from koguma.lab.plan import Plan, Vlan
from koguma.lab.processes import Processes, write_atomically

BRIDGE = "br0"
LLDP_INTERVAL_S = 2
SOCKETS = {
    "ovsdb-server": ("ovsdb.sock", "ovsdb-server.ctl"),
    "ovs-vswitchd": ("ovs-vswitchd.ctl",),
    "lldpd": ("lldpd.sock",),
}
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Switch:
    """One switch; its namespace exists while it is used."""

    def __init__(self, plan: Plan, processes: Processes) -> None:
        self._plan = plan
        self._processes = processes
        self._namespace = plan.switch_namespace
        self._database = f"unix:{plan.run_dir}/ovsdb.sock"
        self._environ = {
            "OVS_RUNDIR": str(plan.run_dir),
            "OVS_DBDIR": str(plan.home / "ovs"),
            "OVS_LOGDIR": str(plan.logs_dir),
        }

    def up(self, *, fresh: bool) -> None:
        """Ensure that the switch and its LLDP run; `fresh` forgets the ports of an earlier life."""
        self._start_database(fresh)
        self._start_datapath()
        self._start_lldp()

    def connect(self, port: str, vlan: Vlan) -> None:
        """Ensure that a link of the switch's namespace is an access port of a VLAN."""
        self._vsctl("--may-exist", "add-port", BRIDGE, port, "--", "set", "port", port, f"tag={vlan.value}")

    def deepen_queues(self) -> None:
        """Give every port that is connected now a deep queue; the switch opens a shallow one with each."""
        if running := self._processes.running("ovs-vswitchd"):
            queues.deepen(running.pid)

    def disconnect(self, port: str) -> None:
        self._vsctl("--if-exists", "del-port", BRIDGE, port)

    def ports(self) -> dict[str, int | None]:
        """Ports and their VLAN tags, as the switch tells; None for a port without one."""
        rows = self._vsctl("--bare", "--format=csv", "--no-headings", "--columns=name,tag", "list", "port")
        found = {}
        for row in rows.split():
            name, _, tag = row.partition(",")
            found[name.strip('"')] = int(tag) if tag.strip('"').isdigit() else None
        found.pop(BRIDGE, None)
        return found

    def interfaces(self) -> set[str]:
        """What is plugged in, by name; several may be one port."""
        return set(self._vsctl("list-ifaces", BRIDGE).split())

    def running(self) -> bool:
        return all(self._processes.running(name) for name in ("ovsdb-server", "ovs-vswitchd"))

    def lldp_running(self) -> bool:
        return self._processes.running("lldpd") is not None

    def _vsctl(self, *words: str) -> str:
        return run(["ovs-vsctl", f"--db={self._database}", "--timeout=20", *words], environ=self._environ)

    def _start_database(self, fresh: bool) -> None:
        directory = self._plan.home / "ovs"
        if fresh:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        database = directory / "conf.db"
        if not database.exists():
            run(["ovsdb-tool", "create", str(database), SCHEMA], environ=self._environ)
        run_dir = self._plan.run_dir
        self._start(
            "ovsdb-server",
            [
                "ovsdb-server",
                str(database),
                f"--remote=p{self._database}",
                f"--unixctl={run_dir}/ovsdb-server.ctl",
                "--no-chdir",
            ],
        )
        log = self._plan.logs_dir / "ovsdb-server.log"

        def answers() -> bool:
            self._processes.require("ovsdb-server", log)
            return (run_dir / "ovsdb.sock").exists()

        wait_until("the switch's database answering", answers, timeout_s=15)
        run(["ovs-vsctl", f"--db={self._database}", "--timeout=20", "--no-wait", "init"], environ=self._environ)

    def _start_datapath(self) -> None:
        self._start(
            "ovs-vswitchd",
            ["ovs-vswitchd", self._database, f"--unixctl={self._plan.run_dir}/ovs-vswitchd.ctl", "--no-chdir"],
        )
        bridge = ("set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=standalone")
        try:
            self._vsctl("--may-exist", "add-br", BRIDGE, "--", *bridge)
        except CommandError:
            self._processes.require("ovs-vswitchd", self._plan.logs_dir / "ovs-vswitchd.log")
            raise

    def _start_lldp(self) -> None:
        settings = self._plan.home / "lldpd.conf"
        write_atomically(settings, lldp_settings(self._plan))
        # Without a privilege separation user of its own, lldpd uses the package's; its socket stays ours.
        control = self._plan.run_dir / "lldpd.sock"
        self._start("lldpd", ["lldpd", "-d", "-k", "-i", "-u", str(control), "-O", str(settings)])

    def _start(self, name: str, argv: list[str]) -> None:
        """Start one of the three, in the place of a killed one whose sockets still lie there."""
        if self._processes.running(name) is None:
            for socket in SOCKETS[name]:
                (self._plan.run_dir / socket).unlink(missing_ok=True)
        self._processes.start(
            name,
            netns.argv_in(self._namespace, argv),
            log=self._plan.logs_dir / f"{name}.log",
            environ=self._environ,
        )


def lldp_settings(plan: Plan) -> str:
    """Commands for lldpcli: frames on machine ports only, every LLDP_INTERVAL_S seconds, port ids by name."""
    lines = [
        f"configure system hostname {plan.switch_name}",
        "configure system description 'Koguma lab switch'",
        "configure system interface pattern *-eth0,*-eth1",
        "configure lldp portidsubtype ifname",
        f"configure lldp tx-interval {LLDP_INTERVAL_S}",
        "configure lldp status tx-only",
    ]
    return "\n".join(lines) + "\n"
