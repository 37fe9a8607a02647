"""A QEMU machine with user-mode networking that boots a kernel and an initramfs directly."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Self

from bootserver import TOKEN, UUID, BootServer

from koguma.lab.machine import CPU

MAC = "52:54:00:6b:67:01"
MEMORY_MB = 2560


class Machine:
    def __init__(self, kernel: Path, initrd: Path, command_line: str, log: Path, *extra: str) -> None:
        self.log = log
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", str(MEMORY_MB),
                "-uuid", UUID, "-smbios", "type=1,manufacturer=Koguma,product=Test,serial=KG-0001",
                "-nodefaults", "-display", "none", "-serial", f"file:{log}",
                "-netdev", "user,id=net0", "-device", f"virtio-net-pci,netdev=net0,mac={MAC}",
                "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line, *extra,
            ],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @classmethod
    def of_stage1(cls, stage1: Path, mode: str, url: str, log: Path, arguments: str, *extra: str) -> Self:
        line = (
            f"console=ttyS0 quiet koguma.mode={mode} koguma.url={url} koguma.uuid={UUID} koguma.token={TOKEN} "
            f"koguma.mac={MAC} {arguments}"
        )
        return cls(
            stage1 / "kernel", _initrd_for(stage1, mode, log.with_name("initrd")), line, log, "-no-reboot", *extra
        )

    def console(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait_for_console(self, text: str, timeout_s: float) -> str:
        end = time.monotonic() + timeout_s
        while text not in (said := self.console()):
            if time.monotonic() >= end or not self.is_on():
                raise AssertionError(f"the console must say {text!r} within {timeout_s:g} s, got {said[-2000:]}")
            time.sleep(0.1)
        return said

    def wait_for_power_off(self, timeout_s: float) -> None:
        """Until the machine powers itself off, or reboots (which ends it too: it is started with -no-reboot)."""
        self._process.wait(timeout_s)

    def is_on(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


def _initrd_for(stage1: Path, mode: str, joined: Path) -> Path:
    """What iPXE would load one after the other, in one file: QEMU takes one."""
    names = ["initrd"] if mode == "boot" else ["initrd", "tools"]
    joined.write_bytes(b"".join((stage1 / name).read_bytes() for name in names))
    return joined


class Lab:
    """Starts the test's machine and stops it afterwards."""

    def __init__(self, repository: Path, server: BootServer, log: Path) -> None:
        self._stage1 = repository / "boot/stage1/current"
        self._server = server
        self._log = log
        self.machine: Machine | None = None

    def start(self, mode: str, *extra: str, arguments: str = "") -> Machine:
        self.machine = Machine.of_stage1(self._stage1, mode, self._server.url, self._log, arguments, *extra)
        return self.machine
