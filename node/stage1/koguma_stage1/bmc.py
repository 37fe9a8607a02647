"""Makes Koguma's user on the machine's own BMC, in-band. A machine without a BMC registers all the same, with none.

The password is made here, set here and told once, in `register`.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from pathlib import Path
from typing import Any

from koguma_node import command
from koguma_node.console import say
from koguma_node.errors import NodeError

DEVICE = Path("/dev/ipmi0")
DEVICE_WAIT_S = 1.0
"""The drivers have been loaded before; only udev-less device creation is waited for."""
IPMITOOL_TIMEOUT_S = 20.0
USER_ID = "3"
USER_NAME = "koguma"
PASSWORD_LENGTH = 16
"""IPMI 2.0 allows 20 bytes, but BMCs that store 16 are common and cut a longer one silently."""
ADMINISTRATOR = "4"
CHANNELS = range(1, 8)


def ensure_user() -> dict[str, Any] | None:
    """How to reach the BMC as Koguma's user, which is made if it is not there; None when there is no BMC.

    Raises NodeError when the BMC refuses what power control needs.
    """
    end = time.monotonic() + DEVICE_WAIT_S
    while not DEVICE.exists():
        if time.monotonic() >= end:
            say("the machine has no BMC that the kernel can talk to")
            return None
        time.sleep(0.1)
    return _set_up()


def _set_up() -> dict[str, Any]:
    channel, lan = _lan_channel()
    password = make_password()
    _ipmitool("user", "set", "name", USER_ID, USER_NAME)
    _ipmitool("user", "set", "password", USER_ID, password, secret=password)
    _ipmitool("user", "enable", USER_ID)
    _ipmitool("user", "priv", USER_ID, ADMINISTRATOR, channel)
    _tolerated(
        "channel", "setaccess", channel, USER_ID, "callin=on", "ipmi=on", "link=on", f"privilege={ADMINISTRATOR}"
    )
    _tolerated("lan", "set", channel, "access", "on")
    return {
        "address": lan["IP Address"],
        "mac": lan.get("MAC Address", "").lower(),
        "username": USER_NAME,
        "password": password,
        "driver": "ipmi",
    }


def make_password() -> str:
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(PASSWORD_LENGTH))


def parse_lan(text: str) -> dict[str, str]:
    """`ipmitool lan print` as a mapping; the first line of a key with several is kept."""
    values: dict[str, str] = {}
    for key, value in re.findall(r"^(\S[^:]*?)\s*: (.*)$", text, re.MULTILINE):
        values.setdefault(key, value.strip())
    return values


def _lan_channel() -> tuple[str, dict[str, str]]:
    """The first channel that is a LAN with an address, and what it says."""
    for channel in map(str, CHANNELS):
        result = command.run(["ipmitool", "-I", "open", "lan", "print", channel], IPMITOOL_TIMEOUT_S)
        lan = parse_lan(result.stdout)
        if lan.get("IP Address", "0.0.0.0") != "0.0.0.0":  # noqa: S104 - no address, not a listener
            return channel, lan
    raise NodeError("a BMC must have a LAN channel with an address, got none on channels 1 to 7 (ipmitool lan print)")


def _ipmitool(*arguments: str, secret: str = "") -> None:
    result = command.run(["ipmitool", "-I", "open", *arguments], IPMITOOL_TIMEOUT_S)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().replace(secret or "\0", "…")
        shown = " ".join(arguments).replace(secret or "\0", "…")
        raise NodeError(f"the BMC refused `ipmitool {shown}`: {said}")


def _tolerated(*arguments: str) -> None:
    """What some BMCs refuse although their LAN already works; power control will tell."""
    try:
        _ipmitool(*arguments)
    except NodeError as error:
        say(f"{error}; going on")
