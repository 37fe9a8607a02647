"""Takes what boot services report: builds boot records, notes heartbeats, wakes the nodes that wait for a word.

Reports may come twice, late and in any order. Each is applied under the lock of its node, by its own id and its own
time, so the result does not depend on the order (`lifecycle.boots`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from django.db import transaction
from django.utils import timezone

from koguma.db import nodes, vlan_addresses
from koguma.db.models import BootRow, NodeRow, PowerOnRow, PulseRow
from koguma.db.node_rows import whole
from koguma.db.rows import boot_columns, boot_of, flavor_of, node_of
from koguma.db.snapshots import mode_of
from koguma.db.wake import wake
from koguma.lifecycle.boots import Event, expiry_reason, kexec_works, record_of
from koguma.model import names
from koguma.model.boot_record import BootRecord, Outcome
from koguma.model.errors import InvalidValue
from koguma.model.mirror import mirror
from koguma.model.states import PowerState, ProvisionState, StatusCode

log = logging.getLogger(__name__)

KINDS = ("script", "phase", "installed", "heartbeat", "once")
EVENTS_MAX = 500
"""A boot makes about twenty; the boot service refuses more too."""
FIRMWARE_MAX = timedelta(minutes=10)
"""A power-on longer ago than this did not lead to the boot."""

_HEX32 = re.compile(r"[0-9a-f]{32}")
_PHASE = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Report:
    """One report, checked."""

    def __init__(self, document: Any, now: datetime) -> None:
        """Raises InvalidValue."""
        if not isinstance(document, dict):
            raise InvalidValue(f"a report must be an object, got {type(document).__name__}")
        self.id = _hex(document, "id")
        self.boot_id = _hex(document, "boot_id")
        self.uuid = names.machine_uuid(str(document.get("uuid")))
        self.at = _time(document.get("at"), now)
        self.kind = str(document.get("kind"))
        if self.kind not in KINDS:
            raise InvalidValue(f"a report's kind must be one of {', '.join(KINDS)}, got {names.shown(self.kind)}")
        body = document.get("body")
        if not isinstance(body, dict):
            raise InvalidValue(f"a report's body must be an object, got {type(body).__name__}")
        self.body: dict[str, Any] = _clean(body)
        if self.kind == "phase":
            _check_phase(self.body)
        if "mirror" in self.body:
            mirror(self.body["mirror"])

    def event(self) -> Event:
        return Event(self.id, self.at, self.kind, self.body)


def apply(documents: Sequence[Any], now: datetime | None = None) -> tuple[list[str], dict[str, str]]:
    """The ids that were accepted (now or before), and those that were refused, with the reason."""
    accepted: list[str] = []
    refused: dict[str, str] = {}
    reports = []
    for document in documents:
        try:
            reports.append(Report(document, now or datetime.now(UTC)))
        except InvalidValue as error:
            identifier = document.get("id") if isinstance(document, dict) else None
            refused[str(identifier)[:64]] = str(error)
    for uuid, group in groupby(sorted(reports, key=lambda report: report.uuid), key=lambda report: report.uuid):
        _apply_to_node(uuid, list(group), accepted, refused)
    return accepted, refused


def expire_boots(timeout_s: float, quiet_s: float = 60.0) -> int:
    """Fail the boots that took longer than they may and of which nothing was heard lately. How many."""
    now = timezone.now()
    late = BootRow.objects.filter(
        outcome=Outcome.RUNNING.value,
        began_at__lt=now - timedelta(seconds=timeout_s),
        received_at__lt=now - timedelta(seconds=quiet_s),
    )
    expired = 0
    for boot_pk, node_pk in list(late.order_by("began_at").values_list("pk", "node_id")[:500]):
        with transaction.atomic():
            node = NodeRow.objects.select_for_update(no_key=True).get(pk=node_pk)
            row = BootRow.objects.get(pk=boot_pk)
            if row.outcome != Outcome.RUNNING.value:
                continue  # another worker was faster, or the machine was
            reason = expiry_reason(boot_of(row), timeout_s)
            at = row.started_at + timedelta(seconds=timeout_s)
            row.events = [
                *row.events,
                {"id": "", "at": at.isoformat(), "kind": "expired", "body": {"reason": reason}},
            ]
            _rebuild(node, [row])
        expired += 1
    return expired


def _apply_to_node(uuid: str, reports: list[Report], accepted: list[str], refused: dict[str, str]) -> None:
    with transaction.atomic():
        # no_key: heartbeats and boots refer to the node, and must not wait for each other because of that.
        node = NodeRow.objects.select_for_update(no_key=True).filter(uuid=uuid).first()
        if node is None:
            refused.update((report.id, f"a report must be about a known node, {uuid} is not") for report in reports)
            return
        pulse = _note_pulse(node, reports)
        for report in reports:
            if report.kind == "once" and node.once_id and node.once_id == report.body.get("id"):
                node.once_id = node.once_label = None
                node.save(update_fields=["once_id", "once_label"])
        _store_events(node, [report for report in reports if report.kind in ("script", "phase", "installed")])
        _note_refusal(node, reports)
        _note_mirror(node, pulse)
    accepted.extend(report.id for report in reports)


def _note_pulse(node: NodeRow, reports: Iterable[Report]) -> PulseRow:
    pulse = PulseRow.objects.filter(node=node).first() or PulseRow(node=node)
    changed = False
    for report in sorted(reports, key=lambda report: report.at):
        if pulse.last_seen is None or report.at > pulse.last_seen:
            pulse.last_seen = report.at
            changed = True
            if report.kind in ("heartbeat", "installed") and isinstance(report.body.get("memory"), dict):
                pulse.memory = report.body["memory"]
                pulse.mirror = report.body.get("mirror")
    if changed:
        pulse.save()
    return pulse


def _note_refusal(node: NodeRow, reports: Iterable[Report]) -> None:
    """An active node whose machine was turned away since its last boot says why, as its records stand now."""
    refused = [report.at for report in reports if report.kind == "script" and report.body.get("mode") == "refuse"]
    if not refused or node.provision_state != ProvisionState.ACTIVE.value:
        return
    last = _newest(node)
    if last and last.began_at >= max(refused):
        return
    mode, reason = mode_of(node_of(whole(node.pk)), flavor_of(node.flavor) if node.flavor else None)
    if mode == "refuse":
        node.status_code, node.status = StatusCode.NOT_BOOTABLE.value, f"turned away: {reason}"
        node.save(update_fields=["status_code", "status"])


def _note_mirror(node: NodeRow, pulse: PulseRow) -> None:
    """An active node that runs says when a disk of its root's mirror is missing, and no more when it is back."""
    found = pulse.mirror or {"disks": 0, "working": 0}
    degraded, code = found["working"] < found["disks"], StatusCode(node.status_code)
    if node.provision_state != ProvisionState.ACTIVE.value or code not in _AT_REST:
        return
    if degraded:
        said = (StatusCode.MIRROR_DEGRADED, f"{found['working']} of {found['disks']} disks of the root's mirror work")
    elif code is StatusCode.MIRROR_DEGRADED:
        said = (StatusCode.RUNNING, "")
    else:
        return
    if said != (code, node.status):
        node.status_code, node.status = said[0].value, said[1]
        node.save(update_fields=["status_code", "status"])


