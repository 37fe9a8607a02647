"""A real Open vSwitch for tests: a database and a userspace datapath of its own in a namespace of its own, with
machines that are namespaces too and can send each other packets.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from koguma.contracts.switches import SwitchAccess
from koguma.lab import netns
from koguma.lab.command import run, wait_until

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
TEST_ETHERTYPE = 0x88B5
PORTS = ("p1", "p2", "p3", "p4")


class OvsBench:
    """Starts at construction; `close` ends and removes all of it. Machine `pN` hangs on switch port `pN`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kgovs", dir="/var/tmp"))
        self.name = f"kgovs{os.getpid()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.target = f"unix:{self.directory}/db.sock"
        environ = {key: str(self.directory) for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        self._environ = environ
        try:
            self._build(environ)
        except BaseException:
            self.close()
            raise

    def _build(self, environ: dict[str, str]) -> None:
        netns.create(self.name)
        run(["ovsdb-tool", "create", f"{self.directory}/conf.db", SCHEMA], environ=environ)
        self._start("ovsdb-server", f"{self.directory}/conf.db", f"--remote=p{self.target}")
        wait_until("the database", (self.directory / "db.sock").exists, timeout_s=15)
        self.vsctl("--no-wait", "init")
        self._start("ovs-vswitchd", self.target)
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=standalone")
        for port in PORTS:
            netns.create(self.machine(port))
            netns.add_veth(self.name, port, self.machine(port), "eth0")
        self.reset()

    @property
    def access(self) -> SwitchAccess:
        return SwitchAccess("ovs", self.target)

    def reset(self) -> None:
        """All ports as they come from the factory: plain and in VLAN 1."""
        for port in self.vsctl("list-ports", "br0").split():
            self.vsctl("del-port", "br0", port)
        for port in PORTS:
            self.vsctl("add-port", "br0", port, "tag=1")

    def machine(self, port: str) -> str:
        return f"{self.name}{port}"

    def vsctl(self, *words: str) -> str:
        return run(["ovs-vsctl", f"--db={self.target}", "--timeout=20", *words], environ=self._environ)

    def passes(self, sender: str, receiver: str, vlan: int | None = None) -> bool:
        """Whether a broadcast frame sent at one port, tagged or not, arrives at another within a second."""
        with netns.inside(self.machine(receiver)):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ear.bind(("eth0", 3))
        with netns.inside(self.machine(sender)):
            mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            mouth.bind(("eth0", 0))
        marker = os.urandom(24)
        tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
        frame = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + tag + TEST_ETHERTYPE.to_bytes(2, "big") + marker
        with ear, mouth:
            ear.settimeout(0.25)
            for _ in range(3):
                mouth.send(frame + bytes(60))
                try:
                    while marker not in ear.recv(4096):
                        pass
                except TimeoutError:
                    continue
                return True
        return False

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait(10)
        for name in (*map(self.machine, PORTS), self.name):
            netns.delete(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, program: str, *words: str) -> None:
        control = f"--unixctl={self.directory}/{program}.ctl"
        argv = netns.argv_in(self.name, [program, *words, control, "--no-chdir"])
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
        with (self.directory / f"{program}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    argv,
                    env={**os.environ, **self._environ, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
