"""The site's times and limits for the lifecycle: plain values, given by whoever starts a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from koguma.model.limits import Limits


@dataclass(frozen=True)
class Policy:
    boot_timeout_s: float = 900.0
    """From power-on to `installed`."""
    boot_attempts_max: int = 3
    """How often a deploying machine is powered on before its deployment has failed."""
    self_power_off_s: float = 90.0
    """How long a machine that registered may take to power itself off before it is forced off."""
    shutdown_timeout_s: float = 60.0
    """How long an operating system may take to shut down before the power is cut."""
    power_call_timeout_s: float = 30.0
    """One conversation with a BMC."""
    power_step_timeout_s: float = 300.0
    """Until a step that sets power has failed, its repetitions included."""
    switch_call_timeout_s: float = 20.0
    """One conversation with a switch."""
    switch_step_timeout_s: float = 300.0
    """Until a step that sets switch ports has failed, its repetitions included."""
    retries_max: int = 8
    retry_delay_s: float = 5.0
    """Doubles from try to try, up to a minute."""
    goal_retry_s: float = 120.0
    """After a failure on the way to its goal, a node that goes there by itself tries again."""
    step_timeout_s: float = 3600.0
    """Until a step without a time of its own has failed, its repetitions included."""
    slot_poll_s: float = 30.0
    """How often a node that waits to be admitted looks by itself; it is woken when it is."""
    loader_disc_url: str = ""
    """iPXE as a disc image, as BMCs reach it. Empty: none is served."""
    limits: Limits = field(default_factory=Limits)
    late_reports_s: float = 60.0
    """After a worker starts, boots are not given up for so long: their reports may be waiting to be delivered."""

    def backoff_s(self, tries: int) -> float:
        return min(self.retry_delay_s * 2.0 ** max(tries - 1, 0), 60.0)
