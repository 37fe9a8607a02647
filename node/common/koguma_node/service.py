"""The stage-1 API of the boot service, as this boot of this machine speaks it.

5xx and no answer are tried again with growing pauses until the caller's deadline; 4xx is the service's last word.
"""

from __future__ import annotations

import json
import time
from typing import Any

from koguma_node import transport
from koguma_node.console import say, uptime_s
from koguma_node.errors import NodeError, RefusedError

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""`detail` names every member of the fleet; 20,000 of them are about 2 MB."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 5.0)
REPORT_TIMEOUT_S = 10.0


class Service:
    def __init__(self, url: str, uuid: str, token: str) -> None:
        self._base = f"{url}/ipxe/{uuid}"
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, name: str, deadline: float) -> dict[str, Any]:
        """The JSON answer to GET NAME. Raises RefusedError for 4xx, NodeError when the deadline (monotonic) passes."""
        return self._ask("GET", name, None, deadline)

    def post(self, name: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        return self._ask("POST", name, json.dumps(body).encode(), deadline)

    def report(self, phase: str, state: str, reason: str | None = None, data: dict[str, Any] | None = None) -> None:
        """Tell a phase. A report that cannot be delivered is said on the console and stops nothing."""
        body = {"phase": phase, "state": state, "uptime_s": uptime_s(), "reason": reason, "data": data or {}}
        try:
            self.post("phase", body, time.monotonic() + REPORT_TIMEOUT_S)
        except NodeError as error:
            say(f"the report {phase} {state} was not delivered: {error}")

    def _ask(self, method: str, name: str, body: bytes | None, deadline: float) -> dict[str, Any]:
        url = f"{self._base}/{name}"
        for attempt in range(10_000):
            try:
                status, answer = self._once(method, url, body, deadline)
            except transport.TransportError as error:
                problem = str(error)
            else:
                if 200 <= status < 300:
                    return _json_object(answer, url) if answer else {}
                if 400 <= status < 500:
                    raise RefusedError(f"{_reason(answer)} (HTTP {status}, {url})", status)
                problem = f"HTTP {status} ({url})"
            pause_s = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            if time.monotonic() + pause_s >= deadline:
                break
            say(f"{method} {name}: {problem}; trying again")
            time.sleep(pause_s)
        raise NodeError(f"the boot service must answer in time: {problem}")

    def _once(self, method: str, url: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        timeout_s = max(0.1, min(10.0, deadline - time.monotonic()))
        response = transport.request(method, url, self._headers, body, timeout_s)
        try:
            return response.status, response.read_all(ANSWER_BYTES_MAX)
        finally:
            response.close()


def _json_object(answer: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise NodeError(f"an answer must be JSON: {error} ({url})") from error
    if not isinstance(value, dict):
        raise NodeError(f"an answer must be a JSON object, got {type(value).__name__} ({url})")
    return value


def _reason(answer: bytes) -> str:
    try:
        reason = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        reason = answer[:200].decode("utf-8", "replace")
    return str(reason)
