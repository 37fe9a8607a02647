"""HTTP as a booting machine speaks it: one request per connection, HTTP/1.0, so that a body ends where its length or
the connection ends and never comes in chunks.

It exists because `http.client` brings email and ssl with it, a third of a second of every boot under emulation.
It retries nothing; `service` and `download` decide about that.
"""

from __future__ import annotations

import socket

HEAD_BYTES_MAX = 32 * 1024


class TransportError(Exception):
    """No usable answer came; the same request may succeed later."""


class Response:
    """An answer's status and headers; the body is read with `read_into` or `read_all`."""

    def __init__(self, connection: socket.socket, status: int, headers: dict[str, str], first: bytes) -> None:
        self.status = status
        self.headers = headers
        self.partial = 0
        self._connection = connection
        self._first = first

    @property
    def length_bytes(self) -> int | None:
        value = self.headers.get("content-length", "")
        return int(value) if value.isdigit() else None

    def read_into(self, buffer: memoryview) -> int:
        """Bytes put into buffer; 0 when the connection ended. Raises TransportError when it broke."""
        if self._first:
            count = min(len(self._first), len(buffer))
            buffer[:count] = self._first[:count]
            self._first = self._first[count:]
            return count
        try:
            return self._connection.recv_into(buffer)
        except OSError as error:
            raise TransportError(f"the connection broke: {error}") from error

    def fill(self, buffer: memoryview) -> int:
        """Bytes put into buffer: all it holds, or fewer at the end. Raises TransportError, after which nothing is lost:
        what had come is in `partial`."""
        self.partial = 0
        while self.partial < len(buffer):
            count = self.read_into(buffer[self.partial :])
            if not count:
                break
            self.partial += count
        return self.partial

    def read_all(self, size_bytes_max: int) -> bytes:
        wanted = self.length_bytes
        body = bytearray()
        buffer = memoryview(bytearray(64 * 1024))
        while wanted is None or len(body) < wanted:
            count = self.read_into(buffer)
            if not count:
                break
            body += buffer[:count]
            if len(body) > size_bytes_max:
                raise TransportError(f"an answer may have {size_bytes_max} bytes at most")
        if wanted is not None and len(body) < wanted:
            raise TransportError(f"the answer must have {wanted} bytes, got {len(body)}")
        return bytes(body)

    def close(self) -> None:
        self._connection.close()


def split_url(url: str) -> tuple[str, int, str]:
    """(host, port, path) of an http:// URL."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = authority.partition(":")
    if scheme != "http" or not host or (port and not port.isdigit()):
        raise TransportError(f"a URL must be http://HOST[:PORT]/PATH, got {url!r}")
    if any(ord(character) <= 0x20 for character in path):
        raise TransportError(f"a URL may not contain spaces or control characters, got {url!r}")
    return host, int(port or 80), slash + path or "/"


def request(method: str, url: str, headers: dict[str, str], body: bytes | None, timeout_s: float) -> Response:
    """Send one request and read the head of its answer. Raises TransportError."""
    host, port, path = split_url(url)
    lines = [
        f"{method} {path} HTTP/1.0",
        f"Host: {host}:{port}",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    message = "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise TransportError(f"cannot connect: {error} ({url})") from error
    try:
        connection.sendall(message)
        return _read_head(connection, url)
    except OSError as error:
        connection.close()
        raise TransportError(f"no answer: {error} ({url})") from error
    except TransportError:
        connection.close()
        raise


def _read_head(connection: socket.socket, url: str) -> Response:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(64 * 1024)
        if not data or len(received) > HEAD_BYTES_MAX:
            raise TransportError(f"no HTTP answer came ({url})")
        received += data
    head, _, first = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
        raise TransportError(f"an answer must start with an HTTP status line, got {status_line[:80]!r} ({url})")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Response(connection, int(parts[1]), headers, first)
