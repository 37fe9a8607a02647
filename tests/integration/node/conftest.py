"""One stage 1 and one small image for all tests of this folder, built by the real builders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from artifact import COMMIT, make_artifact
from bootserver import UUID, BootServer
from machine import MAC, Lab

from koguma.images.aptsources import machine_sources, mirror_lines
from koguma.images.signing import create_keys
from koguma.images.stage1 import build_stage1
from koguma.images.tools import with_own_mounts

NODE = Path(__file__).resolve().parents[3] / "node"
SUITE = "bookworm"
TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mksquashfs", "cpio", "zstd", "depmod")
PACKAGES = (
    "linux-image-amd64,initramfs-tools,busybox,zstd,systemd-sysv,udev,dbus,kmod,iproute2,openssh-server,"
    "python3,python3-jinja2"
)
TEMPLATE = "my_ip = {{ address }}\n{% for member in members %}{{ member.name }} {{ member.address }}\n{% endfor %}"
REPORT_SCRIPT = """#!/bin/sh
# Tells the console what the test wants to know of the machine, as the machine itself sees it.
{ echo "KOGUMA-TEST mounts"; cat /proc/mounts; echo "KOGUMA-TEST hosts"; cat /etc/hosts; hostname; cat /etc/probe.conf
  cat /etc/machine-id; stat -c '%a %n' /run/koguma /run/koguma/boot.env /root/.ssh/authorized_keys; cat /proc/cmdline
  losetup -a; echo "KOGUMA-TEST end"; } >/dev/ttyS0
"""
REPORT_UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/koguma-test-report
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image repository's `boot/` and `keys/`, with stage 1 and one artifact; KOGUMA_TEST_CACHE keeps it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    cached = os.environ.get("KOGUMA_TEST_CACHE")
    path = Path(cached) if cached else tmp_path_factory.mktemp("repository")
    if not (path / "complete").exists():
        path.mkdir(parents=True, exist_ok=True)
        create_keys(path / "keys")
        build_stage1(path, suite=SUITE)
        root = path / "root"
        _build_root(root)
        make_artifact(root, path / "boot/artifacts", path / "keys", commit=COMMIT)
        (path / "complete").touch()
    return path


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[BootServer]:
    """A boot service for the test's machine, with artifacts of its own that the test may spoil."""
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    source = repository / "boot/artifacts" / COMMIT
    (artifacts / COMMIT).mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, artifacts / COMMIT / file.name)
    made = BootServer(artifacts)
    made.profile = _profile(made.url)
    made.detail = _detail()
    yield made
    made.close()


@pytest.fixture
def lab(repository: Path, server: BootServer, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(repository, server, tmp_path / "console.log")
    yield made
    if made.machine is not None:
        made.machine.stop()


def _build_root(root: Path) -> None:
    lines = mirror_lines(SUITE, ["main"], machine_sources())
    sources = root.with_name("sources.list")
    sources.write_text("".join(f"{line}\n" for line in lines))
    excluded = (
        "drivers/gpu",
        "drivers/media",
        "drivers/net/wireless",
        "sound",
        "drivers/staging",
        "drivers/iio",
        "fs/xfs",
    )
    options = [f"--dpkgopt=path-exclude=/lib/modules/*/kernel/{folder}/*" for folder in excluded]
    options += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
    subprocess.run(
        with_own_mounts(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *options, SUITE, str(root),
             *([str(sources)] if lines else [])]
        ),
        check=True,
    )  # fmt: skip
    (root / "etc/probe.conf.tpl").write_text(TEMPLATE)
    script = root / "usr/local/sbin/koguma-test-report"
    script.write_text(REPORT_SCRIPT)
    script.chmod(0o755)
    (root / "etc/systemd/system/koguma-test.service").write_text(REPORT_UNIT)
    for unit in ("koguma-test.service", "systemd-networkd.service"):
        subprocess.run(["chroot", root, "systemctl", "enable", unit], check=True)
    # A login prompt hangs the console up while the report is written to it.
    subprocess.run(["chroot", root, "systemctl", "mask", "serial-getty@ttyS0.service"], check=True)
    subprocess.run([NODE / "stage2/install.sh", root], check=True)
    subprocess.run(["chroot", root, "update-initramfs", "-u", "-k", "all"], check=True)


def _profile(url: str) -> dict[str, Any]:
    return {
        "node": "node-1",
        "label": "compute",
        "commit": COMMIT,
        "root_method": "ram",
        "kernel_args": "console=ttyS0 quiet",
        "artifact_url": f"{url}/artifacts/{COMMIT}/",
        "overlay_size_bytes": 256 * 1024 * 1024,
        "nfs": None,
    }


def _detail() -> dict[str, Any]:
    return {
        "node": "node-1",
        "uuid": UUID,
        "hostname": "node-1",
        "domain": "lab.koguma",
        "flavor": "compute",
        "interfaces": [
            {"mac": MAC, "name": "eth0", "addresses": ["10.0.2.15/24"], "gateway": "10.0.2.2", "mtu": 1500,
             "vlan": None, "parent": None, "bond": None}
        ],
        "bonds": [],
        "vlans": [],
        "dns_servers": ["10.0.2.3"],
        "ntp_servers": [],
        "ssh_authorized_keys": ["ssh-ed25519 AAAA operator"],
        "ssh_host_keys": _host_keys(),
        "templates": [{"source": "/etc/probe.conf.tpl", "target": "/etc/probe.conf", "mode": "0644", "reload": None}],
        "variables": {},
        "members": [
            {"name": "node-1", "address": "10.0.2.15", "flavor": "compute"},
            {"name": "node-2", "address": "10.0.2.16", "flavor": "compute"},
        ],
        "members_revision": "r1",
    }  # fmt: skip


def _host_keys() -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return {"ssh_host_ed25519_key": private, "ssh_host_ed25519_key.pub": public}
