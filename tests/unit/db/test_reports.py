from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from koguma.db import nodes, reports
from koguma.db.models import BootRow, NodeRow, PowerOnRow, WorkRow
from koguma.model.boot_record import Outcome
from koguma.model.states import ProvisionState, StatusCode
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")

BOOT = "b" * 32
NOW = datetime.now(UTC)


def at(seconds: float) -> datetime:
    return NOW - timedelta(hours=1) + timedelta(seconds=seconds)


def whole(boot: str = BOOT, start_s: float = 0) -> list[dict[str, Any]]:
    def phase(at_s: float, name: str, state: str, **more: Any) -> dict[str, Any]:
        return factories.report(1, boot, "phase", at(start_s + at_s), phase=name, state=state, **more)

    return [
        factories.report(1, boot, "script", at(start_s), mode="boot"),
        phase(5, "stage1", "started", uptime_s=3.0),
        phase(5.5, "stage1", "succeeded", uptime_s=3.5),
        phase(6, "profile", "started", data={"label": "compute", "commit": "c" * 64}),
        phase(7, "profile", "succeeded"),
        phase(8, "root", "started"),
        phase(9, "root", "succeeded"),
        factories.report(1, boot, "installed", at(start_s + 20), uptime_s=12, memory={"available_bytes": 7}),
    ]


def active_node() -> NodeRow:
    row = factories.register(1)
    NodeRow.objects.filter(pk=row.pk).update(provision_state="active", goal=None)
    return row


def test_reports_make_one_record_whatever_their_order_and_however_often_they_come() -> None:
    active_node()
    documents = whole()
    shuffled = [*documents, *documents]
    random.Random(7).shuffle(shuffled)
    for document in shuffled:
        accepted, refused = reports.apply([document])
        assert (accepted, refused) == ([document["id"]], {})
    (boot,) = nodes.boots("node-1")
    assert (boot.outcome, boot.label, boot.commit, boot.duration_s) == (Outcome.SUCCEEDED, "compute", "c" * 64, 20.0)
    assert [phase.name for phase in boot.phases] == ["ipxe", "stage1", "profile", "root", "userspace"]
    node = nodes.find("node-1")
    assert node.installed is not None
    assert (node.installed.commit, node.status_code) == ("c" * 64, StatusCode.RUNNING)
    assert (node.last_seen, node.memory) == (at(20), {"available_bytes": 7})


def test_reports_delivered_from_many_threads_at_once_are_all_applied_once() -> None:
    active_node()
    documents = whole() * 2
    results = in_threads(len(documents), lambda number: reports.apply([documents[number]]))
    assert all(isinstance(result, tuple) and not result[1] for result in results), results
    assert len(BootRow.objects.get().events) == len(documents) / 2
    assert nodes.boots("node-1")[0].outcome is Outcome.SUCCEEDED


def test_a_power_on_by_the_worker_begins_the_firmware_phase() -> None:
    row = active_node()
    PowerOnRow.objects.create(node=row, at=at(-400))
    PowerOnRow.objects.create(node=row, at=at(-30))
    reports.apply(whole())
    boot = nodes.boots("node-1")[0]
    assert (boot.phases[0].name, boot.phases[0].duration_s, boot.duration_s) == ("firmware", 30.0, 50.0)
    again = "c" * 32
    reports.apply(whole(again, 60))
    newest = nodes.boots("node-1")[0]
    assert newest.boot_id == again
    assert newest.phases[0].name == "ipxe"  # a reboot from within: that power-on led to the boot before


def test_a_boot_that_never_finished_is_abandoned_when_the_next_one_begins() -> None:
    active_node()
    reports.apply(whole()[:4])
    assert nodes.find("node-1").status_code is StatusCode.BOOTING
    reports.apply(whole("c" * 32, 100))
    assert [boot.outcome for boot in nodes.boots("node-1")] == [Outcome.SUCCEEDED, Outcome.ABANDONED]


