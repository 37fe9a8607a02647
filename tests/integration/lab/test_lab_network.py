"""A real lab without any Koguma: power over the network, VLANs, LLDP, and nothing left when it goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select

import pytest

from koguma.lab import launch, machine, netns, packages, status
from koguma.lab.bmc import Account, PowerAction
from koguma.lab.command import run, wait_until
from koguma.lab.errors import CommandError, ForeignNamespaceError, LabError
from koguma.lab.lab import Lab, plan_of
from koguma.lab.plan import Hardware
from koguma.lab.processes import Processes, end

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(packages.missing()), reason=f"not installed: {', '.join(packages.missing())}"),
]

TEST_ETHERTYPE = b"\x88\xb5"
"""Reserved for experiments: nobody else's frames are mistaken for ours."""
LLDP_ETHERTYPE = b"\x88\xcc"
BROADCAST = b"\xff" * 6
SMALL = Hardware(cpus=1, memory_mib=128)


def lab_named(name: str, home: Path, nodes: int) -> Lab:
    return Lab(plan_of(name, home, nodes, hardware=SMALL))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Short, for the sake of unix sockets."""
    with ExitStack() as stack:
        path = Path(f"/var/tmp/kgl{os.getpid()}")
        path.mkdir()
        stack.callback(lambda: subprocess.run(["rm", "-rf", str(path)], check=True))
        stack.callback(lambda: lab_named("t1", path / "lab", 0).down())
        yield path / "lab"


@pytest.fixture
def lab(home: Path) -> Lab:
    """Two machines, off. Each test finds the lab whole: what an earlier one broke is brought back."""
    lab = lab_named("t1", home, 2)
    lab.network_up()
    lab.machines_up(power_on=False)
    for one in lab.plan.machines:
        if lab.bmc(one).power_is_on():
            lab.bmc(one).power(PowerAction.OFF)
            wait_for_power(lab, one.name, is_on=False)
    return lab


# --- power


def test_a_bmc_powers_its_machine_on_and_off_over_the_network(lab: Lab) -> None:
    bmc = lab.bmc("node1")
    assert not bmc.power_is_on()
    bmc.power(PowerAction.ON)
    wait_for_power(lab, "node1", is_on=True)
    wait_until("the firmware speaking", lambda: "iPXE" in console(lab, "node1"), timeout_s=20)
    first = lab.processes.running("node1")
    assert first is not None
    assert not lab.bmc("node2").power_is_on()
    bmc.power(PowerAction.CYCLE)
    wait_until("another QEMU", lambda: lab.processes.running("node1") not in (None, first), timeout_s=10)
    bmc.power(PowerAction.OFF)
    wait_for_power(lab, "node1", is_on=False)
    wait_until("QEMU gone", lambda: lab.processes.running("node1") is None, timeout_s=5)


def test_a_machine_that_ends_by_itself_is_off_to_its_bmc(lab: Lab) -> None:
    lab.bmc("node1").power(PowerAction.ON)
    wait_until("QEMU answering", lambda: qemu_runs(lab, "node1"), timeout_s=10)
    machine.qmp(lab.plan.machine("node1"), "quit")
    wait_for_power(lab, "node1", is_on=False)


def test_a_machine_that_is_on_is_not_started_twice(lab: Lab) -> None:
    bmc = lab.bmc("node1")
    bmc.power(PowerAction.ON)
    wait_until("QEMU answering", lambda: qemu_runs(lab, "node1"), timeout_s=10)
    first = lab.processes.running("node1")
    bmc.power(PowerAction.ON)
    assert bmc.power_is_on()
    assert lab.processes.running("node1") == first


def test_a_bmc_refuses_a_wrong_password(lab: Lab) -> None:
    with pytest.raises(CommandError):
        lab.bmc("node1").power_is_on(Account(password="guess"))


def test_a_user_and_a_running_machine_outlive_their_bmc(lab: Lab) -> None:
    bmc = lab.bmc("node1")
    account = Account("koguma", "0123456789abcdef")
    for words in (
        ["user", "set", "name", "3", account.username],
        ["user", "set", "password", "3", account.password],
        ["channel", "setaccess", "1", "3", "ipmi=on", "privilege=4"],
        ["user", "enable", "3"],
    ):
        ipmitool(lab, bmc.address(), *words)
    memory = lab.plan.machine("node1").bmc_dir / "state" / "ipmi_sim" / "t1-node1" / "users.mc20"
    wait_until("the BMC writing its flash", lambda: remembers(memory, 3, account), timeout_s=10)
    bmc.power(PowerAction.ON, account)
    wait_until("QEMU answering", lambda: qemu_runs(lab, "node1"), timeout_s=10)
    kill(lab, "node1-bmc")
    assert not bmc.running()
    lab.machines_up(power_on=False)
    # It has only just been started: until it answers, its answer is none.
    wait_until("the new BMC knowing the machine", lambda: bmc.power_is_on_or_none(account) is True, timeout_s=30)
    bmc.power(PowerAction.OFF, account)
    wait_for_power(lab, "node1", is_on=False)


def test_an_address_set_in_a_bmc_is_where_it_answers_from_then_on(lab: Lab) -> None:
    factory = lab.bmc("node2").address()
    ipmitool(lab, factory, "lan", "set", "1", "ipaddr", "10.77.8.77", check=False)  # the last answers are lost
    try:
        wait_until("the new address", lambda: lab.bmc("node2").address() == "10.77.8.77", timeout_s=5)
        assert not lab.bmc("node2").power_is_on()
    finally:
        ipmitool(lab, "10.77.8.77", "lan", "set", "1", "ipaddr", factory, check=False)
    wait_until("the old address", lambda: lab.bmc("node2").power_is_on_or_none() is False, timeout_s=10)


# --- network


def test_frames_stay_in_their_vlan(lab: Lab) -> None:
    with ExitStack() as stack:
        ends = {
            "prov": stack.enter_context(listening(lab.plan.controller_namespace, "prov")),
            "bmc": stack.enter_context(listening(lab.plan.controller_namespace, "bmc")),
            "node1's bmc": stack.enter_context(listening("t1-node1", "bmc")),
            **{
                port: stack.enter_context(holding_tap(lab, port))
                for port in ("node1-eth0", "node2-eth0", "node1-eth1", "node2-eth1")
            },
        }
        for vlan in (
            {"prov", "node1-eth0", "node2-eth0"},
            {"bmc", "node1's bmc"},
            {"node1-eth1", "node2-eth1"},
        ):
            for sender in sorted(vlan):
                for one in ends.values():
                    one.drain()
                ends[sender].send(f"from {sender}".encode())
                time.sleep(0.2)  # to show that a frame does not come, there is only time; crossing takes a millisecond
                heard = {name for name, one in ends.items() if one.has(f"from {sender}".encode())}
                assert heard - {sender} == vlan - {sender}


def test_tcp_crosses_the_switch_whole(lab: Lab) -> None:
    """Segments whose checksums were left to hardware would be dropped at the other end."""
    payload = os.urandom(1 << 20)
    with netns.inside("t1-node1"):
        server = socket.create_server(("10.77.8.11", 7777))
    with netns.inside(lab.plan.controller_namespace):
        client = socket.create_connection(("10.77.8.11", 7777), timeout=5)
    with server, client, server.accept()[0] as accepted:
        accepted.settimeout(5)
        received = bytearray()
        view = memoryview(payload)
        client.settimeout(5)
        while len(received) < len(payload):
            _, writable, _ = select([], [client] if view else [], [], 0)
            if writable:
                view = view[client.send(view[:65536]) :]
            received += accepted.recv(1 << 20)
    assert bytes(received) == payload


@pytest.mark.parametrize("port", ["node1-eth0", "node2-eth1"])
def test_a_card_hears_its_switch_port_over_lldp(lab: Lab, port: str) -> None:
    with holding_tap(lab, port) as card:
        frame = card.next_frame(LLDP_ETHERTYPE, timeout_s=8)
    values = lldp_values(frame)
    assert values[5] == b"t1-switch"
    assert values[2] == b"\x05" + port.encode()  # subtype 5: an interface's name


def test_two_labs_with_the_same_addresses_do_not_meet(lab: Lab, home: Path) -> None:
    other = lab_named("t2", home.with_name("lab2"), 1)
    try:
        other.network_up()
        other.machines_up(power_on=False)
        kill(lab, "node1-bmc")
        assert other.bmc("node1").power_is_on_or_none() is False
        assert not lab.bmc("node1").running()
    finally:
        other.down()
    assert netns.exists("t1-sw")


# --- up and down


def test_a_machine_is_added_while_the_lab_runs(lab: Lab, home: Path) -> None:
    before = lab.processes.running("ovs-vswitchd")
    larger = lab_named("t1", home, 3)
    larger.network_up()
    larger.machines_up(power_on=False)
    assert larger.bmc("node3").power_is_on_or_none() is False
    assert larger.switch.ports()["node3-eth0"] == 100
    assert larger.processes.running("ovs-vswitchd") == before


def test_up_brings_back_what_was_killed_and_leaves_the_rest(lab: Lab, home: Path) -> None:
    lab.bmc("node1").power(PowerAction.ON)
    wait_until("QEMU answering", lambda: qemu_runs(lab, "node1"), timeout_s=10)
    qemu = lab.processes.running("node1")
    for name in ("ovsdb-server", "ovs-vswitchd", "lldpd", "node2-bmc"):
        kill(lab, name)
    again = lab_named("t1", home, 0)
    again.network_up()
    again.machines_up(power_on=False)
    assert again.processes.running("node1") == qemu
    found = status.look(again)
    assert found.switch_running
    assert found.lldp_running
    assert all(one.bmc_reachable for one in found.machines)
    assert found.ports["node1-eth0"] == 100


def test_a_namespace_of_another_lab_with_this_name_is_not_shared(lab: Lab, home: Path) -> None:
    with pytest.raises(ForeignNamespaceError, match="t1-"):
        lab_named("t1", home.with_name("other"), 1).network_up()


def test_down_after_a_massacre_leaves_nothing(lab: Lab, home: Path) -> None:
    lab.bmc("node1").power(PowerAction.ON)
    wait_until("QEMU answering", lambda: qemu_runs(lab, "node1"), timeout_s=10)
    for name in ("ovs-vswitchd", "ovsdb-server", "node1-bmc", "node2-bmc", "node1"):
        kill(lab, name)
    (home / "pids" / "lldpd.json").unlink()  # and the record of one that still runs is lost
    lab.down()
    assert leftovers(home) == []
    lab.down()
    assert leftovers(home) == []
    assert (home / "consoles" / "node1.log").exists()
    assert (home / "bmc" / "node1" / "state").exists()


def test_down_removes_a_lab_that_was_never_finished(home: Path) -> None:
    netns.create("t1-sw")
    netns.add_tap("t1-sw", "node1-eth0")
    (netns.RUN_DIR / "t1-ctl").touch()  # what `ip netns add` leaves when it is killed half-way
    lab_named("t1", home, 0).down()
    assert leftovers(home) == []


def leftovers(home: Path) -> list[str]:
    """Everything of the lab t1 that should not be there after `down`."""
    names = [path.name for path in netns.RUN_DIR.iterdir() if path.name.startswith("t1-")]
    strays = [f"process {record.pid}" for record in Processes(home).stray()]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(home) in line]
    mounts += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/netns/t1-" in line]
    links = [name for _, name in socket.if_nameindex() if name.startswith(("node", "ctl-"))]
    sockets = [str(path) for path in home.rglob("*") if path.is_socket()]
    return names + strays + mounts + links + sockets


# --- helpers


@dataclass
class End:
    """One end of a cable, seen as raw frames."""

    descriptor: int
    mac: bytes = b"\x02\x00\x00\x00\x00\x01"

    def send(self, payload: bytes) -> None:
        os.write(self.descriptor, BROADCAST + self.mac + TEST_ETHERTYPE + payload.ljust(64, b"."))

    def has(self, payload: bytes) -> bool:
        """Whether a frame with this payload has arrived."""
        while frame := self._read(0):
            if frame[12:14] == TEST_ETHERTYPE and frame[14:].startswith(payload):
                return True
        return False

    def next_frame(self, ethertype: bytes, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            frame = self._read(left)
            if frame[12:14] == ethertype:
                return frame
        raise AssertionError(f"no frame of type {ethertype.hex()} within {timeout_s} s")

    def drain(self) -> None:
        while self._read(0):
            pass

    def _read(self, timeout_s: float) -> bytes:
        ready, _, _ = select([self.descriptor], [], [], timeout_s)
        return os.read(self.descriptor, 65536) if ready else b""


@contextmanager
def listening(namespace: str, link: str) -> Iterator[End]:
    """An interface of a namespace."""
    with netns.inside(namespace):
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        handle.bind((link, 0x88B5))
    with handle:
        yield End(handle.fileno())


@contextmanager
def holding_tap(lab: Lab, port: str) -> Iterator[End]:
    """A machine's card, held in place of the machine."""
    with netns.inside(lab.plan.switch_namespace):
        descriptor = launch._open_tap(port)
    try:
        time.sleep(0.2)  # the switch sees the carrier
        yield End(descriptor)
    finally:
        os.close(descriptor)


