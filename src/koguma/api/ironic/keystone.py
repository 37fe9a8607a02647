"""Tokens of OpenStack's identity service, proven by keystonemiddleware (`koguma[keystone]`).

The middleware is made for WSGI: it is called with the headers of a request, and what it adds to them is read. It keeps
proven tokens for as long as it is told, asks Keystone for others, and has an account of its own for that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.conf import settings

from koguma.api.ironic.http import Refused
from koguma.api.ironic.identity import Identity
from koguma.errors import KogumaError

TOKENS = ("x-auth-token", "x-service-token")
_TOLD = "koguma.told"


def identify(headers: Mapping[str, str]) -> Identity:
    """Whose the token of a request is. Raises Refused: 401 without a valid one, 503 when Keystone does not answer."""
    return identity_of(_proven(headers))


def identity_of(told: Mapping[str, Any]) -> Identity:
    """What the middleware adds to a request, as an identity. Raises Refused (401)."""
    if told.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
        raise Refused(401, "The request you have made requires authentication.")
    roles = frozenset(role.strip().lower() for role in str(told.get("HTTP_X_ROLES") or "").split(",") if role.strip())
    return Identity(
        name=str(told.get("HTTP_X_USER_NAME") or told.get("HTTP_X_USER_ID") or ""),
        roles=roles,
        project=told.get("HTTP_X_PROJECT_ID") or None,
        system=told.get("HTTP_OPENSTACK_SYSTEM_SCOPE") == "all",
        service_project=told.get("HTTP_X_PROJECT_NAME") == _settings()["service_project_name"],
    )


def challenge() -> dict[str, str]:
    """Where tokens are to be had."""
    return {"WWW-Authenticate": f'Keystone uri="{_settings()["www_authenticate_uri"]}"'}


def _proven(headers: Mapping[str, str]) -> Mapping[str, Any]:
    told: dict[str, Any] = {}
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "koguma",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper().replace('-', '_')}": headers[name] for name in TOKENS if name in headers},
        _TOLD: told,
    }
    statuses: list[str] = []
    for _ in _protocol()(environ, lambda status, *_: statuses.append(status)):
        pass
    if statuses and statuses[0].startswith("503"):
        raise Refused(503, "The Keystone service is temporarily unavailable.")
    return told


def _collect(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """The application behind the middleware."""
    environ[_TOLD].update(environ)
    start("200 OK", [])
    return []


@cache
def _protocol() -> Any:
    try:
        from keystonemiddleware import auth_token  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise KogumaError(f"auth keystone needs the extra koguma[keystone]: {error}") from None
    told = _settings()
    conf = {
        "delay_auth_decision": True,
        "auth_type": "password",
        "www_authenticate_uri": told["www_authenticate_uri"],
        **{key: value for key, value in told.items() if value and key != "service_project_name"},
    }
    return auth_token.AuthProtocol(_collect, conf)


@cache
def _settings() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(settings.KOGUMA_KEYSTONE or "{}")
    return {"service_project_name": "service", "www_authenticate_uri": told.get("auth_url", ""), **told}
