"""A boot service for one machine, in memory: the stage-1 API of ARCHITECTURE.md, and artifacts with faults on demand.

It answers what a test set and remembers what the machine said; it decides nothing. Listens on loopback, which a QEMU
machine with user-mode networking reaches as 10.0.2.2.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

UUID = "6f1c2b58-0c1e-4f0e-9d0a-5f6d1c9a7b11"
TOKEN = "0123456789abcdef0123456789abcdef.fedcba9876543210fedcba9876543210"
GATEWAY = "10.0.2.2"


class Fault:
    """What goes wrong with one artifact: a byte flipped, or the answer cut short (always, or the first times only)."""

    def __init__(self, *, flip_at: int | None = None, cut_at: int | None = None, times: int = 1_000_000) -> None:
        self.flip_at = flip_at
        self.cut_at = cut_at
        self.times = times


class BootServer:
    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.profile: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self.members: dict[str, Any] = {"members": [], "members_revision": ""}
        self.register_status = 201
        self.unavailable_times = 0
        """How many requests of the stage-1 API are answered 503 before the service is back."""
        self.faults: dict[str, Fault] = {}
        self.requests: list[tuple[float, str, dict[str, Any]]] = []
        """(monotonic time, name of the request, JSON body)"""
        self.ranges: list[str] = []
        self._changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"boot_server": self}))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """As the machine sees it."""
        return f"http://{GATEWAY}:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def note(self, name: str, body: dict[str, Any]) -> None:
        with self._changed:
            self.requests.append((time.monotonic(), name, body))
            self._changed.notify_all()

    def wait_for(self, what: Callable[[str, dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """The body of the first request that `what` accepts; fails when none comes in time."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for _, name, body in self.requests:
                    if what(name, body):
                        return body
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"nothing expected came within {timeout_s:g} s, only {self.spoken()}")
                self._changed.wait(left)

    def wait_for_phase(self, phase: str, state: str, timeout_s: float) -> dict[str, Any]:
        return self.wait_for(
            lambda name, body: name == "phase" and body.get("phase") == phase and body.get("state") == state, timeout_s
        )

    def spoken(self) -> list[str]:
        return [f"{body['phase']} {body['state']}" if name == "phase" else name for _, name, body in self.requests]


class Handler(BaseHTTPRequestHandler):
    boot_server: BootServer
    """Set by a subclass per self.boot_server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/artifacts/"):
            self._send_artifact(self.path.removeprefix("/artifacts/"))
            return
        answers = {
            "profile": self.boot_server.profile,
            "detail": self.boot_server.detail,
            "members": self.boot_server.members,
        }
        name = self._checked_name()
        if name is None:
            return
        self.boot_server.note(name, {})
        self._send_json(200, answers[name]) if name in answers else self._send_json(404, {"error": f"no {name}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self._checked_name()
        if name is None:
            return
        self.boot_server.note(name, json.loads(body))
        if name == "register":
            refused = {"error": "a serial belongs to one node, got one of node-7 (registry)"}
            accepted = {"name": "node-1", "uuid": UUID}
            self._send_json(
                self.boot_server.register_status, accepted if self.boot_server.register_status == 201 else refused
            )
        elif name == "heartbeat":
            self._send_json(200, {"members_revision": self.boot_server.members["members_revision"]})
        else:
            self.send_response(204)
            self.end_headers()

    def _checked_name(self) -> str | None:
        """The last part of a stage-1 API path, when the token is right and the service is there."""
        if self.boot_server.unavailable_times > 0:
            self.boot_server.unavailable_times -= 1
            self._send_json(503, {"error": "the server does not answer"})
            return None
        prefix, _, name = self.path.rpartition("/")
        if prefix != f"/ipxe/{UUID}" or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send_json(403, {"error": "the token must be this boot's"})
            return None
        return name

    def _send_json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_artifact(self, name: str) -> None:
        path = self.boot_server.artifacts / name
        if not path.is_file():
            self._send_json(404, {"error": f"no artifact {name}"})
            return
        data = bytearray(path.read_bytes())
        fault = self.boot_server.faults.get(path.name)
        start = 0
        if given := self.headers.get("Range"):
            self.boot_server.ranges.append(f"{path.name} {given}")
            start = int(given.removeprefix("bytes=").rstrip("-"))
        end = len(data)
        if fault is not None and fault.times > 0:
            fault.times -= 1
            if fault.flip_at is not None:
                data[fault.flip_at] ^= 1
            end = len(data) if fault.cut_at is None else max(start, fault.cut_at)
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        # The machine may have hung up, as it does when it reboots.
        with contextlib.suppress(OSError):
            self.wfile.write(memoryview(data)[start:end])
        self.close_connection = True
