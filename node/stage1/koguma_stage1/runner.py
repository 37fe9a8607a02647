"""Runs the steps of a mode in their order, tells the boot service each phase, and ends every failure in a reboot.

1. A step is a module of `koguma_stage1.steps` with OUTCOME, PHASE, TIMEOUT_S and run(context).
2. Before a step the watchdog is allowed that step's time and no more.
3. Consecutive steps of one PHASE are one phase: told `started` before the first and `succeeded` after the last.
   The phase `stage1` began before there was a network, so both its reports come once there is one.
4. A failing step is told as `failed` with its reason; the machine waits FAILURE_PAUSE_S and reboots, or powers off
   when the boot service refuses it for good.
"""

from __future__ import annotations

import time
import traceback
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from koguma_node.console import say
from koguma_node.errors import NodeError, RefusedError

from koguma_stage1 import power
from koguma_stage1.context import Context

STEPS = {
    "register": ("network", "inventory", "register"),
    "boot": ("network", "profile", "verify", "kexec"),
    "rescue": ("network", "rescue"),
    "deploy": ("network", "profile", "verify", "disk_divide", "disk_write", "disk_boot", "restart"),
    "clean": ("network", "erase"),
}
FAILURE_PAUSE_S = 10.0
REFUSAL_PAUSE_S = 30.0
REPORT_MARGIN_S = 30.0
"""What the watchdog allows beyond a step's own time for reporting its end."""


def run_steps(context: Context) -> NoReturn:
    phase = "stage1"
    try:
        for name in STEPS[context.arguments.mode]:
            step = import_module(f"koguma_stage1.steps.{name}")
            if phase not in ("stage1", step.PHASE):
                context.service.report(phase, "succeeded")
            if step.PHASE not in ("stage1", phase):
                context.service.report(step.PHASE, "started")
            phase = step.PHASE
            _run_step(step, context)
            if phase == "stage1":
                context.service.report(phase, "started")
                context.service.report(phase, "succeeded")
        context.service.report(phase, "succeeded")
    except Exception as error:
        _end_in_failure(context, phase, error)
    if context.arguments.mode == "rescue":
        _stay(context)
    say(f"{phase} done; powering off")
    power.power_off()


def _run_step(step: ModuleType, context: Context) -> None:
    say(f"{step.OUTCOME} …")
    context.watchdog.allow(step.TIMEOUT_S + REPORT_MARGIN_S)
    context.deadline = time.monotonic() + step.TIMEOUT_S
    step.run(context)


def _stay(context: Context) -> NoReturn:
    """The machine is its user's until it is powered off; only the watchdog needs something."""
    while True:
        context.watchdog.allow(REPORT_MARGIN_S)
        time.sleep(REPORT_MARGIN_S / 2)


def _end_in_failure(context: Context, phase: str, error: Exception) -> NoReturn:
    if isinstance(error, NodeError):
        reason = str(error)
    else:
        traceback.print_exception(error)
        reason = f"stage 1 has a defect: {type(error).__name__}: {error}"
    refused = isinstance(error, RefusedError)
    pause_s = REFUSAL_PAUSE_S if refused else FAILURE_PAUSE_S
    context.watchdog.allow(pause_s + REPORT_MARGIN_S)
    say(f"{phase} failed: {reason}")
    if context.lease is not None:
        context.service.report(phase, "failed", reason)
    off = refused and context.arguments.mode == "register"
    say(f"{'powering off' if off else 'rebooting'} in {pause_s:g} seconds")
    time.sleep(pause_s)
    if off:
        power.power_off()
    power.reboot()
