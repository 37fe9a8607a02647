"""Machines that cannot boot from the network by themselves: iPXE comes as a disc in the BMC's virtual drive.

The disc stays in the drive and first in the boot order, as the network is for other machines: whatever reboots the
machine, iPXE asks the boot service what to run. It is put there again before every power-on, for a BMC that was
restarted, or a person, may have taken it out.
"""

from __future__ import annotations

from koguma.contracts.management import BootChoice, BootDevice, MediaKind
from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.policy import Policy
from koguma.lifecycle.steps import Context, Done, Result, Step, is_diskless
from koguma.model.hardware import VIRTUAL_MEDIA
from koguma.model.node import Node
from koguma.model.states import ProvisionState, StatusCode


def loader_is_in_the_drive(state: ProvisionState | None) -> Step:
    def run(context: Context) -> Result:
        url, timeout_s = context.policy.loader_disc_url, context.policy.power_call_timeout_s
        if not url:
            raise StepFailed(
                StatusCode.NOT_BOOTABLE, "boot from virtual media needs a boot service that BMCs reach (boot.media_url)"
            )
        management = context.management()
        management.insert_media(MediaKind.CDROM, url, timeout_s=timeout_s)
        management.set_boot(BootChoice(BootDevice.CDROM, persistent=True), timeout_s=timeout_s)
        return Done()

    return Step("its loader is in the virtual drive", state, run, _timeout_s, applies=boots_from_media)


def boots_from_media(node: Node) -> bool:
    return is_diskless(node) and node.interface("boot") == VIRTUAL_MEDIA


def _timeout_s(policy: Policy) -> float:
    return policy.power_step_timeout_s
