"""Requests, answers and refusals of the Ironic API, without any framework around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from koguma.api.ironic.identity import ANYBODY, Identity
from koguma.errors import KogumaError


class Refused(KogumaError):
    """The request is refused with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def bad(message: str) -> NoReturn:
    raise Refused(400, message)


def missing(message: str) -> NoReturn:
    raise Refused(404, message)


def conflict(message: str) -> NoReturn:
    raise Refused(409, message)


def not_acceptable(message: str = "Request not acceptable.") -> NoReturn:
    raise Refused(406, message)


@dataclass
class Request:
    """One request. `minor` is the microversion's second number, `query` has the last value of each argument."""

    method: str
    path: str
    url: str
    """Scheme, host and port as the client sees them: links begin with it."""
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    minor: int = 1
    identity: Identity = ANYBODY
    parsed: Any = None
    """The body, where something looked at it already."""

    def json(self) -> Any:
        """Raises Refused."""
        if self.parsed is not None:
            return self.parsed
        try:
            return json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError) as error:
            bad(f"a body must be JSON: {error}")

    def document(self) -> dict[str, Any]:
        """The body as an object. Raises Refused."""
        document = self.json()
        if not isinstance(document, dict):
            bad(f"a body must be an object, got {type(document).__name__}")
        return document

    def only(self, *known: str) -> None:
        """Refuse query arguments that nobody looks at: a typing error must not be ignored."""
        if unknown := [name for name in self.query if name not in known]:
            bad(f"Unexpected arguments: {', '.join(sorted(unknown))}")

    def at_least(self, minor: int) -> None:
        """The path exists from this microversion on."""
        if self.minor < minor:
            missing(f"API version 1.{minor} or newer is required")

    def flag(self, name: str) -> bool | None:
        return None if name not in self.query else truth(self.query[name], name)


@dataclass(frozen=True)
class Response:
    status: int = 200
    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.status == 204 or (self.document is None and self.status == 202):
            return b""
        return json.dumps(self.document, separators=(",", ":")).encode()


NO_CONTENT = Response(204)
ACCEPTED = Response(202)

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def truth(value: Any, name: str) -> bool:
    """A boolean, or one of the words people write for it. Raises Refused."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    bad(f"{name} must be true or false, got {value!r}")


def links(request: Request, resource: str, name: str) -> list[dict[str, str]]:
    return [
        {"href": f"{request.url}/v1/{resource}/{name}", "rel": "self"},
        {"href": f"{request.url}/{resource}/{name}", "rel": "bookmark"},
    ]


def error_body(message: str, *, server: bool = False) -> dict[str, str]:
    """Ironic's: the text of a JSON object inside of one."""
    fault = {"faultcode": "Server" if server else "Client", "faultstring": message, "debuginfo": None}
    return {"error_message": json.dumps(fault)}
