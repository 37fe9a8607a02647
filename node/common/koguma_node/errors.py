"""What can go wrong on a machine. The message says rule, value and place, and reaches the boot record."""

from __future__ import annotations


class NodeError(Exception):
    """An outcome could not be reached."""


class RefusedError(NodeError):
    """The boot service refuses this machine or this request; asking again changes nothing."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnverifiedError(NodeError):
    """Something downloaded is not what a trusted key signed; it must not run."""
