"""Logs in to the volume that holds this node's root: iscsistart, with what `detail` says, its CHAP secret included.

The program ends when the session stands; the kernel keeps it. In stage 2 iscsid takes it over, so that it outlives a
storage that was away for a while.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from koguma_node import command
from koguma_node.console import say
from koguma_node.errors import NodeError

LOGIN_TIMEOUT_S = 60.0
ATTEMPTS_MAX = 5
APPEAR_S = 30.0
SESSIONS = Path("/sys/class/iscsi_session")
FORMS = {
    "initiator": re.compile(r"iqn\.[a-z0-9.:-]{1,220}"),
    "target": re.compile(r"iqn\.[a-z0-9.:-]{1,220}"),
    "address": re.compile(r"[0-9a-f.:]{2,45}"),
    "user": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
    "secret": re.compile(r"[A-Za-z0-9]{12,16}"),
}


def log_in(detail: dict[str, Any]) -> str:
    """The volume's block device. Raises NodeError."""
    access = checked_access(detail.get("iscsi"))
    arguments = ["iscsistart", "-i", access["initiator"], "-t", access["target"], "-g", "1"]
    arguments += ["-a", access["address"], "-p", str(access["port"]), "-u", access["user"], "-w", access["secret"]]
    said = ""
    for attempt in range(ATTEMPTS_MAX):
        time.sleep(attempt)
        result = command.run(arguments, LOGIN_TIMEOUT_S)
        if result.returncode == 0:
            return _device(access["lun"])
        said = " / ".join((result.stderr or result.stdout).strip().splitlines()[-2:])
        say(f"no login to {access['target']}: {said}")
    raise NodeError(f"the root volume must let this machine in: {said} ({access['address']} {access['target']})")


def checked_access(access: Any) -> dict[str, Any]:
    """Raises NodeError; the secret is never shown."""
    if not isinstance(access, dict):
        raise NodeError("root method iscsi needs the volume's access, there is none (detail.iscsi)")
    for key, form in FORMS.items():
        value = access.get(key)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise NodeError(f"iscsi.{key} has another form{'' if key == 'secret' else f', got {value!r}'} (detail)")
    for key in ("port", "lun"):
        if type(access.get(key)) is not int or not 0 <= access[key] <= 65535:
            raise NodeError(f"iscsi.{key} must be a number, got {access.get(key)!r} (detail)")
    return access


def _device(lun: int) -> str:
    end = time.monotonic() + APPEAR_S
    while time.monotonic() < end:
        for block in SESSIONS.glob(f"session*/device/target*/*:*:*:{lun}/block/*"):
            device = Path("/dev") / block.name
            if device.exists():
                return str(device)
        time.sleep(0.1)
    raise NodeError(f"the root volume must appear within {APPEAR_S:g} s of the login, got no disk with LUN {lun}")
