"""Opens a shell on the network: for the operator's keys, and for the user `rescue` with the password that was set.

Both are root: the machine is theirs, and its own system is not running. The host key is the node's own.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from koguma_node.command import run as run_tool
from koguma_node.console import say
from koguma_node.errors import NodeError

from koguma_stage1.context import Context

OUTCOME = "a shell waits on the network"
PHASE = "rescue"
TIMEOUT_S = 120.0
HOST_KEY = "ssh_host_ed25519_key"
SERVER = "/usr/sbin/dropbear"
CONVERTER = "/usr/bin/dropbearconvert"
PORT_HEX = ":0016 "
"""22, as /proc/net/tcp writes it."""


def run(context: Context) -> None:
    context.detail = context.service.get("detail", context.deadline)
    write_accounts(context.detail, Path("/"))
    key = _host_key(context)
    # Everything busybox can do, under its own names: stage 1 itself needs few of them.
    run_tool(["/usr/bin/busybox", "--install", "-s", "/usr/bin"], 30.0)
    _ensure_terminals()
    run_tool(["ip", "link", "set", "lo", "up"], 10.0)
    subprocess.Popen([SERVER, "-E", "-r", str(key), "-p", "22"], stdin=subprocess.DEVNULL).wait(timeout=30)
    _wait_until_it_listens(context.deadline)
    address = context.required_lease().address.partition("/")[0]
    say(f"rescue: ssh root@{address} with an operator's key, or ssh rescue@{address} with the rescue password")


def write_accounts(detail: dict[str, Any], root: Path) -> None:
    """The accounts and keys, below `root`."""
    password = (detail.get("rescue") or {}).get("password_hash") or "*"
    if any(char in password for char in ":\n"):
        raise NodeError("a password hash must be one field of a line (detail)")
    users = {"root": "*", "rescue": password}
    _write(root / "etc/passwd", "".join(f"{user}:x:0:0:{user}:/root:/bin/sh\n" for user in users), 0o644)
    _write(root / "etc/shadow", "".join(f"{user}:{words}:19000:0:99999:7:::\n" for user, words in users.items()), 0o600)
    _write(root / "etc/shells", "/bin/sh\n", 0o644)
    _write(root / "etc/profile", f"PS1='{detail.get('node', 'node')} rescue # '\n", 0o644)
    home = root / "root"
    home.mkdir(mode=0o700, exist_ok=True)
    home.chmod(0o700)
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    keys = [str(key) for key in detail.get("ssh_authorized_keys") or ()]
    _write(home / ".ssh/authorized_keys", "".join(f"{key}\n" for key in keys), 0o600)


def _host_key(context: Context) -> Path:
    """The node's own host key, in the server's form."""
    text = (context.detail.get("ssh_host_keys") or {}).get(HOST_KEY)
    if not text:
        raise NodeError(f"a rescue needs the node's host key {HOST_KEY}, there is none (detail)")
    given, key = context.work / HOST_KEY, context.work / "host-key"
    _write(given, text, 0o600)
    done = run_tool([CONVERTER, "openssh", "dropbear", str(given), str(key)], 30.0)
    if done.returncode != 0:
        raise NodeError(f"the host key must be an OpenSSH key: {done.stderr.strip()[-200:]}")
    return key


def _ensure_terminals() -> None:
    Path("/dev/pts").mkdir(exist_ok=True)
    if not Path("/dev/pts/ptmx").exists():
        run_tool(["mount", "-t", "devpts", "devpts", "/dev/pts"], 10.0)


def _wait_until_it_listens(deadline: float) -> None:
    while time.monotonic() < deadline:
        if PORT_HEX in Path("/proc/net/tcp").read_text(encoding="ascii"):
            return
        time.sleep(0.1)
    raise NodeError("the SSH server must listen, it does not")


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_text(text, encoding="utf-8")
