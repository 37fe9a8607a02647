from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from koguma_node.errors import NodeError
from koguma_stage1 import bmc, hardware

LAN = """Set in Progress         : Set Complete
Auth Type Enable        : Callback : MD5
                        : User     : MD5
IP Address Source       : Static Address
IP Address              : 10.77.8.11
Subnet Mask             : 255.255.255.0
MAC Address             : 52:54:00:6B:08:01
"""


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def nic(sys: Path, name: str, mac: str, carrier: str, speed: str | None) -> None:
    folder = sys / "class/net" / name
    put(folder / "address", mac + "\n")
    put(folder / "carrier", carrier + "\n")
    if speed is not None:
        put(folder / "speed", speed + "\n")
    drivers = sys / "bus/drivers/virtio_net"
    drivers.mkdir(parents=True, exist_ok=True)
    (folder / "device").mkdir()
    (folder / "device/driver").symlink_to(drivers)


def test_nics_are_described_and_the_boot_nic_is_marked(tmp_path: Path) -> None:
    nic(tmp_path, "eth0", "52:54:00:00:00:01", "1", "-1")
    nic(tmp_path, "eth1", "52:54:00:00:00:02", "0", "10000")
    put(tmp_path / "class/net/lo/address", "00:00:00:00:00:00")
    first, second = hardware.ports("52:54:00:00:00:01", tmp_path)
    assert first == {
        "name": "eth0", "mac": "52:54:00:00:00:01", "driver": "virtio_net", "link": True, "speed_mbps": None,
        "boot": True, "lldp": None,
    }  # fmt: skip
    assert (second["link"], second["speed_mbps"], second["boot"]) == (False, 10000, False)


def test_disks_are_described_and_virtual_ones_left_out(tmp_path: Path) -> None:
    disk = tmp_path / "block/sda"
    for path, text in {"size": "2048", "device/model": "QEMU HARDDISK ", "queue/rotational": "1"}.items():
        put(disk / path, text)
    (disk / "device/vpd_pg80").write_bytes(b"\0\x80\0\x04S123")
    put(tmp_path / "block/loop0/size", "8")
    assert hardware.disks(tmp_path) == [
        {"name": "sda", "size_bytes": 1048576, "model": "QEMU HARDDISK", "serial": "S123", "rotational": True}
    ]


def test_placeholders_of_the_firmware_are_no_serials(tmp_path: Path) -> None:
    put(tmp_path / "class/dmi/id/product_serial", "To Be Filled By O.E.M.\n")
    put(tmp_path / "class/dmi/id/sys_vendor", "Koguma\n")
    found = hardware.identity(tmp_path)
    assert (found["serial"], found["manufacturer"], found["firmware"]) == ("", "Koguma", "bios")
    (tmp_path / "firmware/efi").mkdir(parents=True)
    assert hardware.identity(tmp_path)["firmware"] == "uefi"


def test_memory_is_the_sum_of_the_modules_that_are_plugged_in() -> None:
    table = "Memory Device\n\tSize: 2 GB\nMemory Device\n\tSize: 512 MB\nMemory Device\n\tSize: No Module Installed\n"
    assert hardware.installed_memory_bytes(table) == 2 * 1024**3 + 512 * 1024**2
    assert hardware.installed_memory_bytes("") == 0


def test_cpus_and_sockets_are_counted(tmp_path: Path) -> None:
    entry = "processor : {0}\nmodel name\t: Test CPU\nphysical id\t: {1}\n\n"
    put(tmp_path / "cpuinfo", "".join(entry.format(number, number // 2) for number in range(4)))
    assert hardware.cpu(tmp_path) == {"model": "Test CPU", "count": 4, "sockets": 2}


def test_lan_settings_are_read_from_what_ipmitool_prints() -> None:
    lan = bmc.parse_lan(LAN)
    assert (lan["IP Address"], lan["MAC Address"]) == ("10.77.8.11", "52:54:00:6B:08:01")


def test_passwords_are_long_plain_and_never_the_same() -> None:
    passwords = {bmc.make_password() for _ in range(50)}
    assert len(passwords) == 50
    assert all(len(password) == 16 and password.isalnum() for password in passwords)


class FakeBmc:
    """What ipmitool does to a BMC: users on the first channel that has a LAN."""

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        self.refuse = refuse
        self.done: list[tuple[str, ...]] = []

    def run(self, arguments: list[str], _timeout_s: float) -> Any:
        words = tuple(arguments[3:])
        self.done.append(words)
        refused = words[: len(self.refuse)] == self.refuse if self.refuse else False
        return type("Result", (), {"returncode": 1 if refused else 0, "stdout": LAN, "stderr": f"no: {words[-1]}"})()


def test_the_bmc_gets_koguma_s_user_with_the_password_that_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeBmc()
    monkeypatch.setattr(bmc.command, "run", fake.run)
    monkeypatch.setattr(bmc, "DEVICE", tmp_path)
    told = bmc.ensure_user()
    assert told is not None
    assert (told["address"], told["mac"], told["username"]) == ("10.77.8.11", "52:54:00:6b:08:01", "koguma")
    assert ("user", "set", "password", "3", told["password"]) in fake.done
    assert ("user", "enable", "3") in fake.done


def test_a_refused_password_is_not_in_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeBmc(refuse=("user", "set", "password"))
    monkeypatch.setattr(bmc.command, "run", fake.run)
    monkeypatch.setattr(bmc, "DEVICE", tmp_path)
    with pytest.raises(NodeError) as refused:
        bmc.ensure_user()
    assert fake.done[-1][-1] not in str(refused.value)


def test_a_machine_without_a_bmc_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bmc, "DEVICE", tmp_path / "ipmi0")
    monkeypatch.setattr(bmc, "DEVICE_WAIT_S", 0.0)
    assert bmc.ensure_user() is None
