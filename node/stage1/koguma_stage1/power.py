"""The machine's own power: off, reboot, and the jump into a loaded kernel. None of these returns."""

from __future__ import annotations

import ctypes
import os
import time
from typing import NoReturn

RESTART = 0x01234567
POWER_OFF = 0x4321FEDC
KEXEC = 0x45584543


def reboot() -> NoReturn:
    _reboot(RESTART)


def power_off() -> NoReturn:
    _reboot(POWER_OFF)


def jump_to_loaded_kernel() -> None:
    """Start the kernel that was loaded for kexec. Returns only when the kernel refuses."""
    _system_call(KEXEC)


def _reboot(action: int) -> NoReturn:
    _system_call(action)
    # A kernel that cannot power off or restart through firmware comes back here; sysrq restarts it by force.
    with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:  # noqa: PTH123 - pathlib may be what failed
        trigger.write("b")
    while True:
        time.sleep(1)


def _system_call(action: int) -> None:
    os.sync()
    ctypes.CDLL(None, use_errno=True).reboot(ctypes.c_int(action))
