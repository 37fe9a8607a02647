"""Events as they happen, over ASGI: who comes back with its last event's id misses nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import Client

from koguma.api.asgi import application
from koguma.db.models import NodeRow
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")


class Stream:
    """A client of the stream, as uvicorn would call it."""

    def __init__(self, query: str = "", **headers: str) -> None:
        self.scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/events",
            "query_string": query.encode(),
            "client": ("127.0.0.1", 1),
            "headers": [(b"accept", b"text/event-stream")]
            + [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self.status = 0
        self.text = ""
        self.gone = asyncio.Event()
        self.news = asyncio.Event()

    async def __aenter__(self) -> Stream:
        self.task = asyncio.create_task(application(self.scope, self._receive, self._send))
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.gone.set()
        await asyncio.wait_for(self.task, 10)

    async def _receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        self.news.set()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line[6:]) for line in self.text.splitlines() if line.startswith("data: ")]

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(20):
            while len(self.events) < count:
                self.news.clear()
                await self.news.wait()
        return self.events


def change(**columns: Any) -> Any:
    def run() -> None:
        NodeRow.objects.update(**columns)
        connection.close()

    return sync_to_async(run, thread_sensitive=False)()


def test_what_happens_is_told_as_it_happens_and_nothing_is_missed_by_who_comes_back() -> None:
    factories.register(1)
    connection.close()

    async def scenario() -> None:
        async with Stream() as first:
            await asyncio.wait_for(first.news.wait(), 10)
            while ": events" not in first.text:
                await asyncio.sleep(0.01)
            await change(provision_state="manageable")
            (seen,) = await first.until(1)
        assert (first.status, seen["kind"], seen["provision_state"]) == (200, "provision", "manageable")
        await change(power_state="power on")
        await change(provision_state="available")
        async with Stream(Last_Event_ID=seen["id"]) as second:
            states = [(event["kind"], event["provision_state"]) for event in await second.until(2)]
        assert states == [("power", "manageable"), ("provision", "available")]
        async with Stream(f"after={seen['id']}&kind=power") as third:
            assert [event["kind"] for event in await third.until(1)] == ["power"]

    asyncio.run(scenario())


def test_a_stream_from_a_place_that_is_none_is_refused() -> None:
    async def scenario() -> None:
        async with Stream(Last_Event_ID="yesterday") as stream:
            await asyncio.wait_for(stream.task, 10)
        assert stream.status == 422

    asyncio.run(scenario())


def test_events_are_paged_and_webhooks_kept_over_the_api() -> None:
    factories.register(1)
    api = Client()
    first = api.get("/api/v1/events?limit=1").json()
    NodeRow.objects.update(maintenance=True)
    rest = api.get(f"/api/v1/events?after={first[-1]['id']}").json()
    assert rest[-1]["kind"] == "maintenance"
    body = {"name": "audit", "url": "https://audit.example.org/", "secret": "x" * 20, "kinds": ["provision"]}
    made = api.post("/api/v1/webhooks", json.dumps(body), "application/json")
    assert made.status_code == 201
    assert "secret" not in made.json()
    assert api.post("/api/v1/webhooks", json.dumps(body), "application/json").status_code == 409
    changed = api.patch("/api/v1/webhooks/audit", '{"enabled": false}', "application/json").json()
    assert (changed["enabled"], changed["kinds"]) == (False, ["provision"])
    assert api.delete("/api/v1/webhooks/audit").status_code == 204
    assert api.get("/api/v1/webhooks").json() == []
