"""What drivers and stores raise, whichever they are."""

from __future__ import annotations

from koguma.errors import KogumaError


class PowerError(KogumaError):
    """The power of a machine could not be read or set."""


class PowerUnreachable(PowerError):
    """The BMC did not answer, or answered nonsense; it may answer later."""

    retry = True


class PowerRefused(PowerError):
    """The BMC answered and refused: credentials, privilege or command."""


class PowerTimeout(PowerError):
    """The BMC took the command, but the machine's power did not follow within the time given."""

    retry = True


class UnknownDriver(PowerError):
    """No driver has this name."""


class Superseded(KogumaError):
    """The operation was replaced by another while a step ran; the result of the step is void."""


class NodeGone(KogumaError):
    """The node was forgotten while a worker had it; nothing is left to do."""


class ObjectBackendError(KogumaError):
    """A blob could not be read or written."""


class BackendUnreachable(ObjectBackendError):
    """The other side did not answer, broke off or is busy; it may answer later."""

    retry = True


class BackendRefused(ObjectBackendError):
    """The other side answered and refused: credentials, rights, or a request it does not know."""


class BlobMissing(ObjectBackendError):
    """There is no blob of this name."""


class BlobChanged(ObjectBackendError):
    """The blob is not the one that was to be replaced; reading it again and repeating the change may succeed."""

    retry = True


class Unsupported(PowerError):
    """This kind of BMC, or this BMC, cannot do that at all."""


class SwitchError(KogumaError):
    """A switch could not be read or set."""


class SwitchUnreachable(SwitchError):
    """The switch did not answer in time, is busy, or answered nonsense; it may answer later."""

    retry = True


class SwitchRefused(SwitchError):
    """The switch, or a rule that every switch driver keeps, said no: the same request is refused again."""


class SwitchDiffers(SwitchError):
    """The switch took the commands, but what it reads back is something else: somebody else may be writing to it."""

    retry = True


class UnknownSwitchDriver(SwitchError):
    """No switch driver has this name."""


class VolumeError(KogumaError):
    """A volume could not be made, shown to a machine, or removed."""


class VolumeUnreachable(VolumeError):
    """The storage did not answer in time, or is full or busy; it may do later."""

    retry = True


class VolumeRefused(VolumeError):
    """The storage, or a rule that every volume driver keeps, said no: the same request is refused again."""


class UnknownVolumeDriver(VolumeError):
    """No volume driver has this name."""


class DiskImageError(KogumaError):
    """An image of others could not be prepared for a machine's disk."""


class DiskImageUnreachable(DiskImageError):
    """It could not be fetched or kept; it may be later."""

    retry = True


class DiskImageRefused(DiskImageError):
    """It is not what was promised, or not what a disk may be made of."""
