from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from koguma_node.boot_env import read_boot_env
from koguma_node.errors import NodeError
from koguma_node.service import Service
from koguma_node.watchdog import Watchdog
from koguma_stage1 import handover, newc
from koguma_stage1.arguments import Arguments, parse_arguments
from koguma_stage1.context import Context, Lease
from koguma_stage1.steps.network import parse_lease

UUID = "6f1c2b58-0c1e-4f0e-9d0a-5f6d1c9a7b11"
LINE = (
    f"console=ttyS0 koguma.mode=boot koguma.url=http://h:1/ koguma.uuid={UUID} koguma.token=t "
    "koguma.mac=52:54:00:6B:67:01"
)


def context(**profile: Any) -> Context:
    arguments = Arguments("boot", "http://10.0.2.2:1", UUID, "id.hmac", "52:54:00:6b:67:01")
    made = Context(arguments, Service("http://h", UUID, "t"), Watchdog())
    made.lease = Lease("eth0", "10.0.2.15/24", "10.0.2.2")
    made.profile = {
        "node": "node-1",
        "label": "compute",
        "commit": "c" * 64,
        "root_method": "ram",
        "artifact_url": "http://10.0.2.2:1/artifacts/c/",
        "overlay_size_bytes": 4096,
        **profile,
    }
    made.manifest = {
        "root_format": "squashfs",
        "files": {"root": {"name": "root.squashfs", "size_bytes": 7, "sha256": "d" * 64}},
    }
    made.detail = {"interfaces": [{"mac": "52:54:00:6B:67:01", "name": "eth0"}, {"mac": "bad", "name": "eth1"}]}
    return made


def test_boot_env_is_read_by_sh_and_by_python_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "boot.env").write_text(handover.boot_env(context(label="it's; $(reboot)")))
    said = subprocess.run(
        ["sh", "-c", '. ./boot.env; printf "%s" "$KOGUMA_LABEL|$KOGUMA_ROOT_URL|$KOGUMA_INTERFACES"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "it's; $(reboot)|http://10.0.2.2:1/artifacts/c/root.squashfs|52:54:00:6b:67:01=eth0"
    values = read_boot_env(tmp_path / "boot.env")
    assert values["KOGUMA_LABEL"] == "it's; $(reboot)"
    assert (values["KOGUMA_ROOT_SHA256"], values["KOGUMA_ADDRESS"]) == ("d" * 64, "10.0.2.15/24")


def test_a_line_break_in_a_value_is_refused() -> None:
    with pytest.raises(NodeError, match="must be printable"):
        handover.boot_env(context(node="node-1\nKOGUMA_URL='http://evil'"))


def test_the_archive_is_one_that_cpio_reads_after_any_initramfs(tmp_path: Path) -> None:
    data = newc.archive("koguma", {"boot.env": b"A='1'\n", "detail.json": b"{}"})
    target = tmp_path / "out"
    target.mkdir()
    subprocess.run(["cpio", "-i", "--quiet", "--make-directories"], input=data, cwd=target, check=True)
    assert (target / "koguma/boot.env").read_bytes() == b"A='1'\n"
    assert (target / "koguma/detail.json").stat().st_mode & 0o777 == 0o600
    assert (target / "koguma").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", range(5))
def test_what_is_appended_starts_at_a_multiple_of_four(tmp_path: Path, size: int) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"x" * size)
    handover.append_files(initrd, {"boot.env": b""})
    assert initrd.read_bytes().index(b"070701") % 4 == 0


def test_nothing_secret_is_on_the_command_line_of_stage_2() -> None:
    assert handover.command_line({"kernel_args": "console=ttyS0"}) == "boot=koguma console=ttyS0"


def test_a_command_line_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(NodeError, match="may have 2047 bytes"):
        handover.command_line({"kernel_args": "x" * 2048})


def test_the_kernel_arguments_are_understood() -> None:
    arguments = parse_arguments(LINE)
    assert (arguments.mode, arguments.url, arguments.mac) == ("boot", "http://h:1", "52:54:00:6b:67:01")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mode=boot", "mode=other", "koguma.mode must be one of register, boot, rescue, deploy, clean, got 'other'"),
        ("http://h", "ftp://h", "koguma.url must be an http:// URL"),
        (UUID, UUID.upper(), "koguma.uuid must be a UUID in lower-case"),
        ("koguma.token=t", "", "koguma.token must be given"),
    ],
)
def test_a_wrong_kernel_argument_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(NodeError) as refused:
        parse_arguments(LINE.replace(old, new))
    assert message in str(refused.value)


def test_a_lease_without_a_router_is_enough() -> None:
    lease = parse_lease("interface=eth0\naddress=10.0.0.5/24\ngateway=\n")
    assert (lease.interface, lease.address, lease.gateway) == ("eth0", "10.0.0.5/24", "")
    with pytest.raises(NodeError, match="a lease must have"):
        parse_lease("address=\n")


def test_a_lease_tells_the_networks_mtu_where_it_has_one() -> None:
    lease = "interface=eth0\naddress=10.0.0.5/24\ngateway=\n"
    assert parse_lease(f"{lease}mtu=9000\n").mtu == "9000"
    assert parse_lease(lease).mtu == ""
    for wrong in ("67", "70000", "-1", "$(reboot)"):
        with pytest.raises(NodeError, match="a lease's MTU must be 576 to 9216"):
            parse_lease(f"{lease}mtu={wrong}\n")


def test_boot_env_survives_shlex(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A=" + shlex.quote("x y") + os.linesep + "B=''\n")
    assert read_boot_env(tmp_path / "e") == {"A": "x y", "B": ""}
