"""A machine: its QEMU command line, the file its BMC powers it on from, its console and what QEMU says of it.

Nobody but the machine's BMC starts QEMU: see `koguma.lab.launch` for how, and `koguma.lab.bmc` for when.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from select import select

from koguma.lab.command import run
from koguma.lab.errors import LabError
from koguma.lab.monitor import Monitor
from koguma.lab.plan import BmcKind, Firmware, Machine
from koguma.lab.processes import Processes, write_atomically

OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
KCS_PORT = 9002
"""Where ipmi_sim waits for its machine's KCS interface, on the loopback of the chassis."""
FIRST_TAP_FD = 30
"""`koguma.lab.launch` opens the taps at this descriptor and the following ones."""
CPU = "max,-erms,-fsrm,-la57"
"""A kernel that finds fast string instructions copies and clears byte by byte with them, which emulation makes many
times slower; a fifth level of page tables lengthens every walk. Without them a boot takes a quarter less time."""
RETRY_BOOT_MS = 3000
CONSOLE_LOGS_KEPT = 5
ESCAPE = b"\x1d"
"""Ctrl-] leaves a console, as in telnet and virsh."""


class BootSource(Enum):
    """What a machine can boot from, in the order in which its firmware tries; the values are Redfish's words."""

    NETWORK = "Pxe"  # the first network card
    DISK = "Hdd"
    CDROM = "Cd"  # the virtual media of its BMC


@dataclass(frozen=True)
class BootSettings:
    """What a BMC decides of a machine's start."""

    first: BootSource = BootSource.NETWORK
    """What the firmware tries before anything else."""
    cdrom: Path | None = None
    """The image in the virtual drive."""


FACTORY_BOOT = BootSettings()
BOOT_DEVICES = {BootSource.NETWORK: "nic0", BootSource.DISK: "vda0", BootSource.CDROM: "cd0"}
"""QEMU's names of what can be booted from."""


def boot_devices(machine: Machine) -> dict[BootSource, str]:
    """QEMU's names of what this machine can be booted from."""
    missing = set()
    if not machine.hardware.disk_gib:
        missing.add(BootSource.DISK)
    if not machine.hardware.pxe:
        missing.add(BootSource.NETWORK)
    return {source: device for source, device in BOOT_DEVICES.items() if source not in missing}


def boot_index(source: BootSource, first: BootSource) -> int:
    """A source's place in the firmware's order."""
    return 1 if source is first else 2 + list(BootSource).index(source)


def qemu_command(machine: Machine, boot: BootSettings = FACTORY_BOOT) -> list[str]:
    """The whole command line of a machine. No acceleration but TCG: it boots any kernel on any host."""
    hardware = machine.hardware
    return [
        "qemu-system-x86_64",
        *("-name", machine.namespace),
        "-nodefaults",
        "-no-user-config",
        *("-machine", "pc,graphics=off"),
        *("-accel", "tcg,thread=multi"),
        *("-cpu", CPU),
        *("-smp", str(hardware.cpus)),
        *("-m", str(hardware.memory_mib)),
        *("-uuid", machine.uuid),
        *("-smbios", f"type=1,manufacturer=Koguma,product=Lab node,serial={machine.serial},uuid={machine.uuid}"),
        *("-display", "none"),
        # The firmware finds nothing to boot while Koguma is down: it must try again instead of waiting for a key.
        *("-boot", f"strict=on,reboot-timeout={RETRY_BOOT_MS}"),
        *_firmware(machine),
        *_console(machine),
        *("-qmp", f"unix:{machine.qmp_socket},server=on,wait=off"),
        *_nics(machine, boot.first),
        *_disks(machine, boot.first),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng0"),
        *("-device", "i6300esb"),
        *("-action", "watchdog=reset"),
        *(_kcs() if hardware.bmc is BmcKind.IPMI else _virtual_drive(boot)),
    ]


def launch_settings(machine: Machine, switch_namespace: str, boot: BootSettings = FACTORY_BOOT) -> dict[str, object]:
    """What `koguma.lab.launch` needs to power the machine on."""
    return {
        "argv": qemu_command(machine, boot),
        "taps": [{"namespace": switch_namespace, "link": nic.switch_port} for nic in machine.nics],
        "first_fd": FIRST_TAP_FD,
        "pid_file": str(machine.home / "pids" / f"{machine.name}.json"),
        "log": str(machine.home / "logs" / f"{machine.name}-qemu.log"),
    }


def prepare(machine: Machine, switch_namespace: str, processes: Processes) -> None:
    """Ensure that the machine can be powered on: firmware variables, disk, launch file. A running one is left alone."""
    if processes.running(machine.name):
        return
    machine.machine_dir.mkdir(parents=True, exist_ok=True)
    machine.console_log.parent.mkdir(parents=True, exist_ok=True)
    rotate(machine.console_log)
    variables = machine.machine_dir / "vars.fd"
    if machine.hardware.firmware is Firmware.UEFI and not variables.exists():
        part = variables.with_suffix(".tmp")
        shutil.copyfile(OVMF_VARS, part)
        part.rename(variables)
    for disk in _disk_paths(machine):
        if not disk.exists():
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), f"{machine.hardware.disk_gib}G"])
    write_launch_file(machine, switch_namespace)


