"""The ASGI application: everything the server answers. `/` and `/v1` are Ironic's API; everything else is Django's."""

from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "koguma.db.settings")

_django = get_asgi_application()

from koguma.api.ironic.app import application as _ironic  # noqa: E402 - tables need Django set up


async def application(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "")
    if scope["type"] == "http" and (path in ("", "/", "/v1") or path.startswith("/v1/")):
        await _ironic(scope, receive, send)
    else:
        await _django(scope, receive, send)
