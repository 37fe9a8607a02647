"""Makes a boot record from what was reported of one boot, in whatever order it arrived. Pure: the same events give the
same record.

1. Sort the events by their own time. The script's time begins the boot; a power-on before it begins the firmware
   phase.
2. Every phase that was reported has its first start and its last word. Stage 1 tells only once it has a network, so
   its phase starts when its kernel did (its word's time less its uptime), and the iPXE phase ends there.
3. A phase without an end of its own ended when the next one began: nobody can report the jump into another kernel.
   That is also why kexec lasts until the next phase, whatever stage 1 said last.
4. Userspace begins where the phases before it end, and ends with `installed`.
5. The outcome: installed (in the modes register, rescue and clean, that done) is success, and so is being sent to the
   own disk (mode disk), after which nothing need be heard; else the last phase that failed; else the expiry of its
   time; else a newer boot; else it is running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from koguma.model.boot_record import BootRecord, Outcome, Phase, PhaseName

_LAST_PHASES = {"register": PhaseName.REGISTER, "rescue": PhaseName.RESCUE, "clean": PhaseName.CLEAN}
"""Boots that end in stage 1, by their mode."""

KEXEC_FAILURES_MAX = 2
"""After so many failures in a row a machine boots without kexec."""


@dataclass(frozen=True)
class Event:
    """One report of a boot; `kind` is script, phase, installed, or expired (made by the server itself)."""

    id: str
    at: datetime
    kind: str
    body: dict[str, Any] = field(default_factory=dict)


def record_of(
    boot_id: str,
    events: Sequence[Event],
    *,
    powered_on_at: datetime | None = None,
    newer_started_at: datetime | None = None,
) -> BootRecord:
    """`events` must not be empty. `newer_started_at` is when the node's next boot began, if one did."""
    ordered = sorted(events, key=_order)
    script = next((event for event in ordered if event.kind == "script"), None)
    installed = next((event for event in ordered if event.kind == "installed"), None)
    expired = next((event for event in ordered if event.kind == "expired"), None)
    began_at = script.at if script else ordered[0].at
    phases = _phases(ordered, script, installed, powered_on_at, began_at)
    mode = _said(ordered, "mode") or ("register" if any(phase.name == "register" for phase in phases) else "boot")
    outcome, finished_at, reason = _ending(phases, mode, installed, expired, newer_started_at)
    if mode == "disk":
        outcome, finished_at, reason = Outcome.SUCCEEDED, began_at, None
    if outcome is not Outcome.RUNNING and finished_at is not None:
        phases = [_ended_with_boot(phase, outcome, finished_at) for phase in phases]
    started_at = powered_on_at or began_at
    memory = installed.body.get("memory") if installed else None
    return BootRecord(
        boot_id=boot_id,
        started_at=started_at,
        outcome=outcome,
        mode=mode,
        label=_said(ordered, "label"),
        commit=_said(ordered, "commit"),
        phases=tuple(phases),
        finished_at=finished_at,
        duration_s=_seconds(started_at, finished_at) if finished_at else None,
        reason=reason,
        memory=memory if isinstance(memory, dict) else None,
    )


def kexec_works(newest_first: Sequence[BootRecord]) -> bool:
    """False when the last boots that tried kexec all failed there. Boots without it say nothing about it."""
    tried = [phase for boot in newest_first for phase in boot.phases if phase.name == PhaseName.KEXEC]
    recent = tried[:KEXEC_FAILURES_MAX]
    return len(recent) < KEXEC_FAILURES_MAX or any(phase.outcome is not Outcome.FAILED for phase in recent)


def expiry_reason(record: BootRecord, timeout_s: float) -> str:
    phase = record.current_phase or (record.phases[-1] if record.phases else None)
    return f"not installed within {timeout_s:g} s; it was in phase {phase.name if phase else 'ipxe'}"


def _order(event: Event) -> tuple[datetime, int, int]:
    """By time; what happened at the same time by the order of a boot, and a start before its end."""
    kinds = {"script": 0, "phase": 1, "installed": 2}
    return event.at, kinds.get(event.kind, 3), 0 if event.body.get("state") == "started" else 1


def _place(name: str) -> int:
    names = [known.value for known in PhaseName]
    return names.index(name) if name in names else len(names)


def _said(events: Sequence[Event], key: str) -> str | None:
    """The first thing any report says under this key, in its body or in its data."""
    for event in events:
        data = event.body.get("data")
        value = event.body.get(key) or (data.get(key) if isinstance(data, dict) else None)
        if isinstance(value, str):
            return value
    return None


