"""Operation: a flow under way on a node, as durable as the node itself. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class AskedStep:
    """One step that somebody asked for with a verb (Ironic's clean, deploy and service steps)."""

    interface: str
    step: str
    args: dict[str, Any] = field(default_factory=dict)
    order: int = 0


@dataclass(frozen=True)
class Order:
    """What comes with a verb."""

    steps: tuple[AskedStep, ...] = ()


@dataclass(frozen=True)
class Operation:
    """Where a node is in a flow (`lifecycle.flows`). It is stored before and after every step."""

    id: str
    """32 hex digits; a worker whose operation was replaced finds another one here and stops."""
    flow: str
    step: str
    started_at: datetime
    step_started_at: datetime | None = None
    """None until the step has been recorded as running."""
    tries: int = 0
    """How often the present step failed with an error worth a retry."""
    attempt: int = 1
    """How often the machine has been powered on in this operation."""
    data: dict[str, Any] = field(default_factory=dict)
    """What steps tell later steps: small, JSON."""
    slot: str = ""
    """What it counts as since it was admitted (`model.limits`); empty before, and where nothing limits it."""


@dataclass(frozen=True)
class StepRecord:
    """One step of a node's history."""

    operation: str
    flow: str
    step: str
    attempt: int
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str = "running"
    """running, done, failed, superseded."""
    reason: str | None = None
