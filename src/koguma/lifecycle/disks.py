"""Steps of nodes whose root is on a disk of their own: the wish to have it written, and the cleaning of disks.

A wish has an id. The boot service remembers which wishes were fulfilled, so that a machine that asks again, for
whatever reason, is sent to its disk and not written once more. Only a node that is being deployed or cleaned has a wish
that counts (`koguma.db.snapshots`): an active node's disk is never written, whatever a boot service has forgotten.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from koguma.lifecycle import media, steps
from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.steps import CLOCK_SKEW_S, Back, Context, Done, Result, Step, Wait
from koguma.model.boot_record import Outcome
from koguma.model.disk_image import BadDiskImage
from koguma.model.flavor import Flavor, RootMethod
from koguma.model.node import Node
from koguma.model.root_disks import BadRootDisks
from koguma.model.states import ProvisionState, StatusCode

OFF_STEP = "the machine is off for cleaning"


def disk_is_to_be_written(state: ProvisionState) -> Step:
    """From here on the disks count as used, also when the deployment fails halfway. An image that a machine cannot
    write as it comes is prepared first.
    """

    def run(context: Context) -> Result:
        flavor = context.claim.flavor()
        if flavor and flavor.root_method is RootMethod.DISK:
            image = _ready_image(context)
            _require_disks(context, flavor, image)
            context.changes.update(disk_wish=uuid4().hex, disk_image=image, disk_used=True)
        return Done()

    return Step("its disk is to be written", state, run, applies=steps.is_diskless)


def _ready_image(context: Context) -> dict[str, Any] | None:
    try:
        image = context.claim.wanted_image()
        if image and not image.is_ready:
            image = context.disk_images().ready(image)
    except BadDiskImage as error:
        raise StepFailed(StatusCode.NOT_BOOTABLE, str(error)) from error
    return image.to_json() if image else None


def _require_disks(context: Context, flavor: Flavor, image: dict[str, Any] | None) -> None:
    try:
        mirror = context.claim.root_disks(flavor).mirror
    except BadRootDisks as error:
        raise StepFailed(StatusCode.NOT_BOOTABLE, str(error)) from error
    if image and mirror is not None:
        raise StepFailed(
            StatusCode.NOT_BOOTABLE, "a disk image brings its own partitions and goes to one disk, two were asked for"
        )


def disks_are_cleaned(cleaning: ProvisionState, waiting: ProvisionState) -> tuple[Step, ...]:
    """The machine boots stage 1 once more, which empties its disks; nodes that never used one are left off."""
    return (
        _disks_are_to_be_emptied(cleaning),
        replace(steps.machine_is_off(cleaning), name=OFF_STEP, applies=needs_cleaning),
        replace(
            media.loader_is_in_the_drive(cleaning), name="its loader is in the drive for cleaning", applies=_by_media
        ),
        replace(steps.machine_is_on(cleaning), name="the machine is on for cleaning", applies=needs_cleaning),
        _disks_are_empty(waiting),
        replace(steps.machine_is_off(cleaning), name="the machine is off after cleaning", applies=needs_cleaning),
    )


def needs_cleaning(node: Node) -> bool:
    return node.disk_used and node.automated_clean is not False and steps.may_be_powered_off(node)


def _by_media(node: Node) -> bool:
    return needs_cleaning(node) and media.boots_from_media(node)


def _disks_are_to_be_emptied(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.changes["disk_wish"] = uuid4().hex
        return Done()

    return Step("its disks are to be emptied", state, run, applies=needs_cleaning)


def _disks_are_empty(state: ProvisionState) -> Step:
    """Until stage 1 says so, as often as the policy lets a machine boot."""

    def run(context: Context) -> Result:
        powered_on_at = context.time("powered_on_at") or context.step_started_at
        since = powered_on_at - timedelta(seconds=CLOCK_SKEW_S)
        boots = [boot for boot in context.claim.boots_since(since) if boot.mode == "clean"]
        if any(boot.outcome is Outcome.SUCCEEDED for boot in boots):
            context.changes["disk_used"] = False
            return Done()
        failed = next((boot.reason for boot in boots if boot.outcome is Outcome.FAILED), None)
        if (context.now - powered_on_at).total_seconds() < context.policy.boot_timeout_s:
            return Wait(StatusCode.WAITING_FOR_MACHINE, failed or "stage 1 empties its disks", 15.0)
        reason = failed or f"its disks were not emptied within {context.policy.boot_timeout_s:g} s of power-on"
        if context.attempt >= context.policy.boot_attempts_max:
            raise StepFailed(StatusCode.BOOT_TIMED_OUT, f"{reason} (attempt {context.attempt})")
        return Back(OFF_STEP, reason)

    return Step("its disks are empty", state, run, applies=needs_cleaning)
