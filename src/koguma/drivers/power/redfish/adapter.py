"""How requests travel to a BMC: to this one only, with answers of bounded size, and over at the deadline whatever the
BMC does. A time-out of a socket passes only between two bytes, so a timer cuts the connection itself.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from koguma.drivers.power.redfish.address import Place

ANSWER_BYTES_MAX = 8 << 20
CHUNK_BYTES = 64 << 10


class Adapter(HTTPAdapter):
    """`left_s` tells what remains of the conversation's time."""

    def __init__(self, place: Place, left_s: Callable[[], float]) -> None:
        self._place = place
        self._remaining_s = left_s
        self._cuttable: list[socket.socket] = []
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._place.fingerprint:
            kwargs["assert_fingerprint"] = self._place.fingerprint
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": self._cut_at_deadline(HTTPConnection)}),
            "https": type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": self._cut_at_deadline(HTTPSConnection)}),
        }

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        del stream, timeout, proxies  # the whole answer is read here, in the time that is left, from the BMC itself
        if not (request.url or "").startswith(f"{self._place.url}/"):
            raise requests.exceptions.InvalidURL("a BMC may send us only to itself")
        with self._deadline():
            response = super().send(request, True, self._left_s(), verify, cert, None)
            response._content = self._body(response)
        # sushy asks for the connection to be closed; a BMC that closes without saying so must not be asked through it.
        self.poolmanager.clear()
        return response

    def _body(self, response: requests.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                raise requests.exceptions.ContentDecodingError(
                    f"an answer may have {ANSWER_BYTES_MAX} bytes, this one has more"
                )
            self._left_s()
        return bytes(body)

    def _left_s(self) -> float:
        left_s = self._remaining_s()
        if left_s <= 0:
            raise requests.exceptions.ReadTimeout("the deadline passed")
        return left_s

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = threading.Timer(self._left_s(), self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except requests.exceptions.RequestException:
            self._left_s()  # a connection that was cut reports a time-out, not what the cut looked like
            raise
        finally:
            timer.cancel()
            while self._cuttable:
                self._cuttable.pop().close()

    def _cut(self) -> None:
        for connection in list(self._cuttable):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _cut_at_deadline(self, base: type[HTTPConnection]) -> type[HTTPConnection]:
        """Connections that can be cut from their first moment on, TLS handshake included."""
        cuttable = self._cuttable

        def new_connection(connection: HTTPConnection) -> socket.socket:
            made = base._new_conn(connection)
            cuttable.append(made.dup())  # TLS takes the socket over; its duplicate is the same connection
            return made

        return type("Connection", (base,), {"_new_conn": new_connection})
