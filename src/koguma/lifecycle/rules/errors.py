"""Why a rule ended an inspection."""

from __future__ import annotations

from koguma.errors import KogumaError


class RuleError(KogumaError):
    """A rule cannot be applied to what the machine told."""


class RefusedByRule(KogumaError):
    """A rule says that the machine must not pass (`fail`)."""
