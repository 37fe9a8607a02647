"""`koguma server`: the API and the pages, on TCP for people and on a Unix socket for the boot service of the same
machine.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import typer

from koguma.config import Config
from koguma.services import database
from koguma.services.environment import ConfigOption, begin, prepare_django
from koguma.services.errors import ServiceError

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, help="Run the API server.")


@app.callback(invoke_without_command=True)
def server(config_path: ConfigOption = None) -> None:
    """Run the API server until SIGTERM."""
    config = begin("server", config_path)
    dsn = database.dsn_of(config)
    database.wait_until_it_answers(dsn)
    prepare_django(config, dsn)
    from koguma.db.migrate import migrate  # noqa: PLC0415 - needs Django set up

    migrate()
    serve(config)


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, finishing requests that are under way."""
    import uvicorn  # noqa: PLC0415 - after Django is set up, and only in this process

    from koguma.api.events import stop_streams  # noqa: PLC0415 - needs Django set up

    class Server(uvicorn.Server):
        """Ends the streams of events first: they would never end by themselves."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            stop_streams()
            await super().shutdown(sockets)

    sockets = [_tcp(config.api.listen), _unix(config.server_socket)]
    log.info("the API answers", extra={"address": f"http://{config.api.listen}", "socket": str(config.server_socket)})
    Server(
        uvicorn.Config(
            "koguma.api.asgi:application",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=10,
            # Clients that come back every few seconds keep their connection.
            timeout_keep_alive=75,
        )
    ).run(sockets=sockets)


def _tcp(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError as error:
        raise ServiceError(f"the API must be able to listen on {listen}: {error.strerror} (api.listen)") from error
    return listener


def _unix(path: Path) -> socket.socket:
    """A socket only this user can reach: whoever holds it still needs the boot key."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    return listener
