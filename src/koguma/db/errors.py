"""What the stores refuse."""

from __future__ import annotations

from koguma.errors import KogumaError


class NotFound(KogumaError):
    """Nothing has this name."""


class AlreadyExists(KogumaError):
    """Something else has this name or value."""


class InUse(KogumaError):
    """Something still depends on it."""


class Stale(KogumaError):
    """It was changed since the version the caller saw."""


class NoFreeAddress(KogumaError):
    """The network has no address left for ports."""


class NoNetwork(KogumaError):
    """No provisioning network is defined that the node could get an address from."""
