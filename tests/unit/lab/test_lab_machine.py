"""QEMU's command line and what a machine is powered on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma.lab.lab import plan_of
from koguma.lab.machine import CONSOLE_LOGS_KEPT, BootSettings, BootSource, launch_settings, qemu_command, rotate
from koguma.lab.plan import BmcKind, Hardware, Machine

HOME = Path("/srv/k/lab")


def machine(*, uefi: bool = False, **hardware: int) -> Machine:
    return plan_of("lab", HOME, 1, uefi=uefi, hardware=Hardware(**hardware)).machines[0]


def options(words: list[str], name: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == name]


def test_a_machine_never_asks_for_acceleration() -> None:
    words = qemu_command(machine())
    assert options(words, "-accel") == ["tcg,thread=multi"]
    assert "kvm" not in " ".join(words)


def test_smbios_says_who_the_machine_is() -> None:
    one = machine()
    assert options(qemu_command(one), "-smbios") == [
        f"type=1,manufacturer=Koguma,product=Lab node,serial={one.serial},uuid={one.uuid}"
    ]


def test_only_the_provisioning_card_boots() -> None:
    cards = [text for text in options(qemu_command(machine()), "-device") if text.startswith("virtio-net")]
    assert ["bootindex=1" in card for card in cards] == [True, False]
    assert ["romfile=" in card for card in cards] == [False, True]


def test_uefi_firmware_uses_its_own_pxe_and_variables_of_the_machine() -> None:
    words = qemu_command(machine(uefi=True))
    cards = [text for text in options(words, "-device") if text.startswith("virtio-net")]
    assert all("romfile=" in card for card in cards)
    code, variables = options(words, "-drive")
    assert "readonly=on" in code
    assert f"file={HOME}/machines/node1/vars.fd" in variables
    assert "readonly" not in variables


def test_bios_machines_have_no_flash_drives() -> None:
    assert options(qemu_command(machine()), "-drive") == []


def test_there_is_a_disk_only_when_asked() -> None:
    assert not any("virtio-blk" in word for word in qemu_command(machine()))
    assert any("virtio-blk" in word for word in qemu_command(machine(disk_gib=4)))
    two = [word for word in options(qemu_command(machine(disk_gib=4, disks=2)), "-device") if "virtio-blk" in word]
    places = [word.rpartition("bootindex=")[2] for word in two]
    assert len(set(places)) == 2
    assert places == sorted(places)


def test_cards_use_the_descriptors_the_launcher_opens() -> None:
    one = machine()
    settings = launch_settings(one, "lab-sw")
    first = settings["first_fd"]
    assert isinstance(first, int)
    taps = options(qemu_command(one), "-netdev")
    assert taps == [f"tap,id=net0,fd={first}", f"tap,id=net1,fd={first + 1}"]
    assert settings["taps"] == [
        {"namespace": "lab-sw", "link": "node1-eth0"},
        {"namespace": "lab-sw", "link": "node1-eth1"},
    ]


def test_processors_and_memory_are_parameters() -> None:
    words = qemu_command(machine(cpus=4, memory_mib=1024))
    assert options(words, "-smp") == ["4"]
    assert options(words, "-m") == ["1024"]


@pytest.mark.parametrize("lives", [1, 3, CONSOLE_LOGS_KEPT + 2])
def test_the_last_lives_of_a_console_log_are_kept(tmp_path: Path, lives: int) -> None:
    log = tmp_path / "node1.log"
    for life in range(lives):
        log.write_text(f"life {life}")
        rotate(log)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == min(lives, CONSOLE_LOGS_KEPT)
    assert (tmp_path / "node1.log.1").read_text() == f"life {lives - 1}"


def test_an_empty_log_is_not_rotated(tmp_path: Path) -> None:
    log = tmp_path / "node1.log"
    log.touch()
    rotate(log)
    assert [path.name for path in tmp_path.iterdir()] == ["node1.log"]


def test_a_redfish_machine_has_its_bmcs_drive_and_no_way_to_its_bmc() -> None:
    redfish = Hardware(bmc=BmcKind.REDFISH)
    words = " ".join(qemu_command(plan_of("lab", HOME, 1, hardware=redfish).machines[0]))
    assert "ide-cd,id=cd0" in words
    assert "ipmi" not in words
    assert "ide-cd" not in " ".join(qemu_command(machine()))


def test_what_its_bmc_chose_is_booted_first_and_the_rest_keeps_its_order() -> None:
    one = plan_of("lab", HOME, 1, hardware=Hardware(bmc=BmcKind.REDFISH, disk_gib=1)).machines[0]
    for first, order in (
        (BootSource.NETWORK, ["nic0", "vda0", "cd0"]),
        (BootSource.DISK, ["vda0", "nic0", "cd0"]),
        (BootSource.CDROM, ["cd0", "nic0", "vda0"]),
    ):
        devices = options(qemu_command(one, BootSettings(first)), "-device")
        places = {
            text.partition("id=")[2].partition(",")[0]: int(text.partition("bootindex=")[2].partition(",")[0])
            for text in devices
            if "bootindex=" in text
        }
        assert sorted(places, key=lambda name: places[name]) == order


def test_the_image_in_the_drive_is_there_from_the_start() -> None:
    one = plan_of("lab", HOME, 1, hardware=Hardware(bmc=BmcKind.REDFISH)).machines[0]
    drives = options(qemu_command(one, BootSettings(BootSource.CDROM, Path("/srv/k/x.iso"))), "-drive")
    assert any("file=/srv/k/x.iso" in text and "readonly=on" in text for text in drives)