_AT_REST = frozenset({StatusCode.RUNNING, StatusCode.READY, StatusCode.MIRROR_DEGRADED})


def _store_events(node: NodeRow, reports: Iterable[Report]) -> None:
    now = timezone.now()
    touched: dict[str, BootRow] = {}
    for report in reports:
        if report.kind == "script" and report.body.get("mode") == "refuse":
            continue  # the machine was turned away: no boot began
        row = touched.get(report.boot_id) or _boot_row(node, report, now)
        if any(event["id"] == report.id for event in row.events) or len(row.events) >= EVENTS_MAX:
            continue
        row.events = [
            *row.events,
            {"id": report.id, "at": report.at.isoformat(), "kind": report.kind, "body": report.body},
        ]
        row.received_at = now
        touched[report.boot_id] = row
    if touched:
        _rebuild(node, list(touched.values()))


def _boot_row(node: NodeRow, report: Report, now: datetime) -> BootRow:
    found = BootRow.objects.filter(node=node, boot_id=report.boot_id).first()
    return found or BootRow(
        node=node, boot_id=report.boot_id, received_at=now, began_at=report.at, started_at=report.at
    )


def _rebuild(node: NodeRow, rows: list[BootRow]) -> None:
    """Make the records of these boots anew, and those they make old; then what the newest says of the node."""
    before = _newest(node)
    for row in rows:
        events = _events(row)
        row.began_at = min((event.at for event in events if event.kind == "script"), default=min(e.at for e in events))
        row.powered_on_at = _power_on_before(node, row)
        _fill(row, None)
        row.save()
    ordered = list(BootRow.objects.filter(node=node).order_by("-began_at", "-pk")[:20])
    changed = {row.pk for row in rows}
    for newer, row in zip([None, *ordered[:-1]], ordered, strict=True):
        began = newer.began_at if newer else None
        if row.pk in changed or (row.outcome == Outcome.RUNNING.value and newer):
            _fill(row, began)
            row.save()
    _tell_node(node, ordered, before)


def _fill(row: BootRow, newer_began_at: datetime | None) -> None:
    record = record_of(row.boot_id, _events(row), powered_on_at=row.powered_on_at, newer_started_at=newer_began_at)
    for column, value in boot_columns(record).items():
        setattr(row, column, value)


