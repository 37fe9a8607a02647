"""The boot service's line to the server: registrations now, snapshots when they change, reports when they can be
delivered.

The server may be away at any time; everything here then waits and tries again, and the stage-1 API goes on from the
inventory and the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx

from koguma.boot.errors import BootError, IdentityConflict, MalformedRequest, ServerUnavailable
from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal
from koguma.model.snapshot import SnapshotError

log = logging.getLogger(__name__)

BATCH = 200
BACKOFF_MAX_S = 10.0


def connect(address: str, secret: str) -> httpx.AsyncClient:
    """An HTTP client of the server at `address`, a URL or `unix:PATH`; nothing is sent yet."""
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=socket),
        base_url="http://koguma" if socket else address,
        headers={"Authorization": f"Bearer {secret}"},
        timeout=httpx.Timeout(10.0),
        trust_env=False,
    )


class ServerLink:
    """All that goes between the boot service and the server."""

    def __init__(self, client: httpx.AsyncClient, inventory: Inventory, journal: Journal, poll_s: float = 2.0) -> None:
        self._client = client
        self._inventory = inventory
        self._journal = journal
        self._poll_s = poll_s
        self._wake_delivery = asyncio.Event()
        self._wake_poll = asyncio.Event()
        self._answers: bool | None = None
        self.on_snapshot: Callable[[], None] = lambda: None
        self.answered_at: float | None = None
        """Monotonic time of the server's last answer."""

    async def close(self) -> None:
        await self._client.aclose()

    async def register(self, document: dict[str, Any]) -> dict[str, Any]:
        """Hand a registration to the server and give its answer back. Raises BootError with the server's words."""
        try:
            response = await self._client.post("/boot/v1/registrations", json=document)
        except httpx.HTTPError as error:
            raise ServerUnavailable(f"the server must answer to register a machine: {error!r}") from error
        if response.status_code == 201:
            # The machine is about to power off and come back: its address must be reserved by then.
            self._wake_poll.set()
            answer: dict[str, Any] = response.json()
            return answer
        raise _refusal(response)

    def deliver_soon(self) -> None:
        """There is a new report."""
        self._wake_delivery.set()

    async def poll_forever(self) -> None:
        """Keep the inventory equal to the server's snapshot."""
        etag = ""
        while True:
            try:
                response = await self._client.get("/boot/v1/snapshot", headers={"If-None-Match": etag} if etag else {})
                self._heard(response.status_code < 500)
                if response.status_code == 200:
                    self._inventory.replace(response.json())
                    etag = response.headers.get("etag", "")
                    self.on_snapshot()
                elif response.status_code != 304:
                    log.warning("the server gives no snapshot", extra={"status": response.status_code})
            except (httpx.HTTPError, SnapshotError, ValueError, OSError) as error:
                self._heard(answers=False, error=error)
            await _wait(self._wake_poll, self._poll_s)

    async def deliver_forever(self) -> None:
        """Deliver the journal's reports, oldest first, each until the server has taken or refused it."""
        backoff_s = self._poll_s
        while True:
            reports = self._journal.pending(BATCH)
            if not reports:
                await _wait(self._wake_delivery, None)
                continue
            try:
                response = await self._client.post(
                    "/boot/v1/reports", json={"reports": [report.to_json() for report in reports]}
                )
                response.raise_for_status()
                answer = response.json()
                for report_id, reason in answer["refused"].items():
                    log.warning("the server refuses a report", extra={"report": report_id, "reason": reason})
                self._journal.delivered([*answer["accepted"], *answer["refused"]])
                backoff_s = self._poll_s
                if len(reports) < BATCH:
                    await asyncio.sleep(0.2)  # so that a boot storm's reports travel together
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self._heard(answers=False, error=error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 1.5, BACKOFF_MAX_S)

    def _heard(self, answers: bool, error: Exception | None = None) -> None:
        if answers:
            self.answered_at = time.monotonic()
        if answers != self._answers:
            self._answers = answers
            if answers:
                log.info("the server answers")
            else:
                log.warning(
                    "the server does not answer; booting goes on from the snapshot", extra={"error": repr(error)}
                )


def _refusal(response: httpx.Response) -> BootError:
    try:
        reason = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"the server answered {response.status_code}"
    if response.status_code == 409:
        return IdentityConflict(reason)
    if 400 <= response.status_code < 500 and response.status_code not in {401, 403}:
        return MalformedRequest(reason)
    return ServerUnavailable(f"the server could not register the machine: {reason}")


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Until the event or the time-out; the event is consumed."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
    event.clear()
