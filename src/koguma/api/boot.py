"""What boot services and the server say to each other: registrations, reports, the snapshot. ARCHITECTURE.md gives the
formats.

Every request carries the site's boot secret as a bearer token. What is inside a registration or a report comes from
machines and is checked as hostile input is, before anything is stored.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from koguma.api.errors import DATABASE_AWAY, Malformed, TooLarge, Unauthorised, database_away, status_of
from koguma.api.ironic.inspecting import machine_registered
from koguma.db import registrations, reports
from koguma.db.snapshots import Renderer
from koguma.errors import KogumaError
from koguma.model import registration as registration_model

log = logging.getLogger(__name__)

REGISTRATION_SIZE_MAX_BYTES = 256 * 1024 + 1024
REPORTS_SIZE_MAX_BYTES = 8 * 1024 * 1024
REPORTS_MAX = 1000

View = Callable[[HttpRequest], HttpResponse]

_renderer = Renderer()


def _boot_service_only(view: View) -> View:
    """Check the secret, and answer with the errors of the domain."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        try:
            _check_secret(request)
            return view(request)
        except KogumaError as error:
            if request.method == "POST":
                log.warning("refused", extra={"path": request.path, "reason": str(error)})
            return JsonResponse({"error": str(error)}, status=status_of(error))
        except DATABASE_AWAY as error:
            return database_away(error)

    return guarded


@_boot_service_only
@require_http_methods(["POST"])
def post_registration(request: HttpRequest) -> HttpResponse:
    document = registration_model.parse(_json(request, REGISTRATION_SIZE_MAX_BYTES))
    with transaction.atomic():
        # Whoever goes on with the node finds it as the rules left it.
        node = registrations.register(document)
        machine_registered(node)
    return JsonResponse({"name": node.name, "uuid": document.uuid}, status=201)


@_boot_service_only
@require_http_methods(["POST"])
def post_reports(request: HttpRequest) -> HttpResponse:
    document = _json(request, REPORTS_SIZE_MAX_BYTES)
    found = document.get("reports") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > REPORTS_MAX:
        raise Malformed(f"reports must be a list of at most {REPORTS_MAX} reports")
    accepted, refused = reports.apply(found)
    return JsonResponse({"accepted": accepted, "refused": refused})


@_boot_service_only
@require_http_methods(["GET"])
def get_snapshot(request: HttpRequest) -> HttpResponse:
    revision, document = _renderer.current()
    etag = f'"{revision}"'
    given = request.headers.get("If-None-Match", "")
    response: HttpResponse
    if etag in (tag.strip().removeprefix("W/") for tag in given.split(",")):
        response = HttpResponseNotModified()
    else:
        response = HttpResponse(document, content_type="application/json")
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    return response


def _check_secret(request: HttpRequest) -> None:
    """Raises Unauthorised."""
    try:
        secret = (Path(settings.KOGUMA_SECRETS_DIR) / "boot.key").read_text(encoding="ascii").strip()
    except OSError:
        raise Unauthorised("the site's boot secret must exist (boot.key in the secrets directory)") from None
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not secret or scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), secret.encode()):
        raise Unauthorised("a boot service must carry the site's boot secret as a bearer token")


def _json(request: HttpRequest, size_max_bytes: int) -> Any:
    """Raises TooLarge or Malformed."""
    try:
        length = int(request.headers.get("Content-Length") or 0)
    except ValueError:
        length = 0
    if length > size_max_bytes or len(body := request.read(size_max_bytes + 1)) > size_max_bytes:
        raise TooLarge(f"a body may have {size_max_bytes} bytes ({request.path})")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a body must be JSON: {error} ({request.path})") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
