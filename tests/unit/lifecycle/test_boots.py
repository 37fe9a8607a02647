"""Boot records from reports, in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from koguma.lifecycle.boots import Event, expiry_reason, kexec_works, record_of
from koguma.model.boot_record import BootRecord, Outcome

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(at_s: float, kind: str, **body: Any) -> Event:
    return Event(f"{at_s}-{kind}-{body}", T0 + timedelta(seconds=at_s), kind, body)


def phase(at_s: float, name: str, state: str, uptime_s: float | None = None, **more: Any) -> Event:
    return event(at_s, "phase", phase=name, state=state, uptime_s=uptime_s, **more)


WHOLE = [
    event(10, "script", mode="boot", label="compute", commit="c" * 64),
    phase(16, "stage1", "started", 4.0),
    phase(16.1, "stage1", "succeeded", 4.1),
    phase(16.2, "profile", "started", 4.2),
    phase(16.5, "profile", "succeeded", 4.5),
    phase(16.5, "verify", "started", 4.5),
    phase(18, "verify", "succeeded", 6.0),
    phase(18, "kexec", "started", 6.0),
    phase(18.2, "kexec", "succeeded", 6.2),
    phase(21, "root", "started", 2.0),
    phase(25, "root", "succeeded", 6.0),
    phase(25, "render", "started", 6.0),
    phase(26, "render", "succeeded", 7.0),
    event(33, "installed", uptime_s=14.0, memory={"total_bytes": 5}),
]


def times(record: BootRecord) -> dict[str, tuple[float, float | None]]:
    return {item.name: ((item.started_at - T0).total_seconds(), item.duration_s) for item in record.phases}


def test_a_whole_boot_has_every_phase_without_gaps_from_power_on_to_installed() -> None:
    record = record_of("b", WHOLE, powered_on_at=T0 + timedelta(seconds=2))
    assert times(record) == {
        "firmware": (2, 8),
        "ipxe": (10, 2),
        "stage1": (12, 4.1),
        "profile": (16.2, 0.3),
        "verify": (16.5, 1.5),
        "kexec": (18, 3),
        "root": (21, 4),
        "render": (25, 1),
        "userspace": (26, 7),
    }
    assert (record.outcome, record.duration_s, record.label, record.commit) == (
        Outcome.SUCCEEDED,
        31.0,
        "compute",
        "c" * 64,
    )
    assert record.memory == {"total_bytes": 5}
    assert {item.outcome for item in record.phases} == {Outcome.SUCCEEDED}


@given(st.permutations(WHOLE), st.integers(0, len(WHOLE)))
def test_the_order_of_arrival_does_not_matter_and_every_part_makes_a_record(events: list[Event], count: int) -> None:
    assert record_of("b", events) == record_of("b", WHOLE)
    part = events[: max(count, 1)]
    record = record_of("b", part)
    assert record == record_of("b", sorted(part, key=lambda item: item.at))
    assert all(item.duration_s is None or item.duration_s >= 0 for item in record.phases)
    assert (record.finished_at is None) == (record.outcome is Outcome.RUNNING)


def test_userspace_begins_where_rendering_ended_although_the_machine_tells_only_its_end() -> None:
    record = record_of("b", [*WHOLE[:-1], phase(32, "userspace", "succeeded", 13.0), WHOLE[-1]])
    assert times(record)["userspace"] == (26, 7)


def test_a_boot_under_way_says_which_phase_runs() -> None:
    record = record_of("b", WHOLE[:6])
    assert record.outcome is Outcome.RUNNING
    assert record.current_phase is not None
    assert record.current_phase.name == "verify"
    assert record_of("b", WHOLE[:1]).current_phase is not None


def test_a_failed_phase_fails_the_boot_with_its_reason() -> None:
    record = record_of("b", [*WHOLE[:6], phase(17, "verify", "failed", reason="root.squashfs: SHA-256 differs")])
    assert (record.outcome, record.reason) == (Outcome.FAILED, "verify: root.squashfs: SHA-256 differs")
    assert record.failed_phase is not None
    assert (record.finished_at, record.duration_s) == (T0 + timedelta(seconds=17), 7.0)


def test_a_phase_that_failed_and_was_tried_again_with_success_does_not_fail_the_boot() -> None:
    events = [*WHOLE[:4], phase(16.3, "profile", "failed", reason="503"), phase(16.4, "profile", "started"), *WHOLE[4:]]
    assert record_of("b", events).outcome is Outcome.SUCCEEDED


def test_a_boot_that_another_one_followed_was_abandoned_in_its_phase() -> None:
    record = record_of("b", WHOLE[:6], newer_started_at=T0 + timedelta(seconds=60))
    assert (record.outcome, record.duration_s) == (Outcome.ABANDONED, 50.0)
    assert record.phases[-1].outcome is Outcome.ABANDONED
    assert record_of("b", WHOLE, newer_started_at=T0 + timedelta(seconds=60)).outcome is Outcome.SUCCEEDED


def test_a_boot_that_took_too_long_failed_until_installed_arrives_after_all() -> None:
    reason = expiry_reason(record_of("b", WHOLE[:11]), 900)
    assert reason == "not installed within 900 s; it was in phase userspace"
    expired = event(900, "expired", reason=reason)
    assert (record_of("b", [*WHOLE[:11], expired]).outcome) is Outcome.FAILED
    assert record_of("b", [*WHOLE, expired]).outcome is Outcome.SUCCEEDED


def test_registering_is_a_boot_that_succeeds_when_the_machine_is_registered() -> None:
    record = record_of(
        "b",
        [
            event(0, "script"),
            phase(5, "stage1", "started", 3),
            phase(6, "register", "started"),
            phase(9, "register", "succeeded"),
        ],
    )
    assert (record.mode, record.outcome, record.duration_s) == ("register", Outcome.SUCCEEDED, 9.0)
    assert "userspace" not in times(record)


def test_without_kexec_the_initramfs_follows_ipxe() -> None:
    record = record_of(
        "b",
        [event(0, "script"), phase(9, "root", "started", 3.0), phase(12, "root", "succeeded"), event(20, "installed")],
    )
    assert times(record) == {"ipxe": (0, 9), "root": (9, 3), "userspace": (12, 8)}


def test_a_phase_that_starts_and_ends_at_one_moment_has_ended() -> None:
    events = [event(0, "script"), phase(9, "root", "succeeded"), phase(9, "root", "started")]
    assert times(record_of("b", events))["root"] == (9, 0)


def test_kexec_is_given_up_after_two_failures_in_a_row_and_only_then() -> None:
    failed = record_of("f", [*WHOLE[:8], phase(19, "kexec", "failed", reason="x")])
    good = record_of("g", WHOLE)
    without = record_of("w", [event(0, "script"), phase(9, "root", "started"), event(20, "installed")])
    assert kexec_works([])
    assert kexec_works([failed])
    assert kexec_works([failed, good, failed])
    assert not kexec_works([failed, failed, good])
    assert not kexec_works([without, failed, without, failed])
