"""Errors of the domain as HTTP answers: `{"error": "<rule, value, place>"}`."""

from __future__ import annotations

import logging

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse, JsonResponse

from koguma.contracts.errors import PowerError
from koguma.db.errors import AlreadyExists, InUse, NoFreeAddress, NoNetwork, NotFound, Stale
from koguma.errors import KogumaError
from koguma.lifecycle.errors import IdentityConflict, NotAcceptedNow, VerbRefused
from koguma.model.errors import InvalidValue

log = logging.getLogger(__name__)


class Unauthorised(KogumaError):
    """The request does not carry the secret it needs."""


class Malformed(KogumaError):
    """The body is not the JSON that is asked for."""


class TooLarge(KogumaError):
    """The body is larger than this path takes."""


class BadReference(KogumaError):
    """The If-Match header is not an ETag of this API."""


class PreconditionRequired(KogumaError):
    """The site wants every change to name the version it is of."""


_STATUS: tuple[tuple[type[KogumaError], int], ...] = (
    (Unauthorised, 401),
    (NotFound, 404),
    (AlreadyExists, 409),
    (InUse, 409),
    (IdentityConflict, 409),
    (NotAcceptedNow, 409),
    (VerbRefused, 409),
    (NoFreeAddress, 409),
    (NoNetwork, 409),
    (Stale, 412),
    (TooLarge, 413),
    (InvalidValue, 422),
    (Malformed, 422),
    (BadReference, 400),
    (PreconditionRequired, 428),
    (PowerError, 502),
)


DATABASE_AWAY = (OperationalError, InterfaceError)


def database_away(error: Exception) -> HttpResponse:
    """503: the same request may succeed in a moment."""
    log.warning("the database does not answer", extra={"error": str(error)[:300]})
    response = JsonResponse({"error": f"the database does not answer: {type(error).__name__}"}, status=503)
    response["Retry-After"] = "2"
    return response


def status_of(error: KogumaError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
