"""A Redfish BMC of the lab, asked by Koguma's own driver over the BMC network: power, boot order, virtual media."""

from __future__ import annotations

import os
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest

from koguma.contracts.errors import PowerRefused
from koguma.contracts.management import BootChoice, BootDevice, MediaKind
from koguma.contracts.power import Access
from koguma.drivers.power.redfish.management import RedfishManagement
from koguma.drivers.power.redfish.power import RedfishPower
from koguma.lab import netns, packages
from koguma.lab.bmc import PowerAction
from koguma.lab.command import wait_until
from koguma.lab.lab import Lab, plan_of
from koguma.lab.plan import BmcKind, Hardware
from koguma.model.states import PowerState

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(packages.missing()), reason=f"not installed: {', '.join(packages.missing())}"),
]

CALL_S = 30
CD_SAYS = "koguma boots from a CD"
T = TypeVar("T")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with ExitStack() as stack:
        path = Path(f"/var/tmp/kgr{os.getpid()}")
        path.mkdir()
        stack.callback(lambda: subprocess.run(["rm", "-rf", str(path)], check=True))
        stack.callback(lambda: lab_at(path / "lab").down())
        yield path / "lab"


@pytest.fixture
def lab(home: Path) -> Lab:
    """One machine, off, with nothing chosen and nothing in its drive."""
    lab = lab_at(home)
    lab.network_up()
    lab.machines_up(power_on=False)
    lab.bmc("node1").power(PowerAction.OFF)
    ask(lab, lambda: management(lab).set_boot(BootChoice(None), timeout_s=CALL_S))
    ask(lab, lambda: management(lab).eject_media(MediaKind.CDROM, timeout_s=CALL_S))
    return lab


def lab_at(home: Path) -> Lab:
    return Lab(plan_of("t2", home, 1, hardware=Hardware(cpus=1, memory_mib=128, bmc=BmcKind.REDFISH)))


def access(lab: Lab) -> Access:
    told = lab.bmc("node1").credentials()
    assert told is not None
    return Access(told["driver"], told["address"], told["username"], told["password"])


def management(lab: Lab) -> RedfishManagement:
    return RedfishManagement(access(lab))


def ask(lab: Lab, question: Callable[[], T]) -> T:
    """Where a worker asks from: the controller."""
    with netns.inside(lab.plan.controller_namespace):
        return question()


def console(lab: Lab) -> str:
    log = lab.plan.machine("node1").console_log
    return log.read_text(errors="replace") if log.exists() else ""


def said(lab: Lab, words: str, since: int, timeout_s: float = 40) -> None:
    wait_until(f"the machine saying {words!r}", lambda: words in console(lab)[since:], timeout_s=timeout_s)


