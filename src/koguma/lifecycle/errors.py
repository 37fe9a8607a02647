"""What the lifecycle refuses or gives up."""

from __future__ import annotations

from koguma.errors import KogumaError
from koguma.model.states import StatusCode


class VerbRefused(KogumaError):
    """The verb is not possible in the node's present state."""


class NodeBusy(VerbRefused):
    """Something else is under way; the same wish may be granted when it has ended."""

    retry = True


class NodeProtected(VerbRefused):
    """Somebody protected the node's use."""


class StepFailed(KogumaError):
    """A step cannot reach its outcome; `code` says why in one word."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class IdentityConflict(KogumaError):
    """A machine presents an identifier of another node, or its own do not fit together."""


class NotAcceptedNow(KogumaError):
    """A machine registers while its node is in a state that a registration must not change."""
