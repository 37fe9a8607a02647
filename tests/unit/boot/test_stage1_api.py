"""What machines are told, and what hostile ones are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal
from koguma.boot.server_link import ServerLink

from .conftest import (
    COMMIT,
    IP_1,
    IP_2,
    MAC_1,
    MAC_2,
    NEW_MAC,
    NEW_UUID,
    NEXT_COMMIT,
    UUID_1,
    UUID_2,
    FakeServer,
    Machine,
    node,
    once,
    snapshot,
)

pytestmark = pytest.mark.anyio


def registration(**changes: Any) -> dict[str, Any]:
    return {"uuid": NEW_UUID, "serial": "S99", "ports": [{"name": "ens3", "mac": NEW_MAC}], **changes}


async def test_unknown_machine_is_sent_to_register(stranger: Machine) -> None:
    response = await stranger.script()
    assert response.status_code == 200
    assert response.text.startswith("#!ipxe\n")
    assert "koguma.mode=register" in response.text
    assert stranger.token


async def test_known_machine_boots_stage_1(machine: Machine) -> None:
    assert "koguma.mode=boot" in (await machine.script()).text


async def test_the_tools_of_stage_1_are_loaded_for_registration_only(
    machine: Machine, stranger: Machine, repository: Path
) -> None:
    tools = repository / "boot/stage1/current/tools"
    assert "/tools" not in (await stranger.script()).text, "an older build has everything in one initramfs"
    tools.write_bytes(b"tools")
    loaded = [line.split()[3] for line in (await stranger.script()).text.splitlines() if line.startswith("initrd ")]
    assert [url.rpartition("/")[2] for url in loaded] == ["initrd", "tools"]
    assert "/tools" not in (await machine.script()).text


async def test_a_machine_is_the_node_that_was_made_for_its_mac(app: Starlette, inventory: Inventory) -> None:
    inventory.replace(snapshot(replace(node(1), known_by_mac=True), node(2)).to_json())
    machine = Machine(app, NEW_UUID, MAC_1, IP_1)
    text = (await machine.script()).text
    assert f"koguma.uuid={UUID_1} " in text
    machine.uuid = UUID_1
    assert (await machine.get("detail")).json()["node"] == "node-1"
    assert (await Machine(app, NEW_UUID, MAC_2, IP_2).script()).status_code == 409


async def test_a_machine_that_is_known_by_its_uuid_does_not_become_another_by_a_mac(
    app: Starlette, inventory: Inventory
) -> None:
    inventory.replace(snapshot(replace(node(1), known_by_mac=True), node(2)).to_json())
    assert (await Machine(app, UUID_2, MAC_1, IP_2).script()).status_code == 409


async def test_a_rescued_machine_gets_a_shell_instead_of_its_system(app: Starlette, inventory: Inventory) -> None:
    inventory.replace(snapshot(node(1, mode="rescue")).to_json())
    machine = Machine(app, UUID_1, MAC_1, IP_1)
    assert "koguma.mode=rescue" in (await machine.script()).text
    assert (await machine.get("detail")).status_code == 200


async def test_registration_reaches_the_server_with_the_machines_address(stranger: Machine, server: FakeServer) -> None:
    await stranger.script()
    response = await stranger.post("register", registration())
    assert (response.status_code, response.json()["name"]) == (201, "node-9")
    assert server.registrations == [{**registration(), "remote_address": stranger.address}]


async def test_registration_waits_while_the_server_is_away(stranger: Machine, server: FakeServer) -> None:
    server.away = True
    await stranger.script()
    response = await stranger.post("register", registration())
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert server.registrations == []


async def test_servers_refusal_is_passed_on(stranger: Machine, server: FakeServer) -> None:
    server.refusal = (409, "a serial belongs to one machine only, got 'S1'")
    await stranger.script()
    response = await stranger.post("register", registration(serial="S1"))
    assert (response.status_code, response.json()) == (409, {"error": server.refusal[1]})


async def test_profile_and_detail_are_the_nodes_own(machine: Machine, journal: Journal) -> None:
    await machine.script()
    profile = (await machine.get("profile")).json()
    assert (profile["node"], profile["label"], profile["commit"]) == ("node-1", "compute", COMMIT)
    reports = journal.pending(10)
    assert [(report.kind, report.body.get("mode")) for report in reports] == [("script", "boot"), ("phase", None)]
    assert reports[1].body["data"] == {"label": "compute", "commit": COMMIT}
    detail = (await machine.get("detail")).json()
    assert detail["hostname"] == "node-1"
    assert [member["name"] for member in detail["members"]] == ["node-1", "node-2"]


async def test_detail_is_told_until_the_boot_has_installed(machine: Machine) -> None:
    await machine.script()
    assert (await machine.get("detail")).status_code == 200
    assert (await machine.post("installed", {"uptime_s": 30})).status_code == 204
    assert (await machine.get("detail")).status_code == 410
    assert (await machine.get("members")).status_code == 200


async def test_label_for_one_boot_is_given_to_the_first_boot_only(machine: Machine, inventory: Inventory) -> None:
    inventory.replace(snapshot(node(1, once=once("compute-next"))).to_json())
    labels = []
    for _ in range(2):
        await machine.script()
        # Stage 1 may ask twice in one boot; the answer must not change under it.
        labels.append([(await machine.get("profile")).json()["label"] for _ in range(2)])
    assert labels == [["compute-next", "compute-next"], ["compute", "compute"]]


async def test_label_chosen_at_the_console_is_booted_that_time(machine: Machine) -> None:
    menu = await machine.get("menu", params={"mac": MAC_1})
    assert "item l1 compute-next" in menu.text
    await machine.script(choose="compute-next")
    assert (await machine.get("profile")).json()["commit"] == NEXT_COMMIT


async def test_new_label_is_bootable_at_once(machine: Machine, inventory: Inventory, repository: Any) -> None:
    inventory.replace(snapshot(node(1, label="fresh")).to_json())
    await machine.script()
    response = await machine.get("profile")
    assert response.status_code == 409
    assert "a label must exist to be booted, got 'fresh'" in response.json()["error"]
    path = repository / "boot" / "labels.json"
    document = json.loads(path.read_text())
    document["labels"]["fresh"] = {"commit": NEXT_COMMIT, "kind": "tag"}
    path.write_text(json.dumps(document))
    assert (await machine.get("profile")).json()["commit"] == NEXT_COMMIT


async def test_refused_node_is_told_why_and_loads_nothing(machine: Machine, inventory: Inventory) -> None:
    inventory.replace(snapshot(node(1, mode="refuse", refuse_reason="it is available; $(reboot)\nboot x")).to_json())
    text = (await machine.script()).text
    assert "it is available" in text
    assert "$" not in text
    assert "kernel" not in text
    assert "\nboot" not in text


async def test_reports_survive_a_server_that_is_away(
    machine: Machine, server: FakeServer, link: ServerLink, journal: Journal
) -> None:
    server.away = True
    async with _running(link.deliver_forever()):
        await machine.script()
        await machine.post("phase", {"phase": "verify", "state": "started", "uptime_s": 3.5})
        await machine.post("installed", {"uptime_s": 30})
        await asyncio.sleep(0.05)
        assert [report.kind for report in journal.pending(10)] == ["script", "phase", "installed"]
        server.away = False
        await _until(lambda: len(server.reports) == 3)
    assert journal.pending(10) == []


async def test_what_a_machine_said_before_it_was_registered_is_delivered_afterwards(
    stranger: Machine, server: FakeServer, link: ServerLink
) -> None:
    await stranger.script()
    await stranger.post("phase", {"phase": "register", "state": "started"})
    async with _running(link.deliver_forever()):
        await asyncio.sleep(0.05)
        assert server.reports == []
        await stranger.post("register", registration())
        await _until(lambda: [report["kind"] for report in server.reports] == ["script", "phase"])


async def test_boot_that_registered_may_tell_its_end_from_the_address_it_had(
    stranger: Machine, inventory: Inventory, journal: Journal, app: Any
) -> None:
    await stranger.script()
    await stranger.post("register", registration())
    inventory.replace(snapshot(replace(node(9), uuid=NEW_UUID)).to_json())
    assert (await stranger.post("phase", {"phase": "register", "state": "succeeded"})).status_code == 204
    assert journal.pending(10)[-1].body["state"] == "succeeded"
    elsewhere = Machine(app, NEW_UUID, NEW_MAC, "10.77.0.222")
    elsewhere.token = stranger.token
    assert (await elsewhere.post("phase", {"phase": "register", "state": "failed"})).status_code == 403


async def test_installed_twice_is_reported_once(machine: Machine, journal: Journal) -> None:
    await machine.script()
    for _ in range(2):
        assert (await machine.post("installed", {"uptime_s": 30})).status_code == 204
    assert [report.kind for report in journal.pending(10)].count("installed") == 1


async def test_snapshot_follows_the_server(inventory: Inventory, server: FakeServer, link: ServerLink) -> None:
    server.snapshot = snapshot(node(3)).to_json()
    async with _running(link.poll_forever()):
        await _until(lambda: [item.name for item in inventory.snapshot.nodes] == ["node-3"])


async def test_damaged_snapshot_from_the_server_is_not_taken(
    inventory: Inventory, server: FakeServer, link: ServerLink
) -> None:
    document = snapshot(node(3)).to_json()
    document["nodes"][0]["name"] = "changed"
    server.snapshot = document
    async with _running(link.poll_forever()):
        await asyncio.sleep(0.05)
    assert [item.name for item in inventory.snapshot.nodes] == ["node-1", "node-2"]


# Hostile machines.


async def test_another_machine_does_not_get_a_nodes_script(app: Any) -> None:
    intruder = Machine(app, UUID_1, MAC_1, "10.77.0.222")
    response = await intruder.script()
    assert response.status_code == 403
    assert "koguma.token" not in response.text
    assert IP_1 not in response.text


async def test_stolen_token_is_of_no_use_at_another_address(app: Any, machine: Machine) -> None:
    await machine.script()
    thief = Machine(app, UUID_1, MAC_1, "10.77.0.222")
    thief.token = machine.token
    for endpoint in ("profile", "detail", "members", "handover"):
        response = await thief.get(endpoint, params={"token": thief.token})
        assert response.status_code == 403, endpoint
        assert "secret" not in response.text
    assert (await thief.post("phase", {"phase": "verify", "state": "failed"})).status_code == 403
    assert (await thief.post("installed", {"uptime_s": 1})).status_code == 403


async def test_own_token_does_not_open_another_nodes_detail(app: Any, machine: Machine) -> None:
    await machine.script()
    for address in (IP_1, "10.77.0.12"):
        curious = Machine(app, UUID_2, MAC_1, address)
        curious.token = machine.token
        response = await curious.get("detail")
        assert response.status_code == 403
        assert "secret" not in response.text


async def test_another_nodes_mac_is_refused(machine: Machine, stranger: Machine, server: FakeServer) -> None:
    response = await machine.get("script", params={"mac": MAC_2})
    assert response.status_code == 409
    assert "node-2" not in response.text
    await stranger.script()
    response = await stranger.post("register", registration(ports=[{"name": "ens3", "mac": MAC_1.upper()}]))
    assert response.status_code == 409
    assert "node-1" not in response.text
    assert server.registrations == []


@pytest.mark.parametrize(
    "uuid",
    [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "x" * 36,
        "1",
        "..",
        "%2e%2e",
        "a" * 5000,
    ],
)
async def test_malformed_uuid_is_a_4xx(stranger: Machine, uuid: str) -> None:
    response = await stranger.raw("GET", f"/ipxe/{uuid}/script", params={"mac": NEW_MAC})
    assert 400 <= response.status_code < 500


@pytest.mark.parametrize(
    "mac", ["", "52:54:00:00:00", "52:54:00:00:00:0g", "52:54:00:00:00:01\n", "${uuid}", "52:54:00:00:00:01 x=y"]
)
async def test_malformed_mac_is_a_4xx(stranger: Machine, mac: str) -> None:
    assert (await stranger.get("script", params={"mac": mac})).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/../private",
        "/artifacts/%2e%2e/private",
        "/artifacts/..%2f..%2fprivate",
        "/artifacts/stage1/../../private",
        "/artifacts//etc/passwd",
        "/artifacts/%00",
    ],
)
async def test_no_path_leads_out_of_the_artifacts(stranger: Machine, path: str) -> None:
    response = await stranger.raw("GET", path)
    assert 400 <= response.status_code < 500
    assert "signing key" not in response.text


async def test_artifact_is_served_with_ranges(machine: Machine) -> None:
    path = f"/artifacts/{COMMIT}/root.squashfs"
    assert (await machine.raw("GET", path)).content == b"root of " + COMMIT.encode()
    client = machine._client
    part = await client.get(path, headers={"Range": "bytes=8-"})
    assert (part.status_code, part.content) == (206, COMMIT.encode())


@pytest.mark.parametrize("endpoint", ["register", "phase", "installed", "heartbeat"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"[" * 100_000,
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"x": "' + b"a" * 300_000 + b'"}',
    ],
)
async def test_malformed_body_is_a_4xx_and_stores_nothing(
    machine: Machine, journal: Journal, server: FakeServer, endpoint: str, body: bytes
) -> None:
    await machine.script()
    before = len(journal.pending(100))
    response = await machine.post(endpoint, content=body)
    assert 400 <= response.status_code < 500
    assert response.json()["error"]
    assert len(journal.pending(100)) == before
    assert server.registrations == []


@pytest.mark.parametrize(
    "body",
    [
        {"phase": "verify", "state": "exploded"},
        {"phase": "x" * 100, "state": "started"},
        {"phase": ["verify"], "state": "started"},
        {"phase": "verify", "state": "failed", "reason": {"a": 1}},
        {"phase": "verify", "state": "started", "uptime_s": "soon"},
        {"phase": "verify", "state": "started", "uptime_s": -1},
        {"phase": "verify", "state": "started", "data": []},
    ],
)
async def test_phase_of_another_form_is_refused(machine: Machine, body: dict[str, Any]) -> None:
    await machine.script()
    assert (await machine.post("phase", body)).status_code == 400


async def test_reason_cannot_steer_a_terminal(machine: Machine, journal: Journal) -> None:
    await machine.script()
    await machine.post("phase", {"phase": "verify", "state": "failed", "reason": "bad\x1b[2J\nroot: " + "x" * 5000})
    reason = journal.pending(10)[-1].body["reason"]
    assert reason.isprintable()
    assert len(reason) == 2000


async def test_machine_that_reports_without_end_is_stopped(machine: Machine) -> None:
    await machine.script()
    body = {"phase": "verify", "state": "started"}
    statuses = {(await machine.post("phase", body)).status_code for _ in range(520)}
    assert statuses == {204, 429}
    # The boot itself can still end well.
    assert (await machine.post("installed", {"uptime_s": 30})).status_code == 204


async def test_strangers_cannot_fill_the_disk(app: Any, journal: Journal) -> None:
    for number in range(300):
        stranger = Machine(app, f"99999999-2222-4333-8444-{number:012x}", NEW_MAC, "10.77.0.200")
        await stranger.script()
        await stranger.close()
    assert journal.pending(1000) == []
    assert len(journal._unregistered) <= 256


async def test_registration_for_another_uuid_is_refused(stranger: Machine, server: FakeServer) -> None:
    await stranger.script()
    assert (await stranger.post("register", registration(uuid=UUID_1))).status_code == 403
    assert server.registrations == []


async def test_heartbeat_of_a_mirrored_root_counts_its_disks(machine: Machine, journal: Journal) -> None:
    await machine.script()
    said = {"uptime_s": 9.0, "memory": {}, "mirror": {"disks": 2, "working": 1, "more": "words"}}
    assert (await machine.post("heartbeat", said)).status_code == 200
    assert journal.pending(100)[-1].body["mirror"] == {"disks": 2, "working": 1}


@pytest.mark.parametrize(
    "mirror",
    [None, [], "2", {}, {"disks": 2}, {"disks": 2, "working": 3}, {"disks": 2, "working": -1},
     {"disks": 1 << 70, "working": 1}, {"disks": True, "working": True}, {"disks": 2.0, "working": 1}],
)  # fmt: skip
async def test_mirror_of_another_form_is_refused(machine: Machine, journal: Journal, mirror: Any) -> None:
    await machine.script()
    before = journal.pending(100)
    answer = await machine.post("heartbeat", {"uptime_s": 9.0, "memory": {}, "mirror": mirror})
    assert answer.status_code == 400
    assert "mirror must have disks, at most 64, and how many are working" in answer.text
    assert journal.pending(100) == before


@contextlib.asynccontextmanager
async def _running(job: Any) -> Any:
    task = asyncio.create_task(job)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
