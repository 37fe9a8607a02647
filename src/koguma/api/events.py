"""`GET /api/v1/events` as a stream of server-sent events, for whoever sends `Accept: text/event-stream`.

    id: 812-95
    event: provision
    data: {"id": "812-95", "node": ...}

It begins after `Last-Event-ID` (or the argument `after`), else with what happens from now on; `kind` and `node` narrow
it. One task looks for new events for all streams together; each reads its own then. ASGI without a framework, so that
a stream is a task and not a thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connection

from koguma.db import events
from koguma.db.events import Place
from koguma.model.errors import InvalidValue

log = logging.getLogger(__name__)

PATH = "/api/v1/events"
WATCH_S = 0.5
PAGE = 500
ALIVE_S = 15.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def wants_stream(scope: Scope) -> bool:
    if scope.get("path") != PATH or scope.get("method") != "GET":
        return False
    return any(name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"])


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Until the client goes or the server stops."""
    try:
        place, narrow = await _wish(scope)
    except InvalidValue as error:
        await _refuse(send, str(error))
        return
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _send(send, ": events of nodes\nretry: 2000\n\n")
    gone = asyncio.create_task(_until_gone(receive))
    try:
        while not gone.done() and not _watch.is_stopping:
            place = await _send_new(send, place, narrow)
            if not await _watch.wait_beyond(place, gone):
                await _send(send, ": alive\n\n")
    finally:
        gone.cancel()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def stop_streams() -> None:
    """The server stops: every stream ends, and its client comes back with its last event's id."""
    _watch.stop()


async def _wish(scope: Scope) -> tuple[Place, dict[str, Any]]:
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"last-event-id"), None)
    kinds, node = kinds_of(query.get("kind")), node_of(query.get("node"))
    last = header or query.get("after")
    place = Place.parse(last) if last else await _newest()
    return place, {"kinds": kinds, "node": node}


def kinds_of(text: str | None) -> list[str] | None:
    """Raises InvalidValue."""
    kinds = [kind for kind in (text or "").split(",") if kind]
    if unknown := sorted(set(kinds) - set(events.KINDS)):
        raise InvalidValue(f"a kind of event must be one of {', '.join(events.KINDS)}, got {', '.join(unknown)[:80]}")
    return kinds or None


def node_of(text: str | None) -> str | None:
    """Raises InvalidValue."""
    try:
        return str(UUID(text)) if text else None
    except ValueError:
        raise InvalidValue(f"node must be a node's UUID, got {str(text)[:80]!r}") from None


async def _send_new(send: Send, place: Place, narrow: dict[str, Any]) -> Place:
    """Everything after the place; the place afterwards."""
    while True:
        # What is seen now and not sent is not wanted: it need not be looked at again.
        newest = await _newest()
        found: list[tuple[Place, dict[str, Any]]] = await _in_thread(events.after, place, PAGE, **narrow)
        for _, event in found:
            await _send(send, f"id: {event['id']}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n")
        if len(found) < PAGE:
            return max([newest, place, *(at for at, _ in found[-1:])])
        place = found[-1][0]


class _Watch:
    """Looks for events while anybody waits for one."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._newest = events.BEGINNING
        self._task: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Event] = set()

    async def wait_beyond(self, place: Place, gone: asyncio.Task[None]) -> bool:
        """Until there is something after the place or the client is gone; False when a sign of life is due first."""
        if self._newest > place or self.is_stopping:
            return True
        bell = asyncio.Event()
        self._waiters.add(bell)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        waiting = asyncio.create_task(bell.wait())
        try:
            done, _ = await asyncio.wait({waiting, gone}, timeout=ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            waiting.cancel()
            self._waiters.discard(bell)

    def stop(self) -> None:
        self.is_stopping = True
        for bell in self._waiters:
            bell.set()

    async def _look(self) -> None:
        while self._waiters and not self.is_stopping:
            await asyncio.sleep(WATCH_S)
            try:
                newest = await _newest()
            except Exception as error:
                log.warning("events could not be looked for", extra={"error": str(error)[:300]})
                continue
            if newest > self._newest:
                self._newest = newest
                for bell in self._waiters:
                    bell.set()


_watch = _Watch()


async def _newest() -> Place:
    place: Place = await _in_thread(events.newest)
    return place


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _refuse(send: Send, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    await send({"type": "http.response.start", "status": 422, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def _in_thread(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    def run() -> Any:
        try:
            return call(*arguments, **more)
        finally:
            connection.close()

    return await sync_to_async(run, thread_sensitive=False)()
