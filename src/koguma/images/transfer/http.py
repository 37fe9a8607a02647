"""Blobs of a repository that `koguma image serve` offers, over HTTP or HTTPS; read only.

A client that trusts nothing it is told: no redirects, bodies of the announced length only, ranges exactly as asked for,
STALL_S for the whole head of an answer, a body no slower than RATE_MIN_BYTES_PER_S. The bearer token is in a header and
in no message. Other requests of the server's (sending packs, moving refs) go through `request`.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
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
_SENT_BYTES = 64 * 1024
"""A socket's time is for all that is sent at once: a slow line takes so much in it."""
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
            allow(response, self._stall_s)
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
            if isinstance(body, bytes):
                sent["Content-Length"] = str(len(body))
            connection.request(method, self._base + path, body=None if body is None else _small(body), headers=sent)
            response = connection.getresponse()
            allow(response, self._stall_s)
            yield response
            if response.length == 0:
                response.read(0)  # only this tells it that it was read to its end
            if response.isclosed() and not response.will_close:
                connection.sock.settimeout(self._stall_s)
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
        waited, got = 0.0, 0
        while got < length:
            started = time.monotonic()
            try:
                allow(response, self._stall_s + got / RATE_MIN_BYTES_PER_S - waited)
                piece = response.read1(min(CHUNK_BYTES, length - got))
            except TimeoutError:
                waited += time.monotonic() - started
                raise BackendUnreachable(
                    f"a remote must send {RATE_MIN_BYTES_PER_S} bytes a second or more, got {got} bytes "
                    f"in {waited:.0f} s ({name}, {self.place})"
                ) from None
            if not piece:
                return
            waited += time.monotonic() - started
            got += len(piece)
            yield piece

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
        data = b"".join(self._pieces(response, _SHOWN_BYTES * 4, "an error"))
        try:
            text = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            text = response.reason or "no reason given"
        return "".join(char if char.isprintable() else "?" for char in text)[:_SHOWN_BYTES]

    def _connection(self) -> HTTPConnection:
        with self._guard:
            if self._idle:
                return self._idle.pop()
        connection: HTTPConnection
        if self._https:
            context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
            connection = HTTPSConnection(self._host, self._port, timeout=self._stall_s, context=context)
        else:
            connection = HTTPConnection(self._host, self._port, timeout=self._stall_s)
        connection.response_class = _Answer
        return connection


class _Answer(HTTPResponse):
    """An answer of which every byte must come in time: heads, chunk sizes and trailers would be read without end.

    Its head has the time that the socket has.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.timed = _Timed(sock, self.fp.detach())
        self.fp = io.BufferedReader(self.timed)


class _Timed(io.RawIOBase):
    """What a socket receives, until a moment that `allow` sets."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._socket = sock
        self._raw = raw
        self.deadline = time.monotonic() + (sock.gettimeout() or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def allow(response: HTTPResponse, seconds: float) -> None:
    """What is read of an answer from now on has to come within so many seconds, all of it."""
    assert isinstance(response, _Answer)  # noqa: S101 - for the type checker; connections make no other
    response.timed.deadline = time.monotonic() + seconds


def _small(body: bytes | Iterable[bytes]) -> Iterator[bytes | memoryview]:
    for piece in [body] if isinstance(body, bytes) else body:
        view = memoryview(piece)
        for at in range(0, len(view), _SENT_BYTES):
            yield view[at : at + _SENT_BYTES]


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
