"""How requests travel to a cloud's services: as openstacksdk's clouds.yaml says, over at the deadline, with failures in
our words. Bodies of answers are never logged: an attachment's holds a CHAP secret.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import requests
import yaml
from keystoneauth1 import exceptions as auth
from openstack import exceptions as sdk
from openstack.connection import Connection

from koguma.contracts.errors import VolumeError, VolumeRefused, VolumeUnreachable

Service = Literal["block_storage", "image"]

MICROVERSION = "3.44"
"""Of Cinder's API, of Queens (2018): the first in which an attachment is completed."""
LENIENT_MICROVERSION = "3.27"
"""From 3.31 on Cinder refuses a filter that its administrator did not allow; before, it answers without it."""
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 3.0
_BUSY = frozenset({408, 413, 425, 429})
"""Worth a retry, as all from 500 on are. 413 is how Cinder and Glance say that a quota is used up."""
_AWAY = (auth.ConnectionError, auth.DiscoveryFailure, sdk.NotSupported, requests.RequestException, OSError)
"""A service that does not answer when it is asked for its versions is said to have none."""
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    """Decoded JSON; None where there is none."""


class Cloud:
    """One cloud of clouds.yaml. It is connected to when it is first asked; used by one thread at a time."""

    def __init__(self, name: str) -> None:
        self.place = f"cloud {name}"
        self._name = name
        self._connection: Connection | None = None

    def project(self, deadline: float) -> str:
        """The id of the project that volumes and images belong to."""
        connection = self._connected(deadline)
        try:
            return str(connection.session.get_project_id())
        except (*_AWAY, auth.ClientException, sdk.SDKException) as error:
            raise self._failure("identity", error) from None

    def ask(
        self,
        service: Service,
        method: str,
        path: str,
        deadline: float,
        *,
        body: Any = None,
        content: Any = None,
        query: Mapping[str, str] | None = None,
        microversion: str = MICROVERSION,
        expected: Collection[int] = (200,),
        busy: Collection[int] = (),
    ) -> Answer:
        """One request and its answer, whose status is one of those expected. `body` is sent as JSON, `content` as it
        is. Statuses of `busy` are worth a retry here, beside those that always are.
        """
        kwargs: dict[str, Any] = {"json": body} if body is not None else {}
        if content is not None:
            kwargs = {"data": content, "headers": {"Content-Type": "application/octet-stream"}}
        if service == "block_storage":
            kwargs["microversion"] = microversion
        connection = self._connected(deadline)
        try:
            proxy = getattr(connection, service)
            response = proxy.request(
                path, method, params=query, raise_exc=False, log=False, redirect=False,
                connect_retries=0, status_code_retries=0, **kwargs,
            )  # fmt: skip
        except (*_AWAY, auth.ClientException, sdk.SDKException) as error:
            raise self._failure(f"{method} {path}", error) from None
        if response.status_code not in expected:
            said = f"{method} {path} was answered with {response.status_code}: {_message(response)} ({self.place})"
            raise _kind(response.status_code, busy)(said)
        try:
            return Answer(response.status_code, response.json() if response.content else None)
        except ValueError:
            return Answer(response.status_code, None)

    def _connected(self, deadline: float) -> Connection:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise VolumeUnreachable(f"the storage must answer in time ({self.place})")
        if self._connection is None:
            try:
                self._connection = Connection(cloud=self._name, app_name="koguma", strict_proxies=True)
            except (sdk.SDKException, auth.ClientException, OSError, yaml.YAMLError) as error:
                rule = "a cloud must be described in clouds.yaml"
                raise VolumeRefused(f"{rule}: {_printable(str(error))} ({self.place})") from None
        self._connection.session.timeout = left_s  # of its requests for tokens and versions, too
        return self._connection

    def _failure(self, what: str, error: Exception) -> VolumeError:
        if isinstance(error, _AWAY):
            return VolumeUnreachable(f"the storage must answer {what}: {_printable(str(error))} ({self.place})")
        status = getattr(error, "http_status", None) or getattr(error, "status_code", None)
        kind = _kind(status if isinstance(status, int) else 400, ())
        return kind(f"the cloud must take {what}: {_printable(str(error))} ({self.place})")


def pauses(deadline: float) -> Iterator[None]:
    """Waits a moment longer each time; ends before the deadline."""
    pause_s = PAUSE_FIRST_S
    while True:
        yield
        left_s = deadline - time.monotonic()
        if left_s <= pause_s:
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, PAUSE_MAX_S)


def part(answer: Any, key: str, kind: type, place: str) -> Any:
    """This member of an answer. Raises VolumeRefused when it has another form, without showing what it is."""
    value = answer.get(key) if isinstance(answer, Mapping) else None
    if not isinstance(value, kind):
        raise VolumeRefused(f"an answer must have {key!r} of type {kind.__name__} ({place})")
    return value


def identity(answer: Any, place: str) -> str:
    """Its id, which becomes part of paths."""
    value: str = part(answer, "id", str, place)
    if not _ID.fullmatch(value):
        raise VolumeRefused(f"an id must be a UUID, got {value[:80]!r} ({place})")
    return value


def _kind(status: int, busy: Collection[int]) -> type[VolumeError]:
    return VolumeUnreachable if status >= 500 or status in _BUSY or status in busy else VolumeRefused


def _message(response: requests.Response) -> str:
    """Cinder and Keystone say `{KIND: {"message": TEXT}}`, Glance a page of HTML."""
    try:
        body = response.json()
        fault = next(iter(body.values()))
        return _printable(str(fault["message"]))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
        text = re.sub(r"(?s)<title>.*?</title>|<h1>.*?</h1>|<[^>]*>", " ", response.text[:2000])
        return _printable(text) or "it said nothing"


def _printable(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:300]
