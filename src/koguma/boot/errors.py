"""What the boot service refuses, each with the HTTP status a machine is told."""

from __future__ import annotations

from koguma.errors import KogumaError


class BootError(KogumaError):
    """A request of a machine is refused."""

    status = 400


class MalformedRequest(BootError):
    """The request does not have the form that the stage-1 API asks for."""


class TooLarge(BootError):
    """The body is larger than the stage-1 API allows."""

    status = 413


class NotThisMachine(BootError):
    """The request does not come from the machine it speaks of."""

    status = 403


class UnknownMachine(BootError):
    """No registered node has this UUID."""

    status = 404


class IdentityConflict(BootError):
    """A MAC or UUID belongs to another node."""

    status = 409


class AlreadyInstalled(BootError):
    """The secrets of a boot are told once; this boot has finished."""

    status = 410


class TooManyReports(BootError):
    """One boot reported more than a boot can sensibly report."""

    status = 429


class NotBootable(BootError):
    """The node's label has no boot artifact, or its flavor's root method cannot be served here."""

    status = 409


class NotReady(BootError):
    """What the machine needs is being prepared; it tries again."""

    status = 503
    retry = True


class ServerUnavailable(BootError):
    """The server, which alone may register machines, does not answer; the machine tries again."""

    status = 503
    retry = True
