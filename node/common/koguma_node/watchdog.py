"""The watchdog that reboots a machine whose boot hangs: a hardware one when the machine has it, the kernel's otherwise.

A thread pets it for as long as the running step's deadline has not passed. A step that hangs beyond its deadline,
or a Python that hangs as a whole, is not petted any more, and the machine reboots TIMEOUT_S later.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from pathlib import Path

from koguma_node.console import say

DEVICE = Path("/dev/watchdog0")
TIMEOUT_S = 60
PET_EVERY_S = 5.0
WDIOC_SETTIMEOUT = 0xC0045706


class Watchdog:
    """Not armed until `allow` finds a device; drivers may still be loading at first."""

    def __init__(self, device: Path = DEVICE) -> None:
        self._device = device
        self._descriptor: int | None = None
        self._deadline = 0.0
        self._lock = threading.Lock()

    def allow(self, seconds: float) -> None:
        """Pet the watchdog for `seconds` from now on at most."""
        self._deadline = time.monotonic() + seconds
        if self._descriptor is None:
            self._arm()

    def disarm(self) -> None:
        """Stop the watchdog, which the next kernel may have no driver for."""
        with self._lock:
            if self._descriptor is not None:
                os.write(self._descriptor, b"V")
                os.close(self._descriptor)
                self._descriptor = None
                self._deadline = 0.0

    def _arm(self) -> None:
        try:
            descriptor = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.ioctl(descriptor, WDIOC_SETTIMEOUT, struct.pack("i", TIMEOUT_S))
        except OSError as error:
            say(f"the watchdog keeps its own timeout: {error.strerror} ({self._device})")
        self._descriptor = descriptor
        threading.Thread(target=self._pet, daemon=True, name="watchdog").start()

    def _pet(self) -> None:
        while True:
            with self._lock:
                if self._descriptor is None:
                    return
                if time.monotonic() < self._deadline:
                    os.write(self._descriptor, b"\0")
            time.sleep(PET_EVERY_S)
