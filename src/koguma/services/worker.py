"""`koguma worker`: moves nodes through their provision states. Start as many as the fleet needs."""

from __future__ import annotations

import os

import typer

from koguma.services import database
from koguma.services.environment import ConfigOption, begin, prepare_django

app = typer.Typer(add_completion=False, help="Run a worker: power, provisioning, the boot snapshot.")


@app.callback(invoke_without_command=True)
def worker(config_path: ConfigOption = None) -> None:
    """Run a worker until SIGTERM; what it had begun is resumed by the next one."""
    config = begin("worker", config_path)
    dsn = database.dsn_of(config)
    database.wait_until_it_answers(dsn)
    # A thread that waits for a BMC keeps its node claimed, and a claim is a connection (`koguma.db.dispatch`).
    os.environ.setdefault("KOGUMA_DB_CONNECTIONS", str(config.worker.concurrency + 80))
    prepare_django(config, dsn)
    from koguma.db.jobs import run_worker  # noqa: PLC0415 - needs Django set up
    from koguma.db.migrate import migrate  # noqa: PLC0415

    migrate()
    run_worker(config.worker.concurrency)
