"""A client of the Ironic API on the real ASGI application, and a worker for what it asks for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.utils import timezone

from koguma.db import allocations
from koguma.db.lifecycle_store import PostgresStore
from koguma.drivers.power import open_power
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def fault(self) -> str:
        """The reason in an error's body."""
        return str(json.loads(self.json["error_message"])["faultstring"])


class Ironic:
    """Speaks the newest microversion where nothing else is said."""

    def __call__(
        self, method: str, path: str, body: Any = None, version: str | None = "1.115", **headers: str
    ) -> Answer:
        from koguma.api.asgi import application

        parts = urlsplit(path)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if version is not None:
            named["x-openstack-ironic-api-version"] = version
        scope = {
            "type": "http",
            "method": method,
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "scheme": "http",
            "client": ("192.0.2.1", 40000),
            "headers": [(b"host", b"api.test")] + [(name.encode(), text.encode()) for name, text in named.items()],
        }
        sent: list[Any] = []
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

        bodies = [content]

        async def receive() -> Any:
            if not bodies:
                await asyncio.Event().wait()  # the client stays until it has its answer
            return {"type": "http.request", "body": bodies.pop()}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(application(scope, receive, send))
        names = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return Answer(sent[0]["status"], names, b"".join(message.get("body", b"") for message in sent[1:]))

    def node(self, **fields: Any) -> dict[str, Any]:
        """A new node of fake hardware."""
        answer = self("POST", "/v1/nodes", {"driver": "fake-hardware", **fields})
        assert answer.status == 201, answer.content
        document: dict[str, Any] = answer.json
        return document

    def provision(self, uuid: str, target: str, **more: Any) -> Answer:
        return self("PUT", f"/v1/nodes/{uuid}/states/provision", {"target": target, **more})

    def state(self, uuid: str) -> str:
        return str(self("GET", f"/v1/nodes/{uuid}").json["provision_state"])


class Worker:
    """Does what is due, on a clock of its own."""

    def __init__(self) -> None:
        self.now: datetime = timezone.now()
        self._executor = Executor(PostgresStore(), open_power, Policy(), lambda: self.now)

    def work(self, uuid: str, after_s: float = 0.0) -> None:
        self.now = max(self.now, timezone.now()) + timedelta(seconds=after_s)
        self._executor.advance(uuid)

    def allocate(self) -> None:
        allocations.allocate_pending()
