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
