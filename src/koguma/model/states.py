"""The states a node can be in, what may be asked of it, and the codes that explain a state."""

from __future__ import annotations

from enum import StrEnum


class ProvisionState(StrEnum):
    """OpenStack Ironic's provision states, by Ironic's own names."""

    ENROLL = "enroll"  # known, but nobody has proved that its BMC obeys
    VERIFYING = "verifying"  # the BMC is asked with the credentials on record
    MANAGEABLE = "manageable"  # the BMC obeys; not offered for use
    INSPECTING = "inspecting"  # its hardware is being looked at
    INSPECT_WAIT = "inspect wait"  # waiting for the machine itself to report its hardware
    INSPECT_FAILED = "inspect failed"  # the hardware could not be looked at
    ADOPTING = "adopting"  # taken over while in use, without a deployment
    ADOPT_FAILED = "adopt failed"  # could not be taken over
    CLEANING = "cleaning"  # what the last use left is being removed
    CLEAN_WAIT = "clean wait"  # waiting for the machine itself to clean
    CLEAN_HOLD = "clean hold"  # cleaning pauses until somebody lets it go on
    CLEAN_FAILED = "clean failed"  # not clean, so not offered
    AVAILABLE = "available"  # clean and off, waiting for use
    DEPLOYING = "deploying"  # being prepared for its use
    WAIT_CALL_BACK = "wait call-back"  # powered on; waiting for the machine's own word
    DEPLOY_HOLD = "deploy hold"  # deployment pauses until somebody lets it go on
    DEPLOY_FAILED = "deploy failed"  # did not come up; last_error says why
    ACTIVE = "active"  # in use; it stays so through reboots
    SERVICING = "servicing"  # steps run on a machine in use
    SERVICE_WAIT = "service wait"  # waiting for the machine itself during servicing
    SERVICE_HOLD = "service hold"  # servicing pauses until somebody lets it go on
    SERVICE_FAILED = "service failed"  # servicing went wrong; the use may be disturbed
    RESCUING = "rescuing"  # being booted into the rescue system
    RESCUE_WAIT = "rescue wait"  # waiting for the rescue system's word
    RESCUE_FAILED = "rescue failed"  # the rescue system did not come up
    RESCUE = "rescue"  # in the rescue system
    UNRESCUING = "unrescuing"  # leaving the rescue system
    UNRESCUE_FAILED = "unrescue failed"  # did not come back from the rescue system
    DELETING = "deleting"  # its use ends
    ERROR = "error"  # its use could not be ended properly


class Verb(StrEnum):
    """What may be asked of a node; the values are Ironic's provision targets."""

    MANAGE = "manage"
    PROVIDE = "provide"
    DEPLOY = "active"
    REBUILD = "rebuild"
    UNDEPLOY = "deleted"
    INSPECT = "inspect"
    ADOPT = "adopt"
    CLEAN = "clean"  # with steps; cleaning between two uses is part of PROVIDE and UNDEPLOY
    SERVICE = "service"
    RESCUE = "rescue"
    UNRESCUE = "unrescue"
    ABORT = "abort"
    UNHOLD = "unhold"

    @classmethod
    def parse(cls, text: str) -> Verb | None:
        """The verb of Ironic's word for it, or of the word an operator says."""
        return {"deploy": cls.DEPLOY, "undeploy": cls.UNDEPLOY}.get(text) or next(
            (verb for verb in cls if verb.value == text), None
        )


class PowerState(StrEnum):
    """What a BMC says of a machine's power, or is told to bring about."""

    ON = "power on"
    OFF = "power off"
    UNKNOWN = "unknown"  # never asked, or the BMC did not say


class PowerAction(StrEnum):
    """What an operator may ask of a machine's power."""

    ON = "on"
    OFF = "off"  # at once, as with the switch
    SOFT_OFF = "soft off"  # the operating system is asked first
    CYCLE = "cycle"  # off at once, then on
    REBOOT = "reboot"  # the operating system is asked first, then off, then on


