"""Steps of nodes whose root is a volume: made of the label's commit, shown to this machine and no other, taken away.

A volume outlives the machines that use it: a deployment finds the one the node has, and only `undeploy` deletes it. So
a node that was replaced, or deployed anew after a failure, has its data.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import replace
from uuid import uuid4

from koguma.contracts.volumes import Initiator
from koguma.lifecycle import steps
from koguma.lifecycle.steps import Context, Done, Result, Step
from koguma.model.flavor import RootMethod
from koguma.model.states import ProvisionState
from koguma.model.volume import RootVolume, account_of, initiator_of

SECRET_LENGTH = 16
CALL_TIMEOUT_S = 60.0
CREATE_TIMEOUT_S = 600.0


def volume_is_made(state: ProvisionState) -> Step:
    """Recorded first, then made: a crash in between leaves a record without a volume, never the reverse."""

    def run(context: Context) -> Result:
        flavor = context.claim.flavor()
        if flavor is None or flavor.root_method is not RootMethod.ISCSI:
            return Done()
        site = context.volumes()
        volume = context.claim.volume()
        if volume is None:
            wanted = flavor.requirements.get("root_bytes")
            size = wanted if isinstance(wanted, int) and wanted > 0 else site.size_bytes
            volume = RootVolume(str(uuid4()), size, new_secret())
            context.claim.keep_volume(volume)
        if volume.commit is None:
            image = site.image_of(context.node.label or flavor.label, volume.size_bytes)
            site.driver().create(volume.name, image.path, volume.size_bytes, timeout_s=CREATE_TIMEOUT_S)
            context.claim.keep_volume(replace(volume, commit=image.commit))
        return Done()

    return Step("its volume is made", state, run, applies=steps.is_diskless)


def volume_is_shown(state: ProvisionState) -> Step:
    """Before every boot of a deployment: a storage that was started again has forgotten whom it serves."""

    def run(context: Context) -> Result:
        volume = context.claim.volume()
        if volume is None or volume.commit is None:
            return Done()
        uuid = context.node.uuid
        initiator = Initiator(initiator_of(uuid), account_of(uuid), volume.secret)
        target = context.volumes().driver().show(volume.name, initiator, timeout_s=CALL_TIMEOUT_S)
        shown = replace(volume, target=target)
        if shown != volume:
            context.claim.keep_volume(shown)
        return Done()

    return Step("its volume is shown to it", state, run, applies=steps.is_diskless)


def volume_is_hidden(state: ProvisionState) -> Step:
    """Whatever the machine does from here on, it does not reach the volume."""

    def run(context: Context) -> Result:
        volume = context.claim.volume()
        if volume is not None:
            context.volumes().driver().hide(volume.name, timeout_s=CALL_TIMEOUT_S)
            context.claim.keep_volume(replace(volume, target=None, secret=new_secret()))
        return Done()

    return Step("its volume is hidden", state, run, applies=steps.is_diskless)


def volume_is_deleted(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        volume = context.claim.volume()
        if volume is not None:
            driver = context.volumes().driver()
            driver.hide(volume.name, timeout_s=CALL_TIMEOUT_S)
            driver.delete(volume.name, timeout_s=CALL_TIMEOUT_S)
            context.claim.forget_volume()
        return Done()

    return Step("its volume is deleted", state, run, applies=steps.is_diskless)


def new_secret() -> str:
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(SECRET_LENGTH))
