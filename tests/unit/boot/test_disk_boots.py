"""Nodes whose root is on a disk: written once for each wish, and sent to their disk ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal
from koguma.model.snapshot import DiskPlan

from .conftest import URL, Machine, node, snapshot

pytestmark = pytest.mark.anyio

WISH, NEXT_WISH = "1" * 32, "2" * 32


def told(inventory: Inventory, wish: str | None, image: dict[str, Any] | None = None, **boot: Any) -> None:
    plan = DiskPlan(wish=wish, hints={"size": ">= 100"}, image=image)
    inventory.replace(snapshot(node(1, root_method="disk", disk=plan, **boot), node(2)).to_json())


async def say_disk(machine: Machine, state: str) -> None:
    body = {"phase": "disk", "state": state, "uptime_s": 20.0, "reason": "no disk" if state == "failed" else None}
    assert (await machine.post("phase", body)).status_code == 204


def is_local(script: str) -> bool:
    return "sanboot" in script and "kernel" not in script


async def test_node_with_a_wish_writes_its_disk_with_the_tools_for_disks(
    machine: Machine, inventory: Inventory
) -> None:
    told(inventory, WISH)
    script = (await machine.script()).text
    assert "koguma.mode=deploy" in script
    assert "/disks ||" in script
    profile = (await machine.get("profile")).json()
    assert profile["disk"] == {"hints": {"size": ">= 100"}, "mirror": None, "image": None}


async def test_written_disk_is_booted_and_not_written_again(machine: Machine, inventory: Inventory) -> None:
    told(inventory, WISH)
    await machine.script()
    await say_disk(machine, "succeeded")
    assert is_local((await machine.script()).text)
    assert is_local((await machine.script()).text)


async def test_disk_that_failed_to_be_written_is_written_at_the_next_boot(
    machine: Machine, inventory: Inventory
) -> None:
    told(inventory, WISH)
    await machine.script()
    await say_disk(machine, "failed")
    assert "koguma.mode=deploy" in (await machine.script()).text


async def test_new_wish_writes_again(machine: Machine, inventory: Inventory) -> None:
    told(inventory, WISH)
    await machine.script()
    await say_disk(machine, "succeeded")
    told(inventory, NEXT_WISH)
    assert "koguma.mode=deploy" in (await machine.script()).text


async def test_active_node_boots_its_disk_though_the_boot_service_remembers_nothing(
    machine: Machine, inventory: Inventory
) -> None:
    told(inventory, None)
    assert is_local((await machine.script()).text)


async def test_first_boot_from_the_disk_is_part_of_the_boot_that_wrote_it(
    machine: Machine, inventory: Inventory, journal: Journal
) -> None:
    told(inventory, WISH)
    await machine.script()
    writer = machine.token.partition(".")[0]
    await say_disk(machine, "succeeded")
    await machine.script()
    newest = journal.pending(100)[-1]
    assert (newest.boot_id, newest.kind, newest.body["phase"]) == (writer, "phase", "restart")
    await machine.post("installed", {"uptime_s": 9.0, "memory": {}})
    await machine.script()
    newest = journal.pending(100)[-1]
    assert newest.boot_id != writer
    assert (newest.kind, newest.body["mode"]) == ("script", "disk")


async def test_node_that_is_cleaned_boots_stage_1_to_empty_its_disks(machine: Machine, inventory: Inventory) -> None:
    told(inventory, WISH, mode="clean")
    script = (await machine.script()).text
    assert "koguma.mode=clean" in script
    assert "/disks ||" in script


async def test_disk_boots_also_where_no_stage_1_is(machine: Machine, inventory: Inventory, repository: Path) -> None:
    told(inventory, None)
    (repository / "boot/stage1/current").unlink()
    assert is_local((await machine.script()).text)


async def test_uefi_machine_gets_a_loader_for_its_disk_where_stage_1_brings_one(
    machine: Machine, inventory: Inventory, repository: Path
) -> None:
    told(inventory, None)
    assert "local.efi" not in (await machine.script()).text
    loader = repository / "boot/stage1/current/local.efi"
    loader.write_bytes(b"MZ")
    script = (await machine.script()).text
    path = next(line.split()[1].removeprefix(URL) for line in script.splitlines() if line.startswith("chain "))
    assert (await machine.raw("GET", path)).content == b"MZ"


async def test_image_that_the_site_prepared_is_served_by_the_boot_service(
    machine: Machine, inventory: Inventory, repository: Path
) -> None:
    folder = repository / "boot/disks"
    folder.mkdir()
    (folder / "a.raw").write_bytes(b"disk")
    image = {"url": "disks/a.raw", "sha256": "a" * 64, "size_bytes": 4, "format": "raw"}
    told(inventory, WISH, image)
    await machine.script()
    told_image = (await machine.get("profile")).json()["disk"]["image"]
    assert told_image == {**image, "url": f"{URL}/artifacts/disks/a.raw"}
    assert (await machine.raw("GET", "/artifacts/disks/a.raw")).content == b"disk"
