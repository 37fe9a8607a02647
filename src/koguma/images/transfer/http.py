"""Blobs of a repository that `koguma image serve` offers, over HTTP or HTTPS; read only.

A client that trusts nothing it is told: no redirects, bodies of the announced length only, ranges exactly as asked for,
silence for at most STALL_S. The bearer token is in a header and in no message. Other requests of the server's (sending
packs, moving refs) go through `request`.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from koguma.contracts.errors import BackendRefused, BackendUnreachable, BlobMissing, ObjectBackendError
from koguma.contracts.objects import CHUNK_BYTES, Blob, Versioned, check_size
from koguma.images.transfer.limits import LISTING_BYTES_MAX, RATE_MIN_BYTES_PER_S, STALL_S

_BLOB_NAME = re.compile(r"[A-Za-z0-9_%+-][A-Za-z0-9._%+/-]{0,400}")
_SHOWN_BYTES = 300
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class HttpObjects:
    """One served repository: `http://host:port/path`. Keeps connections; safe to use from several threads."""

    def __init__(self, url: str, token: str | None = None, *, stall_s: float = STALL_S) -> None:
        parts = urlsplit(url)
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self._token = token
        self._stall_s = stall_s
        self._idle: list[HTTPConnection] = []
        self._guard = threading.Lock()

    def list(self, prefix: str) -> Iterator[Blob]:
        found = self.json("GET", f"/v1/list?prefix={quote(prefix)}")
        if not isinstance(found, list):
            raise ObjectBackendError(f"a listing must be a list, got {str(found)[:80]!r} ({self.place})")
        for item in found:
            if not (
                isinstance(item, list)
                and len(item) == 2
                and isinstance(item[0], str)
                and type(item[1]) is int
                and _BLOB_NAME.fullmatch(item[0])
                and item[0].startswith(prefix)
                and "/." not in item[0]
            ):
                raise ObjectBackendError(
                    f"a listing must have names and sizes, got {str(item)[:80]!r} ({prefix}, {self.place})"
                )
            yield Blob(item[0], item[1])

    def get(self, name: str, *, bytes_max: int) -> Versioned:
        data = self._whole("GET", "/" + quote(name, safe="/"), name, bytes_max)
        return Versioned(data, sha256(data).hexdigest())

    def read_range(self, name: str, offset: int, length: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        with self.request("GET", "/" + quote(name, safe="/"), headers=headers) as response:
            self.require(response, (206,), name)
            said = response.getheader("Content-Range", "")
            if not said.startswith(f"bytes {offset}-{offset + length - 1}/"):
                raise ObjectBackendError(
                    f"a range must be the one asked for, bytes {offset}-{offset + length - 1}, got {said[:80]!r} "
                    f"({name}, {self.place})"
                )
            got = 0
            for piece in self._pieces(response, length, name):
                got += len(piece)
                yield piece
            if got < length:
                raise BackendUnreachable(
                    f"a range must have the {length} bytes asked for, it broke off after {got} ({name}, {self.place})"
                )
            if response.read(1):
                raise ObjectBackendError(f"a range must end where it was asked to, {name} goes on ({self.place})")

    def close(self) -> None:
        with self._guard:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def json(self, method: str, path: str, document: object = None, *, bytes_max: int = LISTING_BYTES_MAX) -> Any:
        """The JSON answer to a request with a JSON body."""
        body = None if document is None else json.dumps(document).encode()
        data = self._whole(method, path, path, bytes_max, body, {"Content-Type": "application/json"} if body else {})
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ObjectBackendError(f"the answer must be JSON: {error} ({path}, {self.place})") from None

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        """One request; the connection is kept when its answer was read to the end.

        What a kept connection that the server closed meanwhile fails with is worth a retry, as all silence is.
        """
        connection = self._connection()
        try:
            sent = {"Accept-Encoding": "identity", "User-Agent": "koguma", **(headers or {})}
            if self._token:
                sent["Authorization"] = f"Bearer {self._token}"
            connection.request(method, self._base + path, body=body, headers=sent)
            response = connection.getresponse()
            yield response
            if response.isclosed() and not response.will_close:
                with self._guard:
                    self._idle.append(connection)
                return
            connection.close()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise BackendRefused(
                f"a server's certificate must be trusted: {error.verify_message}; SSL_CERT_FILE names further ones "
                f"({self.place})"
            ) from None
        except (OSError, HTTPException) as error:
            connection.close()
            raise BackendUnreachable(f"a remote must answer: {_words(error)} ({self.place})") from None
        except BaseException:
            connection.close()
            raise

    def _whole(
        self,
        method: str,
        path: str,
        name: str,
        bytes_max: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        with self.request(method, path, body=body, headers=headers) as response:
            self.require(response, (200, 201), name)
            announced = response.length
            if announced is not None:
                check_size(name, announced, bytes_max, self.place)
            data = b"".join(self._pieces(response, bytes_max + 1 if announced is None else announced, name))
            check_size(name, len(data), bytes_max, self.place)
            if announced is not None and len(data) != announced:
                raise BackendUnreachable(
                    f"an answer must have the {announced} bytes it announced, got {len(data)} ({name}, {self.place})"
                )
            return data

    def _pieces(self, response: HTTPResponse, length: int, name: str) -> Iterator[bytes]:
        """A body as it arrives, at most `length` bytes of it. One that only drips is cut as silence is."""
        started, got = time.monotonic(), 0
        while got < length and (piece := response.read1(min(CHUNK_BYTES, length - got))):
            got += len(piece)
            yield piece
            if time.monotonic() - started > self._stall_s + got / RATE_MIN_BYTES_PER_S:
                raise BackendUnreachable(
                    f"a remote must send {RATE_MIN_BYTES_PER_S} bytes a second or more, got {got} bytes "
                    f"in {time.monotonic() - started:.0f} s ({name}, {self.place})"
                )

    def require(self, response: HTTPResponse, expected: tuple[int, ...], name: str) -> None:
        if response.status in expected:
            return
        if response.status == 404:
            raise BlobMissing(f"a blob must be there to be read, there is no {name!r} ({self.place})")
        said = self.error_text(response)
        if response.status in (401, 403):
            raise BackendRefused(f"a remote must accept the token: {said} ({name}, {self.place})")
        kind = BackendUnreachable if response.status in _BUSY else BackendRefused
        raise kind(f"a remote must answer {expected[0]}, got {response.status}: {said} ({name}, {self.place})")

    def error_text(self, response: HTTPResponse) -> str:
        """What the server says went wrong, in printable characters."""
        data = response.read(_SHOWN_BYTES * 4)
        try:
            text = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            text = response.reason or "no reason given"
        return "".join(char if char.isprintable() else "?" for char in text)[:_SHOWN_BYTES]

    def _connection(self) -> HTTPConnection:
        with self._guard:
            if self._idle:
                return self._idle.pop()
        if self._https:
            context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
            return HTTPSConnection(self._host, self._port, timeout=self._stall_s, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._stall_s)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
