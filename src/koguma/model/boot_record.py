"""Boot records: one boot of one node, its phases each timed, and how it ended. Values only; `lifecycle.boots` makes
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class PhaseName(StrEnum):
    """The phases of a boot, in their order."""

    FIRMWARE = "firmware"  # power-on to the iPXE script
    IPXE = "ipxe"  # the script to stage 1's first word
    REGISTER = "register"  # an unknown machine tells about itself
    RESCUE = "rescue"  # stage 1 opens a shell on the network instead of booting on
    STAGE1 = "stage1"  # stage 1's own kernel and steps
    PROFILE = "profile"  # asks what to boot
    VERIFY = "verify"  # manifest and digests of kernel and initramfs
    DISK = "disk"  # the root's disk divided, written, made bootable
    CLEAN = "clean"  # the disks emptied
    RESTART = "restart"  # from stage 1 through the firmware to the disk's own kernel
    KEXEC = "kexec"  # to the initramfs's first word
    ROOT = "root"  # the root image fetched and verified, or copied
    RENDER = "render"  # the configuration
    USERSPACE = "userspace"  # to installed


class Outcome(StrEnum):
    """How a phase or a boot ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"  # a newer boot of the machine began before this one ended


@dataclass(frozen=True)
class Phase:
    name: str
    started_at: datetime
    outcome: Outcome
    duration_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class BootRecord:
    """`mode` is the script's: boot, register, rescue, refuse or direct (without kexec)."""

    boot_id: str
    started_at: datetime
    outcome: Outcome
    mode: str = "boot"
    label: str | None = None
    commit: str | None = None
    phases: tuple[Phase, ...] = ()
    finished_at: datetime | None = None
    duration_s: float | None = None
    reason: str | None = None
    memory: dict[str, Any] | None = None

    @property
    def failed_phase(self) -> Phase | None:
        return next((phase for phase in reversed(self.phases) if phase.outcome is Outcome.FAILED), None)

    @property
    def current_phase(self) -> Phase | None:
        return next((phase for phase in reversed(self.phases) if phase.outcome is Outcome.RUNNING), None)
