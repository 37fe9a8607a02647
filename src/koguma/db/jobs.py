"""The worker: runs nodes' steps (`koguma.db.dispatch`), jobs on Procrastinate, and the site's periodic work.

Nodes due are found in the table; notifications only carry the news faster. Power polls have their own queue and few
slots, so that BMCs that hang slow nothing but each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections, connection
from django.utils import timezone
from django.utils.module_loading import import_string
from procrastinate import PsycopgConnector
from procrastinate.contrib.django import app
from procrastinate.contrib.django.utils import connector_params

from koguma.contracts.disk_images import DiskImages
from koguma.contracts.management import OpenManagement
from koguma.contracts.power import OpenPower
from koguma.contracts.switches import OpenSwitch
from koguma.contracts.volumes import VolumeSite
from koguma.db import admission, allocations, heartbeats, power_polls, reports, webhooks
from koguma.db.allocations import ALLOCATE_TASK
from koguma.db.dispatch import Dispatcher, calls_outside, listen
from koguma.db.housekeeping import forget_old_history
from koguma.db.lifecycle_store import PostgresStore, due_nodes, free_stuck_nodes
from koguma.db.wake import ALLOCATIONS_QUEUE
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.limits import Limits

log = logging.getLogger(__name__)

POLLS_QUEUE = "polls"
POLLS_CONCURRENCY = 2
ALLOCATIONS_CONCURRENCY = 2
STUCK_S = 900.0
"""No call to anything outside takes so long: a worker that is silent for longer with a node has lost its thread."""
STOP_TIMEOUT_S = 12.0
"""A step that does not end in this time is left to the next worker."""

_stopping = threading.Event()


def run_worker(concurrency: int) -> None:
    """Work until SIGTERM or SIGINT. Outlives the database: while it is away, the worker waits for it.

    When a step still runs STOP_TIMEOUT_S after the signal, the process ends at once: the step is recorded as running,
    so the next worker runs it again.
    """
    _stopping.clear()
    finished = asyncio.run(_run(concurrency))
    if not finished:
        log.warning("a step still runs; the next worker runs it again")
        os._exit(0)


@app.task(name="koguma.poll_power", queue=POLLS_QUEUE)
def poll_power(uuid: str) -> None:
    """Ask the node's BMC for the power state."""
    power_polls.poll(uuid, open_power())


@app.task(name=ALLOCATE_TASK, queue=ALLOCATIONS_QUEUE)
def allocate(uuid: str) -> None:
    """Find a node for the allocation."""
    allocations.allocate(uuid)


def expire_boots() -> None:
    """Fail boots that took too long."""
    if expired := reports.expire_boots(policy().boot_timeout_s):
        log.warning("boots took too long", extra={"boots": expired})


@lru_cache(maxsize=1)
def executor() -> Executor:
    """This process's executor."""
    return Executor(
        PostgresStore(open_switch()),
        open_power(),
        policy(),
        timezone.now,
        _stopping.is_set,
        volumes=volumes(),
        disk_images=disk_images(),
        open_management=open_management(),
    )


def open_power() -> OpenPower:
    found: OpenPower = import_string(settings.KOGUMA_POWER_DRIVERS)
    return lambda access: calls_outside(found(access))


def open_management() -> OpenManagement:
    found: OpenManagement = import_string(settings.KOGUMA_MANAGEMENT_DRIVERS)
    return lambda access: calls_outside(found(access))


def open_switch() -> OpenSwitch:
    found: OpenSwitch = import_string(settings.KOGUMA_SWITCH_DRIVERS)
    return found


def volumes() -> VolumeSite | None:
    """The site's storage, where one is configured."""
    found: VolumeSite | None = import_string(settings.KOGUMA_VOLUMES)()
    return calls_outside(found) if found else None


def disk_images() -> DiskImages | None:
    """What prepares disk images of others, where a repository is configured."""
    found: DiskImages | None = import_string(settings.KOGUMA_DISK_IMAGES)()
    return calls_outside(found) if found else None


def policy() -> Policy:
    return Policy(
        boot_timeout_s=settings.KOGUMA_NODES_BOOT_TIMEOUT_S,
        boot_attempts_max=settings.KOGUMA_BOOT_ATTEMPTS,
        loader_disc_url=settings.KOGUMA_LOADER_DISC_URL,
        limits=Limits(**settings.KOGUMA_LIMITS),
    )


