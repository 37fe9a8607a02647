"""What stage 1 does to disks, as far as it can be said without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from koguma_node.errors import NodeError
from koguma_stage1.disk import boot_loader, hints, mirror
from koguma_stage1.disk.layout import Disk, Root
from koguma_stage1.steps import disk_divide

GIB = 1024**3


def disk(name: str, size_gib: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "size_bytes": size_gib * GIB, "model": "", "serial": "", "rotational": False, **more}


DISKS = [
    disk("sda", 2000, model="ST2000NM", vendor="SEAGATE", serial="Z1", rotational=True, wwn="5000c500a"),
    disk("nvme0n1", 447, model="SAMSUNG MZ1LB480", serial="S4", hctl="nvme0"),
    disk("sdb", 100, model="BOSS VD", vendor="DELL", serial="B7", rotational=False),
    disk("sdc", 2, model="Virtual Floppy"),
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ({}, "sdb"),
        ({"size": 2000}, "sda"),
        ({"size": ">= 400"}, "nvme0n1"),
        ({"size": "= 400"}, "nvme0n1"),
        ({"size": "<or> 2000 <or> 447"}, "nvme0n1"),
        ({"rotational": True}, "sda"),
        ({"rotational": "false", "size": "> 100"}, "nvme0n1"),
        ({"model": "st2000nm"}, "sda"),
        ({"model": "<in> samsung"}, "nvme0n1"),
        ({"model": "<all-in> boss <all-in> vd"}, "sdb"),
        ({"serial": "s!= Z1", "size": "> 200"}, "nvme0n1"),
        ({"serial": "<or> b7 <or> x"}, "sdb"),
        ({"name": "/dev/sda"}, "sda"),
        ({"wwn": "5000C500A"}, "sda"),
        ({"vendor": "s== dell"}, "sdb"),
    ],
)
def test_hints_choose_the_smallest_disk_that_fits(wanted: dict[str, Any], chosen: str) -> None:
    assert hints.choose(DISKS, wanted)["name"] == chosen


def test_machine_without_a_fitting_disk_says_what_it_has() -> None:
    with pytest.raises(NodeError, match=r"'model': 'intel'.*got sda \(2000 GiB, ST2000NM, rotational\); nvme0n1"):
        hints.choose(DISKS, {"model": "intel"})


@pytest.mark.parametrize("wanted", [{"size": "big"}, {"colour": "red"}])
def test_hint_of_another_form_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(NodeError, match=next(iter(wanted))):
        hints.choose(DISKS, wanted)


def test_a_mirror_takes_two_different_disks() -> None:
    chosen = disk_divide.choose(DISKS, {"hints": {"size": "> 50"}, "mirror": {"size": "> 50"}})
    assert [item["name"] for item in chosen] == ["sdb", "nvme0n1"]
    assert [item["name"] for item in disk_divide.choose(DISKS, {"hints": {}, "mirror": None})] == ["sdb"]
    with pytest.raises(NodeError, match=r"'name': '/dev/sda'.*got nvme0n1"):
        disk_divide.choose(DISKS, {"hints": {"name": "/dev/sda"}, "mirror": {"name": "/dev/sda"}})


def test_the_boot_loader_names_the_array_of_a_mirrored_root() -> None:
    root = Root("/dev/md0", "1-2", "AB-CD")
    assert root.kernel_arguments() == "koguma.root=UUID=1-2"
    root.mirror = mirror.uuid_in("MD_LEVEL=raid1\nMD_UUID=26aca9e3:a021c963:0cdd389c:cd06d038\n")
    mirrored = "koguma.mirror=26aca9e3-a021-c963-0cdd-389ccd06d038"
    assert root.kernel_arguments() == f"koguma.root=UUID=1-2 {mirrored}"
    with pytest.raises(NodeError, match="mdadm said"):
        mirror.uuid_in("mdadm: cannot open /dev/md0")


def test_an_image_without_mdadm_is_refused_for_mirrored_disks(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="must have the package mdadm"):
        mirror.require_mdadm(tmp_path)


def test_partition_of_a_disk_whose_name_ends_in_a_digit_has_a_p() -> None:
    assert (Disk("sda").partition(4), Disk("nvme0n1").partition(4)) == ("/dev/sda4", "/dev/nvme0n1p4")


def test_boot_code_names_the_sector_of_the_core_image_and_leaves_the_partition_table() -> None:
    code = boot_loader.boot_code(bytes(range(256)) * 2, 2048)
    assert len(code) == 440
    assert int.from_bytes(code[0x5C:0x64], "little") == 2048


def test_core_image_names_the_sector_of_its_rest() -> None:
    core = boot_loader.core_at(b"\xaa" * 4096, 2048)
    assert len(core) == 4096
    assert int.from_bytes(core[0x1F4:0x1FC], "little") == 2049


@pytest.mark.parametrize("arguments", ["x=$(reboot)", 'a="b', "a;b", "a\nb"])
def test_kernel_argument_that_would_be_a_command_of_the_boot_loader_is_refused(arguments: str) -> None:
    with pytest.raises(NodeError, match="plain words"):
        boot_loader.configuration(arguments, "compute")
