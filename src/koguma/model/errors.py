"""What the model refuses."""

from __future__ import annotations

from koguma.errors import KogumaError


class InvalidValue(KogumaError):
    """A value breaks a rule of the model; the message says rule, value and place."""