async def _run(concurrency: int) -> bool:
    """Whether everything that had begun has ended."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(POLLS_CONCURRENCY + ALLOCATIONS_CONCURRENCY + 6, thread_name_prefix="worker")
    loop.set_default_executor(threads)
    dispatcher = Dispatcher(executor().advance, due_nodes, concurrency)
    for target, arguments in (
        (dispatcher.run, ()),
        (listen, (connector_params(), dispatcher.ring, _stopping)),
    ):
        threading.Thread(target=target, args=arguments, name="dispatch", daemon=True).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [
        asyncio.create_task(_keep(f"queue {queue}", lambda q=queue, n=slots: _work(q, n)))  # type: ignore[misc]
        for queue, slots in ((ALLOCATIONS_QUEUE, ALLOCATIONS_CONCURRENCY), (POLLS_QUEUE, POLLS_CONCURRENCY))
    ]
    for interval_s, work in PERIODIC:
        tasks.append(asyncio.create_task(_keep(work.__name__, lambda s=interval_s, w=work: _every(s, w))))  # type: ignore[misc]
    log.info("the worker works", extra={"concurrency": concurrency})
    await stop.wait()
    log.info("the worker stops")
    _stopping.set()
    dispatcher.stop()
    for task in tasks:
        task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
    threads.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + STOP_TIMEOUT_S - 2
    while not dispatcher.is_idle() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not pending and dispatcher.is_idle() and _idle(threads)


def begin_waiting() -> None:
    """Operations whose turn it is, whatever became of the worker that should have let them begin."""
    admission.admit_waiting(policy())


def end_stuck_claims() -> None:
    """Free nodes from threads that will not come back."""
    if freed := free_stuck_nodes(STUCK_S):
        log.error("calls to something outside never ended; their nodes are free again", extra={"nodes": freed})


PERIODIC: tuple[tuple[float, Callable[[], object]], ...] = (
    (2.0, begin_waiting),
    (1.0, webhooks.deliver_due),
    (30.0, end_stuck_claims),
    (2.0, power_polls.queue_due),
    (2.0, allocations.allocate_pending),
    (heartbeats.INTERVAL_S, heartbeats.say_alive),
    (15.0, expire_boots),
    (3600.0, forget_old_history),
)
"""What every worker does again and again, in seconds. All of it is harmless when several do it at once. These are no
periodic jobs of Procrastinate, because its deferrer keeps a connection that died with its server for ever.
"""


async def _work(queue: str, slots: int) -> None:
    connector = PsycopgConnector(kwargs=connector_params(), min_size=1, max_size=4, timeout=5.0, reconnect_timeout=5.0)
    worker = app.with_connector(connector)
    async with worker.open_async():
        await worker.run_worker_async(
            queues=[queue],
            concurrency=slots,
            install_signal_handlers=False,
            delete_jobs="always",
            shutdown_graceful_timeout=STOP_TIMEOUT_S - 2,
            fetch_job_polling_interval=2.0,
            name=f"{queue}-{os.getpid()}",
        )


async def _every(interval_s: float, work: Callable[[], object]) -> None:
    run = sync_to_async(_with_connection(work), thread_sensitive=False)
    while True:
        await run()
        await asyncio.sleep(interval_s)


def _with_connection(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        close_old_connections()
        try:
            work()
        finally:
            connection.close()

    return run


async def _keep(name: str, start: Callable[[], Any]) -> None:
    """Start it again when it fails: the database may be away for a while."""
    delay_s = 0.5
    while True:
        began = time.monotonic()
        try:
            await start()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # What went wrong most often is that PostgreSQL restarts; its words are enough then.
            log.warning(
                "a part of the worker ended, starting it again", extra={"part": name, "error": str(error)[:300]}
            )
        delay_s = 0.5 if time.monotonic() - began > 30 else min(delay_s * 2, 2.0)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.sleep(delay_s)


def _idle(threads: ThreadPoolExecutor) -> bool:
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        if not any(thread.is_alive() for thread in threads._threads):
            return True
        time.sleep(0.02)
    return False
