"""Other sites for tests of transfers: a served repository, an S3-compatible store, and an odd HTTP server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvicorn

from koguma.images.repository import Repository
from koguma.images.transfer.retrying import Backoff
from koguma.images.transfer.server import Access, Served

AT_ONCE = Backoff(attempts_max=4, first_s=0, sleep=lambda _: None)


@contextmanager
def served(path: Path, access: Access | None = None) -> Iterator[str]:
    """A repository as `koguma image serve` offers it; gives its address."""
    repository = Repository.open(path)
    application = Served(repository, access or Access(allow_push=True), lambda: None).application()
    settings = uvicorn.Config(application, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        repository.close()


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """moto's S3 in a process of its own; gives its address. Credentials for it are put into the environment."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=output, stderr=output
        )
    try:
        url = _announced(process, log)
        os.environ.update(AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        yield url
    finally:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(name, None)
        process.terminate()
        process.wait(timeout=20)


def make_bucket(url: str, name: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=30):
        pass


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for word in log.read_text(errors="replace").split():
            if word.startswith("http://127.0.0.1:"):
                return word
        time.sleep(0.1)
    raise AssertionError(f"moto must start, it said: {log.read_text(errors='replace')[-500:]}")


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def odd_server(answer: Answer) -> Iterator[str]:
    """An HTTP server that answers GET as a test wants."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
