"""Ironic 39, standalone and all in one process, as the peer of `bench/lifecycle.py`: released packages in a virtual
environment of their own, SQLite, fake hardware without delays, no authentication.

`make bench-lifecycle` installs it when it is first needed: Ironic brings a hundred packages that Koguma never uses.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REQUIREMENT = "ironic==39.*"
INTERFACES = {
    "bios": "no-bios", "boot": "fake", "console": "no-console", "deploy": "fake", "firmware": "no-firmware",
    "inspect": "no-inspect", "management": "fake", "network": "noop", "power": "fake", "raid": "no-raid",
    "rescue": "no-rescue", "storage": "noop", "vendor": "no-vendor",
}  # fmt: skip


def install(environment: Path) -> None:
    """Make the virtual environment where it is not there yet."""
    if (environment / "bin" / "ironic").exists():
        return
    print(f"installing {REQUIREMENT} into {environment}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", REQUIREMENT], check=True)


def version(environment: Path) -> str:
    done = subprocess.run([environment / "bin" / "pip", "show", "ironic"], check=True, capture_output=True, text=True)
    return next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("Version:"))


@contextlib.contextmanager
def running(environment: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A fresh Ironic that listens on the port."""
    with tempfile.TemporaryDirectory(prefix="ironic-bench-") as state:
        settings = Path(state) / "ironic.conf"
        settings.write_text(_settings(Path(state), port))
        programs = environment / "bin"
        with (Path(state) / "ironic.log").open("wb") as log:
            schema = [programs / "ironic-dbsync", "--config-file", settings, "create_schema"]
            subprocess.run(schema, check=True, stdout=log, stderr=log)
            process = subprocess.Popen([programs / "ironic", "--config-file", settings], stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _settings(state: Path, port: int) -> str:
    enabled = "".join(f"enabled_{kind}_interfaces = {name}\n" for kind, name in INTERFACES.items())
    return f"""[DEFAULT]
auth_strategy = noauth
rpc_transport = none
host = localhost
state_path = {state}
enabled_hardware_types = fake-hardware
{enabled}[api]
host_ip = 127.0.0.1
port = {port}
[database]
connection = sqlite:///{state}/ironic.sqlite
[dhcp]
dhcp_provider = none
"""