def lldp_values(frame: bytes) -> dict[int, bytes]:
    """TLV type -> value."""
    values, offset = {}, 14
    while offset + 2 <= len(frame):
        header = int.from_bytes(frame[offset : offset + 2], "big")
        values.setdefault(header >> 9, frame[offset + 2 : offset + 2 + (header & 0x1FF)])
        offset += 2 + (header & 0x1FF)
    return values


def kill(lab: Lab, name: str) -> None:
    record = lab.processes.running(name)
    assert record is not None, f"{name} does not run"
    os.kill(record.pid, signal.SIGKILL)
    end([record], term_s=5, kill_s=0)


def remembers(memory: Path, number: int, account: Account) -> bool:
    """Whether the whole user is in the flash: ipmi_sim writes every second whatever it was told by then."""
    lines = memory.read_text().splitlines() if memory.exists() else []
    return all(
        any(line.startswith(f"{number}.{beginning}") for line in lines)
        for beginning in (
            f"username:d:{account.username}", f"passwd:d:{account.password}", "privilege:i:4", "valid:i:1",
        )
    )  # fmt: skip


def console(lab: Lab, name: str) -> str:
    log = lab.plan.machine(name).console_log
    return log.read_text(errors="replace") if log.exists() else ""


def qemu_runs(lab: Lab, name: str) -> bool:
    try:
        machine.qmp(lab.plan.machine(name), "query-status")
    except LabError:
        return False
    return True


def wait_for_power(lab: Lab, name: str, *, is_on: bool) -> None:
    wait_until(f"{name} {'on' if is_on else 'off'}", lambda: lab.bmc(name).power_is_on() is is_on, timeout_s=10)


def ipmitool(lab: Lab, address: str, *words: str, check: bool = True) -> None:
    argv = ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", address, "-U", "admin", "-P", "factory"]
    try:
        run(netns.argv_in(lab.plan.controller_namespace, [*argv, *words]))
    except CommandError:
        if check:
            raise
