"""Runs the server of `koguma image serve`: sockets, TLS, signals, and the labels that follow a push."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from koguma.images.errors import ImageError
from koguma.images.repository import Repository
from koguma.images.transfer.errors import RemoteError
from koguma.images.transfer.server import Access, Served, read_tokens

log = logging.getLogger(__name__)


def serve(
    repository: Repository,
    listen: str,
    *,
    ready: Callable[[str], None],
    say: Callable[[str], None],
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    allow_push: bool = False,
    token_file: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the address once it is listened on.

    Beyond this machine, tokens and TLS are demanded: a repository holds every file of every root, `/etc/shadow` too.
    """
    host, port = _address(listen)
    if (tls_cert is None) != (tls_key is None):
        raise RemoteError("TLS needs both --tls-cert and --tls-key, got one")
    if not _is_loopback(host):
        if token_file is None:
            raise RemoteError(f"a server beyond this machine must be given tokens by --token-file, got {listen!r}")
        if tls_cert is None:
            say(f"tokens and images pass {listen} unencrypted; --tls-cert and --tls-key protect them")
    access = Access(read_tokens(token_file) if token_file else (), allow_push)
    labels = _Labels(repository.path)
    try:
        settings = uvicorn.Config(
            Served(repository, access, labels.later).application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        settings.load()
    except OSError as error:
        raise RemoteError(f"a certificate and its key must be readable PEM: {error} ({tls_cert}, {tls_key})") from None
    with _listener(host, port) as listener:
        scheme = "https" if tls_cert else "http"
        bound = listener.getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        ready(f"{scheme}://{shown}:{bound[1]}")
        uvicorn.Server(settings).run([listener])
    labels.wait()


class _Labels:
    """Makes labels after pushes, one run at a time; a push during a run starts another one after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._again = False
        self._thread: threading.Thread | None = None

    def later(self) -> None:
        with self._guard:
            self._again = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="labels")
                self._thread.start()

    def wait(self) -> None:
        with self._guard:
            thread = self._thread
        if thread:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._guard:
                if not self._again:
                    self._thread = None
                    return
                self._again = False
            try:
                with Repository.open(self._path) as repository:
                    repository.update_labels()
            except ImageError as error:
                log.warning("labels must follow a push: %s", error)  # the next update of labels makes them
            except Exception:  # this thread must live on, or no label would be made until the next start
                log.exception("labels must follow a push")


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise RemoteError(f"an address to listen on is ADDRESS:PORT, got {listen!r}")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise RemoteError(f"a server must be able to listen on {host}:{port}: {error.strerror}") from None
    return listener
