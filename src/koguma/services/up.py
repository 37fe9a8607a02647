"""`koguma up`: everything on one machine: an embedded PostgreSQL where none is configured, the server, a worker, the
boot service.

A supervisor, nothing more: it starts the processes, starts them again when they end, and stops them in order. They
die with it, also when it is killed, so that a new `koguma up` never meets an old one's server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from koguma.config import Config
from koguma.services.environment import ConfigOption, begin
from koguma.services.errors import ServiceError

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, help="Run everything on this machine, database included.")

STOP_TIMEOUT_S = 20.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
HEALTHY_AFTER_S = 30.0
"""A process that ran this long had started well: its next end is a new fault."""


@app.callback(invoke_without_command=True)
def up(
    config_path: ConfigOption = None,
    state: Annotated[Path | None, typer.Option(help="The state directory (state_dir).")] = None,
    api: Annotated[str | None, typer.Option(help="Where the API listens, HOST:PORT (api.listen).")] = None,
    auth: Annotated[str | None, typer.Option(help="none, http_basic or keystone (api.auth).")] = None,
    users: Annotated[Path | None, typer.Option(help="The user file of http_basic (api.users).")] = None,
    boot: Annotated[bool, typer.Option(help="Run the boot service.")] = True,
) -> None:
    """Run everything until SIGTERM or Ctrl-C."""
    if state is not None:
        os.environ["KOGUMA_STATE_DIR"] = str(state.absolute())
    if api is not None:
        os.environ["KOGUMA_API_LISTEN"] = api
    if auth is not None:
        os.environ["KOGUMA_API_AUTH"] = auth
    if users is not None:
        os.environ["KOGUMA_API_USERS"] = str(users.absolute())
    if config_path is not None:
        os.environ["KOGUMA_CONFIG"] = str(config_path.absolute())
    config = begin("up", config_path)
    with _only_one(config.run_dir / "up.lock"):
        asyncio.run(_supervise(config, with_boot=boot))


@dataclass(frozen=True)
class Child:
    """A process of Koguma's own and the network namespace it runs in."""

    name: str
    namespace: str = ""
    stop_signal: signal.Signals = signal.SIGTERM

    def command(self) -> list[str]:
        enter = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [
            "setpriv",
            "--pdeathsig",
            self.stop_signal.name[3:],
            "--",
            *enter,
            sys.executable,
            "-m",
            "koguma",
            self.name,
        ]


async def _supervise(config: Config, *, with_boot: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(_keep_running(child)) for child in children(config, with_boot=with_boot)]
    await stop.wait()
    log.info("stopping")
    # In reverse, one after the other: what uses the database ends before it does.
    for task in reversed(tasks):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def children(config: Config, *, with_boot: bool) -> list[Child]:
    """What runs here, in the order of starting."""
    return [
        *([] if config.database.dsn else [Child("database", stop_signal=signal.SIGINT)]),
        Child("server"),
        Child("worker", config.worker.namespace),
        *([Child("boot", config.boot.namespace)] if with_boot else []),
    ]


async def _keep_running(child: Child) -> None:
    """Start the process again whenever it ends, at once at first, then more slowly."""
    failures = 0
    while True:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(*child.command(), stdin=asyncio.subprocess.DEVNULL)
        log.info("started", extra={"child": child.name, "pid": process.pid})
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            await _stop(process, child.stop_signal)
            raise
        failures = 0 if time.monotonic() - started > HEALTHY_AFTER_S else failures
        delay_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
        failures += 1
        log.error("ended, starting it again", extra={"child": child.name, "status": status, "in_s": delay_s})
        await asyncio.sleep(delay_s)


async def _stop(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the lock of this state directory. Raises ServiceError when another `koguma up` holds it."""
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ServiceError(
                f"one `koguma up` may run for a state directory, process {file.read().strip() or '?'} does ({path})"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