class StatusCode(StrEnum):
    """Why a node is where it is: every wait and every failure has its own code."""

    REGISTERED = "REGISTERED"  # known; nothing has been asked of it yet
    READY = "READY"  # at rest where it should be
    RUNNING = "RUNNING"  # active, and its last boot succeeded
    BOOTING = "BOOTING"  # active, and a boot is under way
    MIRROR_DEGRADED = "MIRROR_DEGRADED"  # active and running, but a disk of its root's mirror is missing
    BOOT_FAILED = "BOOT_FAILED"  # active, but its last boot did not reach installed
    WORKING = "WORKING"  # a step is running
    WAITING_FOR_BMC = "WAITING_FOR_BMC"  # the BMC did not answer; the step is tried again
    WAITING_FOR_SELF_POWER_OFF = "WAITING_FOR_SELF_POWER_OFF"  # a machine that registered powers itself off
    WAITING_FOR_POWER_OFF = "WAITING_FOR_POWER_OFF"  # told to power off, still on
    WAITING_FOR_SHUTDOWN = "WAITING_FOR_SHUTDOWN"  # its operating system was asked to shut down
    WAITING_FOR_POWER_ON = "WAITING_FOR_POWER_ON"  # told to power on, still off
    WAITING_FOR_FIRMWARE = "WAITING_FOR_FIRMWARE"  # powered on; has not asked for its boot script yet
    WAITING_FOR_INSTALLED = "WAITING_FOR_INSTALLED"  # booting; the phases say how far it is
    WAITING_FOR_FLAVOR = "WAITING_FOR_FLAVOR"  # cannot be deployed before somebody gives it a flavor
    WAITING_FOR_RESCUE = "WAITING_FOR_RESCUE"  # booting into rescue; its shell is not on the network yet
    WAITING_FOR_REGISTRATION = "WAITING_FOR_REGISTRATION"  # being inspected; the machine tells about itself
    WAITING_FOR_MACHINE = "WAITING_FOR_MACHINE"  # the machine is busy with what it was asked for
    WAITING_FOR_SWITCH_PORT = "WAITING_FOR_SWITCH_PORT"  # its switch is busy or does not answer; asked again
    HELD = "HELD"  # a step asked to wait here until somebody lets the node go on
    WAITING_FOR_SLOT = "WAITING_FOR_SLOT"  # as many others are under way as the site allows at once
    WAITING_FOR_POWER_TURN = "WAITING_FOR_POWER_TURN"  # others' power changes first: so many a second are allowed
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"  # a step failed with an error that may pass
    NO_BMC = "NO_BMC"  # no BMC is on record, so its power cannot be controlled
    BMC_REFUSED = "BMC_REFUSED"  # the BMC answered and refused
    BMC_UNREACHABLE = "BMC_UNREACHABLE"  # the BMC did not answer as often as was tried
    POWER_OFF_TIMED_OUT = "POWER_OFF_TIMED_OUT"  # still on at the deadline
    POWER_ON_TIMED_OUT = "POWER_ON_TIMED_OUT"  # still off at the deadline
    BOOT_TIMED_OUT = "BOOT_TIMED_OUT"  # powered on as often as allowed, never installed
    SWITCH_PORT_TIMED_OUT = "SWITCH_PORT_TIMED_OUT"  # the switch did not put its ports there in the time allowed
    SWITCH_REFUSED = "SWITCH_REFUSED"  # its ports cannot be put there: the switch, or the records, say no
    NOT_BOOTABLE = "NOT_BOOTABLE"  # flavor, label or address is missing
    STEP_TIMED_OUT = "STEP_TIMED_OUT"  # a step took longer than it may
    REFUSED_BY_RULE = "REFUSED_BY_RULE"  # an inspection rule does not let the machine pass
    STEP_FAILED = "STEP_FAILED"  # a step failed for good
    ABORTED = "ABORTED"  # somebody said so
