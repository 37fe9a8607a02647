"""What tests with OpenStack's released clients share: environments of their own, and a fresh server."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0


def environment(directory: Path, packages: tuple[str, ...]) -> Path:
    """The Python of an environment with these packages from the package index; made once."""
    python = directory.absolute() / "bin" / "python"
    complete = directory / ".complete"
    if not complete.exists():
        venv.create(directory, with_pip=True, clear=True)
        pip(python, "install", "--quiet", *packages)
        complete.touch()
    return python


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def version(python: Path, package: str) -> str:
    command = [str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def server(work: Path) -> Iterator[str]:
    """A fresh `koguma up`; its URL."""
    address = free_address()
    state = tempfile.mkdtemp(prefix="koguma-openstack-")
    log = work / "koguma.log"
    command = [sys.executable, "-m", "koguma", "up", "--state", state, "--api", address, "--auth", "none", "--no-boot"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://{address}/v1/conductors", process, log)
            yield f"http://{address}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)
            subprocess.run(["rm", "-rf", state], check=False)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, needle: bytes = b'"hostname"') -> None:
    """Until it answers with these bytes: asked for conductors, until a worker is there as well."""
    deadline = time.monotonic() + START_TIMEOUT_S
    request = urllib.request.Request(url, headers={"X-OpenStack-Ironic-API-Version": "1.115"})
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            if needle in answer.read():
                return
        time.sleep(0.2)
    raise SystemExit(f"the server must answer within {START_TIMEOUT_S:.0f} s; it said:\n{log.read_text()[-4000:]}")
