"""Powers one machine on: what a BMC's `startcmd` runs, inside the chassis namespace.

    python -I -S launch.py LAUNCH.json

1. Opens the machine's taps in the switch's namespace (a tap's file works from everywhere; its link stays there).
2. Becomes QEMU, keeping its pid, so that the BMC knows by its child that the machine is on.

Standard library only and no import of the package: it must start in a blink.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
TAP_BUSY_S = 5.0
"""How long an earlier QEMU may take to let go of a tap. A machine that still runs keeps it: two can never share one."""


def main(path: Path) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    _log_to(settings["log"])
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    for number, tap in enumerate(settings["taps"]):
        _enter(f"/run/netns/{tap['namespace']}")
        descriptor = _open_tap(tap["link"])
        os.dup2(descriptor, settings["first_fd"] + number, inheritable=True)
        os.close(descriptor)
    if _libc.setns(home, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the chassis namespace cannot be entered again")
    _record(Path(settings["pid_file"]))
    argv: list[str] = settings["argv"]
    os.execvp(argv[0], argv)  # noqa: S606  no shell is the point


def _log_to(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"the namespace {namespace} cannot be entered")
    os.close(descriptor)


def _open_tap(link: str) -> int:
    request = struct.pack("16sH22x", link.encode(), IFF_TAP | IFF_NO_PI)
    deadline = time.monotonic() + TAP_BUSY_S
    while True:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, TUNSETIFF, request)
        except OSError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return descriptor


def _record(path: Path) -> None:
    """The same form as `koguma.lab.processes` writes; the start time outlives exec."""
    fields: Any = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    part.write_text(json.dumps({"pid": os.getpid(), "started": int(fields[19])}) + "\n", encoding="ascii")
    part.rename(path)


_libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main(Path(sys.argv[1]))
