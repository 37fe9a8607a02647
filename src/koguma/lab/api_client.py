"""What the lab asks of Koguma's native API, and nothing more."""

from __future__ import annotations

from typing import Any

import httpx

from koguma.lab.errors import ApiError

TIMEOUT_S = 10


class ApiClient:
    """The API at one address. Every method raises ApiError when there is no answer or not the expected one."""

    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  called, not listened on
        self.url = f"http://{host}:{port}/api/v1"

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=3).status_code == 200
        except httpx.HTTPError:
            return False

    def nodes(self) -> list[dict[str, Any]]:
        return self._list("nodes")

    def node(self, reference: str) -> dict[str, Any]:
        """By name or UUID."""
        return _an_object(self._call("GET", f"nodes/{reference}"), f"{self.url}/nodes/{reference}")

    def boots(self, reference: str, limit: int = 5) -> list[dict[str, Any]]:
        """Boot records, newest first."""
        return self._list(f"nodes/{reference}/boots?limit={limit}")

    def networks(self) -> list[dict[str, Any]]:
        return self._list("networks")

    def flavors(self) -> list[dict[str, Any]]:
        return self._list("flavors")

    def switches(self) -> list[dict[str, Any]]:
        return self._list("switches")

    def create(self, noun: str, values: dict[str, Any]) -> None:
        """`noun` is `networks`, `switches` or `flavors`."""
        self._call("POST", noun, values)

    def change_node(self, reference: str, values: dict[str, Any]) -> None:
        self._call("PATCH", f"nodes/{reference}", values)

    def _list(self, path: str) -> list[dict[str, Any]]:
        items = self._call("GET", path)
        if not isinstance(items, list):
            raise ApiError(f"the API must answer a JSON array, got {str(items)[:200]} ({self.url}/{path})")
        return [_an_object(item, f"{self.url}/{path}") for item in items]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        url = f"{self.url}/{path}"
        try:
            answer = httpx.request(method, url, json=body, timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            raise ApiError(f"the API does not answer: {error} ({url})") from error
        if not answer.is_success:
            raise ApiError(f"the API answered {answer.status_code}: {answer.text[:300]} ({method} {url})")
        try:
            return answer.json()
        except ValueError:
            raise ApiError(f"the API must answer JSON, got {answer.text[:200]!r} ({url})") from None


def _an_object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(f"the API must answer JSON objects, got {str(value)[:200]} ({place})")
    return value