@pytest.fixture
def cd(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A bootable image, served on the BMC network."""
    (tmp_path / "cd.iso").write_bytes(bootable_cd(CD_SAYS))
    handler = type("Files", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with netns.inside(lab.plan.controller_namespace):
        server = ThreadingHTTPServer(
            (str(lab.plan.controller_bmc_address), 0),
            lambda *words: handler(*words, directory=str(tmp_path)),  # type: ignore[arg-type]
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://{lab.plan.controller_bmc_address}:{server.server_address[1]}/cd.iso"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_the_driver_powers_the_machine_on_and_off(lab: Lab) -> None:
    power = RedfishPower(access(lab))
    assert ask(lab, lambda: power.get_power_state(timeout_s=CALL_S)) is PowerState.OFF
    since = len(console(lab))
    ask(lab, lambda: power.set_power_state(PowerState.ON, timeout_s=CALL_S))
    first = lab.processes.running("node1")
    assert first is not None
    said(lab, "iPXE", since)
    ask(lab, lambda: power.set_power_state(PowerState.ON, timeout_s=CALL_S))
    assert lab.processes.running("node1") == first
    ask(lab, lambda: power.set_power_state(PowerState.OFF, timeout_s=CALL_S))
    assert lab.processes.running("node1") is None


def test_a_machine_outlives_its_bmc(lab: Lab) -> None:
    lab.bmc("node1").power(PowerAction.ON)
    first = lab.processes.running("node1")
    lab.processes.stop("node1-bmc")
    assert lab.bmc("node1").power_is_on_or_none() is None
    lab.bmc("node1").up()
    assert lab.bmc("node1").power_is_on()
    assert lab.processes.running("node1") == first


def test_a_stranger_is_refused(lab: Lab) -> None:
    stranger = RedfishPower(Access("redfish", access(lab).address, "admin", "guess"))
    with pytest.raises(PowerRefused):
        ask(lab, lambda: stranger.get_power_state(timeout_s=CALL_S))


def test_a_cd_that_is_chosen_once_is_booted_once(lab: Lab, cd: str) -> None:
    ask(lab, lambda: management(lab).insert_media(MediaKind.CDROM, cd, timeout_s=CALL_S))
    ask(lab, lambda: management(lab).set_boot(BootChoice(BootDevice.CDROM), timeout_s=CALL_S))
    since = len(console(lab))
    lab.bmc("node1").power(PowerAction.ON)
    said(lab, CD_SAYS, since)
    assert ask(lab, lambda: management(lab).get_boot(timeout_s=CALL_S)).device is None
    since = len(console(lab))
    ask(lab, lambda: management(lab).reset(timeout_s=CALL_S))
    said(lab, "iPXE", since)
    assert CD_SAYS not in console(lab)[since:]


def test_a_running_machine_is_reset_into_the_cd_put_in_meanwhile(lab: Lab, cd: str) -> None:
    since = len(console(lab))
    lab.bmc("node1").power(PowerAction.ON)
    said(lab, "iPXE", since)
    ask(lab, lambda: management(lab).insert_media(MediaKind.CDROM, cd, timeout_s=CALL_S))
    ask(lab, lambda: management(lab).set_boot(BootChoice(BootDevice.CDROM, persistent=True), timeout_s=CALL_S))
    for _ in range(2):
        since = len(console(lab))
        ask(lab, lambda: management(lab).reset(timeout_s=CALL_S))
        said(lab, CD_SAYS, since)


def bootable_cd(words: str) -> bytes:
    """An image without a file system but for what firmware needs to boot it (El Torito): it says its words on the
    serial line and stops.
    """
    sector = 2048
    image = bytearray(sector * 40)
    # Real mode, loaded at 0x7c00: mov si, text; cld; next: lodsb; test al, al; jz end; mov dx, 0x3f8; out dx, al;
    # jmp next; end: hlt; jmp end
    code = bytes.fromhex("be 00 7d fc ac 84 c0 74 06 ba f8 03 ee eb f5 f4 eb fd")
    program = (code.ljust(0x100, b"\x00") + f"\r\n{words}\r\n".encode() + b"\x00").ljust(sector, b"\x00")
    image[16 * sector : 16 * sector + 7] = b"\x01CD001\x01"
    boot_record = b"\x00CD001\x01" + b"EL TORITO SPECIFICATION".ljust(32, b"\x00")
    image[17 * sector : 17 * sector + len(boot_record)] = boot_record
    struct.pack_into("<I", image, 17 * sector + 0x47, 19)
    image[18 * sector : 18 * sector + 7] = b"\xffCD001\x01"
    validation = bytearray(b"\x01\x00\x00\x00".ljust(28, b"\x00") + b"\x00\x00\x55\xaa")
    checksum = -sum(struct.unpack("<16H", validation)) & 0xFFFF
    struct.pack_into("<H", validation, 28, checksum)
    entry = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 4, 20)
    image[19 * sector : 19 * sector + 32 + len(entry)] = validation + entry
    image[20 * sector : 21 * sector] = program
    return bytes(image)