def test_an_old_boots_late_reports_do_not_speak_for_the_node() -> None:
    active_node()
    old, new = whole(), whole("c" * 32, 200)
    reports.apply(new)
    failure = factories.report(1, BOOT, "phase", at(8), phase="verify", state="failed", reason="old")
    reports.apply([old[0], failure])
    node = nodes.find("node-1")
    assert (node.status_code, node.last_error) == (StatusCode.RUNNING, None)
    assert [boot.boot_id for boot in nodes.boots("node-1")] == ["c" * 32, BOOT]


def test_a_failed_boots_reason_stays_on_the_node_until_the_next_success() -> None:
    active_node()
    failure = factories.report(
        1, BOOT, "phase", at(6), phase="verify", state="failed", reason="kernel: SHA-256 differs"
    )
    reports.apply([whole()[0], failure])
    node = nodes.find("node-1")
    assert (node.provision_state, node.status_code) == (ProvisionState.ACTIVE, StatusCode.BOOT_FAILED)
    assert node.last_error == "boot failed: verify: kernel: SHA-256 differs"
    reports.apply(whole("c" * 32, 100))
    assert nodes.find("node-1").last_error is None


def test_kexec_that_failed_twice_in_a_row_is_not_used_again() -> None:
    active_node()
    for number, boot in enumerate(("a" * 32, "b" * 32)):
        assert nodes.find("node-1").kexec
        failure = factories.report(1, boot, "phase", at(6 + 60 * number), phase="kexec", state="failed", reason="x")
        reports.apply([whole(boot, 60 * number)[0], failure])
    assert not nodes.find("node-1").kexec


def test_a_once_label_is_used_up_by_its_own_report_only() -> None:
    active_node()
    node = nodes.set_boot_label("node-1", "next", once=True, reboot=False)
    assert node.once is not None
    reports.apply([factories.report(1, BOOT, "once", id="0" * 32)])
    assert nodes.find("node-1").once == node.once
    reports.apply([factories.report(1, BOOT, "once", id=node.once.id)])
    assert nodes.find("node-1").once is None


def test_heartbeats_move_last_seen_forward_only() -> None:
    active_node()
    reports.apply([factories.report(1, BOOT, "heartbeat", at(50), memory={"available_bytes": 2})])
    reports.apply([factories.report(1, BOOT, "heartbeat", at(40), memory={"available_bytes": 1})])
    node = nodes.find("node-1")
    assert (node.last_seen, node.memory) == (at(50), {"available_bytes": 2})
    assert not BootRow.objects.exists()


def test_a_heartbeat_does_not_change_the_nodes_version() -> None:
    active_node()
    before = nodes.find("node-1").version
    reports.apply([factories.report(1, BOOT, "heartbeat", memory={})])
    assert nodes.find("node-1").version == before


def test_installed_wakes_the_worker_of_a_node_that_waits() -> None:
    row = factories.register(1)
    NodeRow.objects.filter(pk=row.pk).update(provision_state="wait call-back")
    WorkRow.objects.update(wake_at=None, woken=False)
    reports.apply(whole())
    work = WorkRow.objects.get()
    assert work.woken
    assert work.wake_at is not None


def test_a_machine_that_was_turned_away_did_not_boot() -> None:
    active_node()
    reports.apply([factories.report(1, BOOT, "script", mode="refuse")])
    assert not BootRow.objects.exists()


def test_boots_that_take_too_long_fail_with_their_phase() -> None:
    active_node()
    reports.apply(whole()[:4])
    assert reports.expire_boots(900) == 0  # something was heard of it a moment ago
    BootRow.objects.update(received_at=timezone.now() - timedelta(minutes=5))
    assert reports.expire_boots(7200) == 0
    assert reports.expire_boots(900) == 1
    node, boot = nodes.find("node-1"), nodes.boots("node-1")[0]
    assert (boot.outcome, boot.reason) == (Outcome.FAILED, "not installed within 900 s; it was in phase profile")
    assert (node.provision_state, node.status_code) == (ProvisionState.ACTIVE, StatusCode.BOOT_FAILED)
    reports.apply(whole()[4:])  # its reports had been waiting
    assert nodes.boots("node-1")[0].outcome is Outcome.SUCCEEDED
    assert nodes.find("node-1").status_code is StatusCode.RUNNING


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x"},
        {"boot_id": "../../x"},
        {"uuid": "nope"},
        {"uuid": factories.machine_uuid(99)},
        {"at": "yesterday"},
        {"at": "2026-01-01T00:00:00"},
        {"kind": "shell"},
        {"body": []},
        {"body": {"phase": "../x", "state": "started"}},
        {"body": {"phase": "root", "state": "exploded"}},
        {"body": {"phase": "root", "state": "started", "data": {"x": "y" * 70000}}},
    ],
)
def test_a_report_against_the_rules_is_refused_and_the_others_are_taken(change: dict[str, Any]) -> None:
    active_node()
    good = factories.report(1, BOOT, "script", mode="boot")
    bad = {**factories.report(1, BOOT, "phase", phase="root", state="started"), **change}
    accepted, refused = reports.apply([bad, good])
    assert accepted == [good["id"]]
    assert list(refused) == [bad["id"]]