def write_launch_file(machine: Machine, switch_namespace: str, boot: BootSettings = FACTORY_BOOT) -> Path:
    path = machine.machine_dir / "launch.json"
    write_atomically(path, json.dumps(launch_settings(machine, switch_namespace, boot), indent=1) + "\n")
    return path


def rotate(log: Path) -> None:
    """Keep the last few lives of a log: `x.log` becomes `x.log.1` and so on."""
    if not log.exists() or log.stat().st_size == 0:
        return
    for number in range(CONSOLE_LOGS_KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


def qmp(machine: Machine, command: str) -> object:
    """Ask QEMU one question, such as `query-status`; LabError when it is off or does not answer."""
    with Monitor(machine.qmp_socket) as monitor:
        return monitor.execute(command)


def attach_console(machine: Machine, stdin: int, stdout: int) -> None:
    """Join a terminal and a machine's serial console until ESCAPE is typed or the machine is powered off."""
    with socket.socket(socket.AF_UNIX) as channel:
        try:
            channel.connect(str(machine.console_socket))
        except OSError as error:
            raise LabError(f"a console needs a machine that is on: {error} ({machine.name})") from error
        with _raw(stdin):
            _join(channel, stdin, stdout)


def _firmware(machine: Machine) -> list[str]:
    if machine.hardware.firmware is Firmware.BIOS:
        return []
    return [
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={machine.machine_dir / 'vars.fd'}"),
    ]


def _console(machine: Machine) -> list[str]:
    path, log = machine.console_socket, machine.console_log
    return [
        *("-chardev", f"socket,id=con0,path={path},server=on,wait=off,logfile={log},logappend=on"),
        *("-serial", "chardev:con0"),
    ]


def _kcs() -> list[str]:
    """The machine's own way to its BMC."""
    return [
        *("-chardev", f"socket,id=ipmi0,host=127.0.0.1,port={KCS_PORT},reconnect=1"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0"),
        *("-device", "isa-ipmi-kcs,bmc=bmc0"),
    ]


def _virtual_drive(boot: BootSettings) -> list[str]:
    """The CD drive that is in no chassis: its BMC puts images into it."""
    medium = f",format=raw,file={boot.cdrom}" if boot.cdrom else ""
    index = boot_index(BootSource.CDROM, boot.first)
    return [
        *("-drive", f"if=none,id=cd,media=cdrom,readonly=on{medium}"),
        *("-device", f"ide-cd,id={BOOT_DEVICES[BootSource.CDROM]},drive=cd,bus=ide.1,bootindex={index}"),
    ]


def _nics(machine: Machine, first: BootSource) -> list[str]:
    words = []
    for number, nic in enumerate(machine.nics):
        # Only the first card boots. Under UEFI it has no ROM: OVMF brings a driver and a PXE of its own.
        boots = number == 0 and machine.hardware.pxe
        rom = "" if boots and machine.hardware.firmware is Firmware.BIOS else ",romfile="
        order = f",bootindex={boot_index(BootSource.NETWORK, first)}" if boots else ""
        words += ["-netdev", f"tap,id=net{number},fd={FIRST_TAP_FD + number}"]
        words += ["-device", f"virtio-net-pci,id=nic{number},netdev=net{number},mac={nic.mac}{order}{rom}"]
    return words


def _disks(machine: Machine, first: BootSource) -> list[str]:
    """The firmware tries the first one when it boots from a disk, and the next ones after every other source."""
    words = []
    for number, path in enumerate(_disk_paths(machine)):
        name = BOOT_DEVICES[BootSource.DISK] if number == 0 else f"vda{number}"
        index = boot_index(BootSource.DISK, first) if number == 0 else 1 + len(BootSource) + number
        device = f"virtio-blk-pci,id={name},drive=disk{number},serial={machine.serial}-D{number}"
        words += ["-drive", f"if=none,id=disk{number},format=qcow2,cache=writeback,discard=unmap,file={path}"]
        words += ["-device", f"{device},bootindex={index}"]
    return words


def _disk_paths(machine: Machine) -> list[Path]:
    names = ["disk.qcow2", *(f"disk{number}.qcow2" for number in range(1, machine.hardware.disks))]
    return [machine.machine_dir / name for name in names] if machine.hardware.disk_gib else []


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """A terminal passes every key through inside the block; what is no terminal is left as it is."""
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        yield
        return
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _join(channel: socket.socket, stdin: int, stdout: int) -> None:
    sources: list[int] = [channel.fileno(), stdin]
    while True:
        ready, _, _ = select(sources, [], [])
        if channel.fileno() in ready:
            output = channel.recv(65536)
            if not output:
                return
            _write_all(stdout, output)
        if stdin in ready:
            typed = os.read(stdin, 4096)
            if ESCAPE in typed:
                return
            if not typed:
                sources.remove(stdin)
            channel.sendall(typed)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
