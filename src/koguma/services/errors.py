"""What keeps a process from starting."""

from __future__ import annotations

from koguma.errors import KogumaError


class ServiceError(KogumaError):
    """A process cannot start as configured."""