def test_what_is_no_report_at_all_is_refused() -> None:
    accepted, refused = reports.apply([None, 1, "x", [], {}])
    assert not accepted
    assert refused


def test_a_boot_service_whose_clock_is_ahead_does_not_reach_into_the_future() -> None:
    active_node()
    reports.apply([factories.report(1, BOOT, "script", datetime.now(UTC) + timedelta(days=2), mode="boot")])
    assert BootRow.objects.get().began_at <= timezone.now()


def test_zero_bytes_in_what_a_machine_says_are_harmless() -> None:
    active_node()
    document = factories.report(1, uuid4().hex, "phase", phase="root", state="failed", reason="a\x00b")
    assert reports.apply([document])[0] == [document["id"]]
    assert nodes.boots("node-1")[0].reason == "root: a b"


def test_a_node_says_that_a_disk_of_its_mirror_is_missing_until_it_is_back() -> None:
    active_node()
    reports.apply(whole())

    def beat(at_s: float, **mirror: int) -> tuple[StatusCode, str, dict[str, int] | None]:
        said = {"mirror": mirror} if mirror else {}
        reports.apply([factories.report(1, BOOT, "heartbeat", at(at_s), memory={"available_bytes": 7}, **said)])
        node = nodes.find("node-1")
        return node.status_code, node.status, node.mirror

    whole_mirror, degraded = {"disks": 2, "working": 2}, {"disks": 2, "working": 1}
    missing = (StatusCode.MIRROR_DEGRADED, "1 of 2 disks of the root's mirror work")
    assert beat(30, **whole_mirror) == (StatusCode.RUNNING, "", whole_mirror)
    assert beat(60, **degraded) == (*missing, degraded)
    version = nodes.find("node-1").version
    assert beat(90, **degraded) == (*missing, degraded)
    assert nodes.find("node-1").version == version  # nothing new is no change
    assert beat(70, **whole_mirror) == (*missing, degraded)  # it came late
    assert beat(120, **whole_mirror) == (StatusCode.RUNNING, "", whole_mirror)
    beat(150, **degraded)
    assert beat(180) == (StatusCode.RUNNING, "", None)  # another root


def test_a_missing_disk_does_not_hide_why_a_node_waits_or_failed() -> None:
    active_node()
    reports.apply(
        [*whole()[:4], factories.report(1, BOOT, "phase", at(8), phase="verify", state="failed", reason="bad")]
    )
    reports.apply([factories.report(1, BOOT, "heartbeat", at(9), memory={}, mirror={"disks": 2, "working": 1})])
    assert nodes.find("node-1").status_code is StatusCode.BOOT_FAILED
    NodeRow.objects.update(provision_state="deploying", status_code="WORKING")
    reports.apply([factories.report(1, BOOT, "heartbeat", at(10), memory={}, mirror={"disks": 2, "working": 1})])
    assert nodes.find("node-1").status_code is StatusCode.WORKING


def test_a_mirror_of_another_form_is_refused_alone_and_the_others_are_taken() -> None:
    active_node()
    bad = factories.report(1, BOOT, "heartbeat", at(1), memory={}, mirror={"disks": "2"})
    good = factories.report(1, BOOT, "heartbeat", at(2), memory={}, mirror={"disks": 2, "working": 2})
    accepted, refused = reports.apply([bad, good])
    assert accepted == [good["id"]]
    assert "mirror must have disks" in refused[bad["id"]]