def _phases(
    events: Sequence[Event],
    script: Event | None,
    installed: Event | None,
    powered_on_at: datetime | None,
    began_at: datetime,
) -> list[Phase]:
    reported = _reported(events, began_at)
    implied = []
    if powered_on_at and script and PhaseName.FIRMWARE not in reported:
        implied.append(_done(PhaseName.FIRMWARE, powered_on_at, script.at))
    if script and PhaseName.IPXE not in reported:
        first = min((phase.started_at for phase in reported.values()), default=None)
        implied.append(
            Phase(PhaseName.IPXE, script.at, Outcome.RUNNING)
            if first is None
            else _done(PhaseName.IPXE, script.at, first)
        )
    phases = sorted([*implied, *reported.values()], key=lambda phase: (phase.started_at, _place(phase.name)))
    return _with_userspace(_closed(phases), installed)


def _reported(events: Sequence[Event], began_at: datetime) -> dict[str, Phase]:
    phases: dict[str, Phase] = {}
    for event in events:
        if event.kind != "phase":
            continue
        name, state = str(event.body.get("phase")), event.body.get("state")
        known = phases.get(name) or Phase(name, _phase_start(name, event, began_at), Outcome.RUNNING)
        if state == "started":
            phases[name] = replace(known, outcome=Outcome.RUNNING, duration_s=None, reason=None)
        else:
            phases[name] = replace(
                known,
                outcome=Outcome.FAILED if state == "failed" else Outcome.SUCCEEDED,
                duration_s=_seconds(known.started_at, event.at),
                reason=event.body.get("reason") if state == "failed" else None,
            )
    return phases


def _phase_start(name: str, event: Event, began_at: datetime) -> datetime:
    uptime_s = event.body.get("uptime_s")
    if name != PhaseName.STAGE1 or not isinstance(uptime_s, int | float) or uptime_s > 86400:
        return event.at
    return max(began_at, event.at - timedelta(seconds=uptime_s))


def _closed(phases: list[Phase]) -> list[Phase]:
    """Phases in order, each running one but the last ended by its follower."""
    closed = []
    for index, phase in enumerate(phases):
        following = phases[index + 1] if index + 1 < len(phases) else None
        jumped = phase.outcome is Outcome.RUNNING or (
            phase.name == PhaseName.KEXEC and phase.outcome is Outcome.SUCCEEDED
        )
        closed.append(_done(phase.name, phase.started_at, following.started_at) if following and jumped else phase)
    return closed


def _with_userspace(phases: list[Phase], installed: Event | None) -> list[Phase]:
    last = phases[-1] if phases else None
    if last is None:
        return phases
    if last.name == PhaseName.USERSPACE and len(phases) > 1:
        # The machine tells only how it ended: its first process starts where the phase before ended.
        start = _end(phases[-2])
        end = installed.at if installed else _end(last)
        outcome = Outcome.SUCCEEDED if installed else last.outcome
        took_s = None if outcome is Outcome.RUNNING else _seconds(start, end)
        return [*phases[:-1], replace(last, started_at=start, outcome=outcome, duration_s=took_s)]
    if installed is None:
        ended = last.outcome is Outcome.SUCCEEDED and last.name in (PhaseName.RENDER, PhaseName.ROOT)
        return [*phases, Phase(PhaseName.USERSPACE, _end(last), Outcome.RUNNING)] if ended else phases
    if last.outcome is Outcome.RUNNING:
        return [*phases[:-1], _done(last.name, last.started_at, installed.at)]
    return [*phases, _done(PhaseName.USERSPACE, _end(last), installed.at)]


def _ending(
    phases: Sequence[Phase],
    mode: str,
    installed: Event | None,
    expired: Event | None,
    newer_started_at: datetime | None,
) -> tuple[Outcome, datetime | None, str | None]:
    if installed:
        return Outcome.SUCCEEDED, installed.at, None
    last_of_mode = _LAST_PHASES.get(mode)
    ended = next((phase for phase in phases if phase.name == last_of_mode), None)
    if ended and ended.outcome is Outcome.SUCCEEDED:
        return Outcome.SUCCEEDED, _end(ended), None
    last = phases[-1] if phases else None
    if last and last.outcome is Outcome.FAILED:
        return Outcome.FAILED, _end(last), f"{last.name}: {last.reason or 'no reason given'}"
    if expired:
        return Outcome.FAILED, expired.at, str(expired.body.get("reason"))
    if newer_started_at:
        return Outcome.ABANDONED, newer_started_at, "the machine began another boot"
    return Outcome.RUNNING, None, None


def _ended_with_boot(phase: Phase, outcome: Outcome, finished_at: datetime) -> Phase:
    """A phase that was under way when the boot ended shares its end."""
    if phase.outcome is not Outcome.RUNNING:
        return phase
    return replace(phase, outcome=outcome, duration_s=_seconds(phase.started_at, finished_at))


def _done(name: str, start: datetime, end: datetime) -> Phase:
    return Phase(str(getattr(name, "value", name)), start, Outcome.SUCCEEDED, _seconds(start, end))


def _end(phase: Phase) -> datetime:
    return phase.started_at + timedelta(seconds=phase.duration_s or 0.0)


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, round((end - start).total_seconds(), 3))
