"""A real tgtd for tests, on loopback with a control socket of its own; and the initiator of libiscsi, which needs no
kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from koguma.contracts.volumes import Initiator, VolumeAccess
from koguma.model.volume import Target
from tests.contract.redfish_bmc import _free_port

TOOLS = ("tgtd", "tgtadm", "iscsi-inq")


class TgtStorage:
    """Starts at construction; `close` ends the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.portal = f"127.0.0.1:{_free_port()}"
        self._start()

    @property
    def access(self) -> VolumeAccess:
        return VolumeAccess("tgt", str(self.directory), self.portal)

    def restart(self) -> None:
        self.close()
        (self.directory / "tgtd.0").unlink(missing_ok=True)
        self._start()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["tgtd", "-f", "-t", "1", "--iscsi", f"portal={self.portal}"],
                env={
                    **os.environ,
                    "TGT_IPC_SOCKET": str(self.directory / "tgtd"),
                    "PATH": f"{os.environ['PATH']}:/usr/sbin",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while not (self.directory / "tgtd.0").exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.close()
                raise AssertionError((self.directory / "log").read_text())
            time.sleep(0.05)


def login(target: Target, initiator: Initiator) -> str | None:
    """Why the machine cannot use its volume, or None when it can."""
    url = f"iscsi://{initiator.user}%{initiator.secret}@{target.portal}/{target.name}/{target.lun}"
    done = subprocess.run(
        ["iscsi-inq", "-i", initiator.name, url], capture_output=True, text=True, timeout=30, check=False
    )
    if "Peripheral Device Type:DIRECT_ACCESS" in done.stdout:
        return None
    return done.stderr.strip() or done.stdout.strip() or "no answer"


def can_transfer() -> bool:
    """Whether QEMU's tools speak iSCSI: qemu-utils and qemu-block-extra."""
    return bool(shutil.which("qemu-io")) and any(Path("/usr/lib").glob("*/qemu/block-iscsi.so"))


def qemu_io(target: Target, initiator: Initiator, command: str) -> str:
    """What `qemu-io` says to a read or write of the volume over iSCSI."""
    options = {
        "driver": "raw",
        "file.driver": "iscsi",
        "file.transport": "tcp",
        "file.portal": target.portal,
        "file.target": target.name,
        "file.lun": str(target.lun),
        "file.user": initiator.user,
        "file.password": initiator.secret,
        "file.initiator-name": initiator.name,
    }
    text = ",".join(f"{key}={value}" for key, value in options.items())
    done = subprocess.run(
        ["qemu-io", "--image-opts", "-c", command, text], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout
