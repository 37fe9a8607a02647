"""The Ironic API as an ASGI application: negotiates the microversion, runs the view in a thread, and makes every error
an answer in Ironic's form.

No framework is between the socket and the view: clients make thousands of small requests, and a view needs nothing of
one. Threads, because views wait for the database; they are as many as there may be connections to it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, unquote

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from koguma.api.errors import status_of
from koguma.api.ironic import versions
from koguma.api.ironic.auth import challenge, check_access
from koguma.api.ironic.http import Refused, Request, Response, error_body
from koguma.api.ironic.policy import may_operate
from koguma.api.ironic.routes import dispatch, is_public
from koguma.db.errors import InUse
from koguma.errors import KogumaError
from koguma.model.errors import InvalidValue

log = logging.getLogger(__name__)

THREADS = 12
BODY_MAX_BYTES = 4 * 1024 * 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ironic")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    body = await _body(receive)
    request = _request(scope, body or b"")
    headers: dict[str, str] = {}
    if body is None:
        response = _refused(413, f"a body may have {BODY_MAX_BYTES} bytes")
    else:
        loop = asyncio.get_running_loop()
        response, headers = await loop.run_in_executor(_threads, respond, request)
    await answer(response, headers, send, empty=request.method == "HEAD")


async def answer(response: Response, headers: dict[str, str], send: Send, *, empty: bool = False) -> None:
    content = response.content()
    kind = {"content-type": "application/json"} if content else {}
    fields = {**headers, **kind, **response.headers, "content-length": str(len(content))}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if empty else content})


async def refusal(scope: Scope) -> Response | None:
    """Why a request to the native API may not be answered, in its own form; None when it may."""
    if settings.KOGUMA_API_AUTH == "none":
        return None
    try:
        await asyncio.get_running_loop().run_in_executor(_threads, _check_native_access, _request(scope, b""))
    except Refused as error:
        return Response(error.status, {"error": str(error)}, challenge() if error.status == 401 else {})
    return None


def _check_native_access(request: Request) -> None:
    """The native API is the operators': what a project may do with its nodes goes through Ironic's. Raises Refused."""
    check_access(request)
    if not may_operate(request):
        raise Refused(403, "this API needs a role on the whole system: reader to read, admin to change")


def respond(request: Request) -> tuple[Response, dict[str, str]]:
    """The answer, and the headers every answer has."""
    headers = {
        **versions.LIMITS,
        "X-OpenStack-Request-Id": f"req-{secrets.token_hex(16)}",
        "Vary": f"OpenStack-API-Version, {versions.HEADER}",
    }
    began = time.monotonic()
    try:
        response = _answered(request, headers)
    except Exception as error:
        response = _failed(request, error)
    finally:
        connection.close()
    log.debug("answered", extra={"path": request.path, "status": response.status, "s": time.monotonic() - began})
    return response, headers


def _answered(request: Request, headers: dict[str, str]) -> Response:
    parts = [unquote(part) for part in request.path.split("/") if part]
    if "\x00" in request.path + "".join(request.query.values()) or any("\x00" in part for part in parts):
        raise Refused(400, "a path or an argument may not have a zero byte")
    request.minor = versions.negotiate(request)
    headers[versions.HEADER] = f"1.{request.minor}"
    headers["OpenStack-API-Version"] = f"baremetal 1.{request.minor}"
    if not parts:
        return Response(document=versions.root(request))
    if parts[0] != "v1":
        raise Refused(404, "The resource could not be found.")
    if not is_public(parts[1:]):
        check_access(request)
    return dispatch(request, parts[1:])


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        more = challenge() if error.status == 401 else {}
        return Response(error.status, error_body(str(error)), more)
    if isinstance(error, InvalidValue | InUse):
        return _refused(400, str(error))
    if isinstance(error, KogumaError):
        return _refused(status_of(error), str(error))
    if isinstance(error, OperationalError | InterfaceError):
        log.warning("the database does not answer", extra={"error": str(error)[:300]})
        return Response(503, error_body("the database does not answer", server=True), {"Retry-After": "2"})
    log.exception("a request met a defect", extra={"path": request.path})
    return Response(500, error_body(f"{type(error).__name__}: this is a defect of the server", server=True))


def _refused(status: int, message: str) -> Response:
    return Response(status, error_body(message))


def _request(scope: Scope, body: bytes) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    host = headers.get("host") or "localhost"
    scheme = headers.get("x-forwarded-proto", scope.get("scheme", "http"))
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return Request(
        method=scope["method"],
        path=raw.decode("latin-1").partition("?")[0],
        url=f"{scheme}://{host}",
        query=query,
        headers=headers,
        body=body,
    )


async def _body(receive: Receive) -> bytes | None:
    """None when it is too large."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_MAX_BYTES:
            chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks) if size <= BODY_MAX_BYTES else None
