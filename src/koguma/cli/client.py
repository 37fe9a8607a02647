"""The native API as the command line uses it. Standard library only, so that commands start fast."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import typer

from koguma import config as configuration
from koguma.errors import KogumaError

TIMEOUT_S = 30.0

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="KOGUMA_API",
        help="The API's URL, with name:password@ where it asks for one; otherwise the one of the configuration.",
    ),
]


class ApiError(KogumaError):
    """The API refused; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ApiAway(KogumaError):
    """Nothing answers where the API should be."""

    retry = True


class Client:
    """One API. Every method gives the answer's JSON, or raises ApiError or ApiAway."""

    def __init__(self, url: str | None) -> None:
        self.url = (url or _configured_url()).rstrip("/")
        if "://" not in self.url:
            self.url = f"http://{self.url}"
        self.url, self._access = _without_account(self.url)
        # No proxy: the API is on this machine or on the management network.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, *path: str, **query: str | int | None) -> Any:
        return self._send("GET", path, query=query)

    def get_all(self, *path: str, **query: str | int | None) -> list[Any]:
        """Every page of a list."""
        items: list[Any] = []
        after: str | None = None
        while True:
            page, link = self._request("GET", path, None, {**query, "after": after})
            items.extend(page)
            if 'rel="next"' not in link or not page:
                return items
            after = page[-1]["name"]

    def events(self, last: str | None, **query: str | None) -> Iterator[dict[str, Any]]:
        """Events as they happen, those after `last` first. Ends when the connection does."""
        words = urlencode({key: value for key, value in query.items() if value is not None})
        more = {"Last-Event-ID": last} if last else {}
        request = urllib.request.Request(  # noqa: S310 - the URL is the operator's own
            f"{self.url}/api/v1/events" + (f"?{words}" if words else ""),
            headers={"Accept": "text/event-stream", **more, **self._access},
        )
        try:
            with self._opener.open(request, timeout=2 * TIMEOUT_S) as response:
                for line in response:
                    if line.startswith(b"data: "):
                        yield json.loads(line[len(b"data: ") :])
        except urllib.error.HTTPError as error:
            raise ApiError(_reason(error), error.code) from None
        except (OSError, ValueError, HTTPException) as error:
            raise ApiAway(f"the API does not answer at {self.url} ({error})") from None

    def post(self, *path: str, body: Any) -> Any:
        return self._send("POST", path, body)

    def put(self, *path: str, body: Any) -> Any:
        return self._send("PUT", path, body)

    def patch(self, *path: str, body: Any) -> Any:
        return self._send("PATCH", path, body)

    def delete(self, *path: str, **query: str | int | None) -> None:
        self._send("DELETE", path, query=query)

    def _send(self, method: str, path: tuple[str, ...], body: Any = None, query: Any = None) -> Any:
        return self._request(method, path, body, query or {})[0]

    def _request(self, method: str, path: tuple[str, ...], body: Any, query: dict[str, Any]) -> tuple[Any, str]:
        """The JSON and the Link header."""
        words = {key: value for key, value in query.items() if value is not None}
        url = "/".join([f"{self.url}/api/v1", *(quote(part, safe="") for part in path)])
        request = urllib.request.Request(  # noqa: S310 - the URL is the operator's own
            url + (f"?{urlencode(words)}" if words else ""),
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                **({} if method == "GET" else {"If-Match": "*"}),
                **self._access,
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                text = response.read()
                return (json.loads(text) if text else None), response.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            raise ApiError(_reason(error), error.code) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ApiAway(
                f"the API does not answer at {self.url} ({reason}): start it with `koguma up`, or name it with --api"
            ) from None


def _without_account(url: str) -> tuple[str, dict[str, str]]:
    """The URL without the `name:password@` it may have, and the header that says the same."""
    parts = urlsplit(url)
    account, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    token = base64.b64encode(unquote(account).encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {token}"}


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the API answered {error.code} {error.reason}"


def _configured_url() -> str:
    listen = configuration.load(environ=os.environ).api.listen
    host, _, port = listen.rpartition(":")
    return f"http://{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - called, not listened on
