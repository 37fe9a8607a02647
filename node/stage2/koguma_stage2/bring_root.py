"""Brings the root of stage 2 into memory and makes it this node's. Runs once in the initramfs, as drivers load.

1. Arm the watchdog, wait for the boot NIC, tell that the kernel has arrived here (`kexec succeeded`).
2. Root method ram: fetch the root image into a tmpfs, verified by the digest that stage 1 took from the manifest.
   Root method iscsi: log in to the volume that `detail` names; it was made of a verified commit (volume.py).
3. Mount it, or the NFS copy, or the local device, and the writable layer (mount-root); or the volume, which is
   writable itself. Tell `root succeeded`; or
   `root failed` with the reason, and end with status 1, upon which the machine reboots.
4. Render the configuration into the root: it is complete before the first process of stage 2 starts. A failure is told
   as `render failed`; the machine goes on, so that somebody can look, but never says `installed`.

Nothing that was not verified is mounted.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from koguma_node import command
from koguma_node.boot_env import read_boot_env
from koguma_node.console import say
from koguma_node.download import ensure_room, fetch_verified
from koguma_node.errors import NodeError
from koguma_node.service import Service
from koguma_node.watchdog import Watchdog

from koguma_stage2 import places, render, templates, volume
from koguma_stage2.detail import load_detail

METHODS = ("ram", "nfs", "iscsi", "local")
TIMEOUT_S = 1200.0
"""For all of it: 4 GB at 50 MB/s in a boot storm take 80 s; what takes 20 minutes is a hang."""
NETWORK_WAIT_S = 150.0
RESUMES_MAX = 5
RESERVE_BYTES = 64 * 1024 * 1024
"""What stage 2 needs besides the image before it can run at all."""
MOUNT_TIMEOUT_S = 900.0
POLL_S = 0.02
MOUNT_ROOT = "/usr/lib/koguma/mount-root"
NETWORK = Path(places.RUN) / "network"


def main() -> int:
    values = read_boot_env(Path(places.BOOT_ENV))
    watchdog = Watchdog()
    service = Service(values["KOGUMA_URL"], values["KOGUMA_UUID"], values["KOGUMA_TOKEN"])
    templates.prepare()
    try:
        _wait_for_network()
        watchdog.allow(TIMEOUT_S)
        service.report("kexec", "succeeded")
        service.report("root", "started")
        bring_root(values, time.monotonic() + TIMEOUT_S)
        service.report("root", "succeeded")
        render_root(service, Path(os.environ["KOGUMA_ROOT_MOUNT"]))
    except (NodeError, OSError, ValueError, KeyError) as error:
        reason = _reason(error)
        say(f"root failed: {reason}")
        service.report("root", "failed", reason)
        return 1
    finally:
        # systemd has a watchdog of its own; the image decides about it.
        watchdog.disarm()
    return 0


def render_root(service: Service, root: Path) -> None:
    """Render into the mounted root; never raises for what `detail` or a template has wrong."""
    service.report("render", "started")
    try:
        detail = load_detail(Path(places.DETAIL))
        render.render_all(root, detail)
        socket.sethostname(detail["hostname"])
    except (NodeError, OSError) as error:
        say(f"render failed: {_reason(error)}")
        service.report("render", "failed", _reason(error))
        return
    Path(places.RENDERED).touch()
    service.report("render", "succeeded")


def bring_root(values: dict[str, str], deadline: float) -> None:
    method = values["KOGUMA_ROOT_METHOD"]
    if method not in METHODS:
        raise NodeError(f"KOGUMA_ROOT_METHOD must be one of {', '.join(METHODS)}, got {method!r} (boot.env)")
    if method == "ram":
        _fetch_image(values, deadline)
    if method == "iscsi":
        values = {**values, "KOGUMA_ROOT_DEVICE": volume.log_in(load_detail(Path(places.DETAIL)))}
    result = command.run([MOUNT_ROOT, method], MOUNT_TIMEOUT_S, environment={**os.environ, **values})
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.strip()]
        raise NodeError(f"the root must be mountable: {' / '.join(said[-2:]) or 'mount said nothing'}")


def _fetch_image(values: dict[str, str], deadline: float) -> None:
    name, size_bytes = values["KOGUMA_ROOT_NAME"], int(values["KOGUMA_ROOT_SIZE_BYTES"])
    folder = Path(places.IMAGE)
    folder.mkdir(mode=0o700, exist_ok=True)
    _mount_tmpfs(folder, size_bytes + 1024 * 1024)
    ensure_room(folder, name, size_bytes, RESERVE_BYTES)
    fetch_verified(
        values["KOGUMA_ROOT_URL"],
        folder / name,
        name,
        size_bytes,
        values["KOGUMA_ROOT_SHA256"],
        deadline,
        RESUMES_MAX,
    )


def _mount_tmpfs(folder: Path, size_bytes: int) -> None:
    arguments = ["mount", "-t", "tmpfs", "-o", f"mode=0700,size={size_bytes}", "koguma-image", str(folder)]
    result = command.run(arguments, 10.0)
    if result.returncode != 0:
        raise NodeError(f"a tmpfs for the root image must be mountable: {result.stderr.strip()}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, NodeError) else f"{type(error).__name__}: {error}"


def _wait_for_network() -> None:
    """Until the shell has configured the boot NIC, or has said why it cannot."""
    end = time.monotonic() + NETWORK_WAIT_S
    while not NETWORK.exists():
        if time.monotonic() >= end:
            raise NodeError(f"the boot NIC must be configured within {NETWORK_WAIT_S:g} s")
        time.sleep(POLL_S)
    if problem := NETWORK.read_text(encoding="utf-8").strip():
        raise NodeError(problem)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: ending the interpreter properly takes time, and its threads, which sleep, have nothing to end.
    os._exit(status)
