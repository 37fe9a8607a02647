"""What the command line itself refuses."""

from __future__ import annotations

from koguma.errors import KogumaError


class UsageFault(KogumaError):
    """The words on the command line do not fit together."""


class Failed(KogumaError):
    """What was waited for has failed or did not happen in time."""
