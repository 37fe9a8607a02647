"""A QEMU machine with user-mode networking that boots a kernel and an initramfs directly."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bootserver import UUID

MAC = "52:54:00:6b:67:01"
MEMORY_MB = 2560


class Machine:
    def __init__(self, kernel: Path, initrd: Path, command_line: str, log: Path, *extra: str) -> None:
        self.log = log
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB),
                "-uuid", UUID, "-smbios", "type=1,manufacturer=Koguma,product=Test,serial=KG-0001",
                "-nodefaults", "-display", "none", "-serial", f"file:{log}",
                "-netdev", "user,id=net0", "-device", f"virtio-net-pci,netdev=net0,mac={MAC}",
                "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line, *extra,
            ],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def console(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait_for_power_off(self, timeout_s: float) -> None:
        self._process.wait(timeout_s)

    def is_on(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
