"""What the lab refuses or could not do."""

from __future__ import annotations

from koguma.errors import KogumaError


class LabError(KogumaError):
    """The root of the lab's errors."""


class ToolsMissingError(LabError):
    """Programs the lab runs are not installed; the message names the Debian packages."""


class PlanError(LabError):
    """A lab cannot be made as asked: a name, a number or a path breaks a rule."""


class ForeignNamespaceError(LabError):
    """A namespace of the wanted name exists, and this lab did not make it."""


class CommandError(LabError):
    """A program the lab called failed; the message carries what it said."""


class ProcessDiedError(LabError):
    """A process of the lab ended while the lab waited for it to be ready."""


class DeadlineError(LabError):
    """Something did not happen in time; the message says what was awaited and what was last seen."""

    retry = True


class ApiError(LabError):
    """Koguma's API refused a request, or its answer made no sense."""


class NoSuchNodeError(LabError):
    """The lab has no machine of that name."""
