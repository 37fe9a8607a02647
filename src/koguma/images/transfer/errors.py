"""What goes wrong between two repositories; every message says rule, value and place."""

from __future__ import annotations

from koguma.images.errors import ImageError


class TransferError(ImageError):
    """Commits could not be moved."""


class RemoteError(TransferError):
    """The name or address of a remote is refused, or there is no such remote."""


class HostileRemoteError(TransferError):
    """What the other side sent is not what it said, or larger than anything honest; nothing of it was used."""


class NotFastForwardError(TransferError):
    """A ref would lose commits; they must be merged, or given up on purpose."""


class RefRejectedError(TransferError):
    """The other side did not move a ref."""