def _events(row: BootRow) -> list[Event]:
    return [Event(item["id"], datetime.fromisoformat(item["at"]), item["kind"], item["body"]) for item in row.events]


def _power_on_before(node: NodeRow, row: BootRow) -> datetime | None:
    """The worker's power-on that led to this boot: the last one before its script, with no other boot in between."""
    if not any(item["kind"] == "script" for item in row.events):
        return None
    at = (
        PowerOnRow.objects.filter(node=node, at__lte=row.began_at, at__gt=row.began_at - FIRMWARE_MAX)
        .order_by("-at")
        .values_list("at", flat=True)
        .first()
    )
    if at is None or not isinstance(at, datetime):
        return None
    between = BootRow.objects.filter(node=node, began_at__gte=at, began_at__lt=row.began_at).exclude(
        boot_id=row.boot_id
    )
    return None if between.exists() else at


def _newest(node: NodeRow) -> BootRow | None:
    return BootRow.objects.filter(node=node).order_by("-began_at", "-pk").first()


def _tell_node(node: NodeRow, newest_first: list[BootRow], before: BootRow | None) -> None:
    """What the node's newest boot says of it: its commit, why it failed, whether kexec works; and wake its worker."""
    boots = [row for row in newest_first if row.mode != "register"]
    if not boots:
        return
    newest = boot_of(boots[0])
    last_success = next((row for row in boots if row.outcome == Outcome.SUCCEEDED.value), None)
    installed_at = last_success.finished_at if last_success else None
    seen_at = node.installed_at
    if last_success and installed_at and (node.installed_at is None or installed_at > node.installed_at):
        node.installed_at = installed_at
        node.installed_label, node.installed_commit = last_success.label, last_success.commit
        vlan_addresses.forget_released(node, last_success.began_at)
    if newest.outcome is Outcome.FAILED:
        node.last_error = f"boot failed: {newest.reason}"
    elif newest.outcome is Outcome.SUCCEEDED and (node.last_error or "").startswith("boot failed: "):
        node.last_error = None
    if node.kexec and not kexec_works([boot_of(row) for row in boots]):
        node.kexec = False
        log.warning("kexec failed twice in a row; the node boots without it", extra={"node": node.name})
    if node.provision_state == ProvisionState.ACTIVE.value:
        node.status_code, node.status = _active_status(newest)
    if newest.outcome is not Outcome.ABANDONED and _is_recent(newest):
        node.power_state = PowerState.ON.value
    node.save()
    news = before is None or (before.boot_id, before.outcome) != (newest.boot_id, newest.outcome.value)
    if news or node.provision_state == ProvisionState.WAIT_CALL_BACK.value:
        wake(node.pk)
    if last_success is boots[0] and node.installed_at == installed_at != seen_at:
        nodes.hand_over(node)


def _active_status(newest: BootRecord) -> tuple[str, str]:
    if newest.outcome is Outcome.SUCCEEDED:
        return StatusCode.RUNNING.value, ""
    if newest.outcome is Outcome.FAILED:
        return StatusCode.BOOT_FAILED.value, newest.reason or ""
    phase = newest.current_phase
    return StatusCode.BOOTING.value, f"booting, phase {phase.name}" if phase else "booting"


def _is_recent(record: BootRecord) -> bool:
    return timezone.now() - (record.finished_at or record.started_at) < timedelta(minutes=2)


def _hex(document: dict[str, Any], key: str) -> str:
    text = str(document.get(key))
    if not _HEX32.fullmatch(text):
        raise InvalidValue(f"a report's {key} must be 32 hexadecimal digits, got {names.shown(document.get(key))}")
    return text


def _time(value: Any, now: datetime) -> datetime:
    """No later than now: a boot service whose clock is ahead must not order its boots after those still to come."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise InvalidValue(f"a report's at must be an RFC 3339 time, got {names.shown(value)}") from None
    if at.tzinfo is None:
        raise InvalidValue(f"a report's at must carry its offset from UTC, got {names.shown(value)}")
    return min(at.astimezone(UTC), now)


def _check_phase(body: dict[str, Any]) -> None:
    if not isinstance(body.get("phase"), str) or not _PHASE.fullmatch(body["phase"]):
        raise InvalidValue(f"a phase must be a name of lower-case letters, got {names.shown(body.get('phase'))}")
    if body.get("state") not in ("started", "succeeded", "failed"):
        raise InvalidValue(
            f"a phase's state must be started, succeeded or failed, got {names.shown(body.get('state'))}"
        )


def _clean(body: dict[str, Any]) -> dict[str, Any]:
    """Bounded, and without the one character that PostgreSQL's JSON cannot hold."""
    text = json.dumps(body)
    if len(text) > 65536:
        raise InvalidValue(f"a report's body may have 65536 bytes, got {len(text)}")
    cleaned: dict[str, Any] = json.loads(text.replace("\\u0000", " "))
    return cleaned
