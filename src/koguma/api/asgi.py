"""The ASGI application: everything the server answers. `/api` and `/boot` are Django's, everything else Ironic's API.

Who may ask is the same for both APIs; a boot service has its own secret, and the Unix socket is its owner's.
"""

from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "koguma.db.settings")

_django = get_asgi_application()

from koguma.api.events import stream, wants_stream  # noqa: E402
from koguma.api.ironic.app import answer, refusal  # noqa: E402 - tables need Django set up
from koguma.api.ironic.app import application as _ironic  # noqa: E402

HEALTH = "/api/v1/health"
OTHERS = ("/api/", "/boot/")
"""Django's paths."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "")
    if scope["type"] == "http" and not path.startswith(OTHERS):
        await _ironic(scope, receive, send)
        return
    guarded = path.startswith("/api/") and path != HEALTH and scope.get("client") is not None
    refused = await refusal(scope) if guarded else None
    if refused is not None:
        await answer(refused, {}, send)
    elif scope["type"] == "http" and wants_stream(scope):
        await stream(scope, receive, send)
    else:
        await _django(scope, receive, send)
