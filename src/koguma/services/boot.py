"""`koguma boot`: DHCP, TFTP, iPXE scripts, the stage-1 API and artifacts, from its own snapshot on disk."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import typer
import uvicorn

from koguma.boot.app import application
from koguma.boot.dnsmasq import DhcpSettings, Dnsmasq
from koguma.boot.in_use import announce
from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal
from koguma.boot.labels import Labels
from koguma.boot.nfs_trees import NfsTrees
from koguma.boot.planning import Site
from koguma.boot.server_link import ServerLink, connect
from koguma.boot.tokens import Tokens
from koguma.config import Config
from koguma.model.snapshot import Snapshot
from koguma.services.environment import ConfigOption, begin
from koguma.services.errors import ServiceError
from koguma.services.secrets import boot_key

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, help="Run the boot service: DHCP, TFTP, iPXE, stage-1 API, artifacts.")

NFS_CHECK_S = 1.0


@app.callback(invoke_without_command=True)
def boot(config_path: ConfigOption = None) -> None:
    """Run the boot service until SIGTERM."""
    asyncio.run(serve(begin("boot", config_path)))


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. A part that fails for good ends the whole, for a supervisor to start again."""
    directory = config.state_dir / "boot"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    inventory = Inventory(directory / "snapshot.json")
    journal = Journal(directory / "journal.sqlite")
    key = boot_key(config.secrets_dir)
    link = ServerLink(connect(config.server_address, key), inventory, journal, config.boot.poll_s)
    site = Site(url=config.boot.url, nfs=config.boot.nfs, nfs_dir=config.nfs_dir)
    dhcp_settings = DhcpSettings(config.boot.interface, config.boot.url, directory / "dnsmasq")
    tokens = Tokens(bytes.fromhex(key))
    http = _http(
        config,
        application(site, config.repository, inventory, journal, tokens, link, loaders=dhcp_settings.loaders),
    )
    jobs = [link.poll_forever(), link.deliver_forever()]
    heard: list[Callable[[Snapshot], None]] = [lambda snapshot: announce(snapshot, config.repository)]
    if config.boot.nfs:
        jobs.append(_keep_nfs_trees(NfsTrees(config.nfs_dir, config.repository, Labels(config.repository)), inventory))
    if config.boot.interface:
        dhcp = Dnsmasq(dhcp_settings, loaders=config.boot.tftp_dir)
        heard.append(dhcp.apply)
        jobs.append(dhcp.run_forever())
    link.on_snapshot = lambda: _tell(heard, inventory)
    link.on_snapshot()
    try:
        await _until_signal(http, jobs)
    finally:
        await link.close()
        journal.close()


def _http(config: Config, asgi: object) -> uvicorn.Server:
    host, _, port = config.boot.listen.rpartition(":")
    return uvicorn.Server(
        uvicorn.Config(
            asgi,  # type: ignore[arg-type]
            host=host.strip("[]"),
            port=int(port),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # A machine that stops reading must not hold up a restart of the service.
            timeout_graceful_shutdown=5,
        )
    )


async def _until_signal(http: uvicorn.Server, jobs: list[Coroutine[Any, Any, None]]) -> None:
    listener = _listen(http.config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("the boot service answers", extra={"address": f"{http.config.host}:{http.config.port}"})
    # uvicorn's own signal handling is not entered: this process has more to stop than HTTP.
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(http._serve([listener]))]
    tasks += [asyncio.create_task(job) for job in jobs]
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    http.should_exit = True
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done - {stopping}:
        task.result()


def _listen(settings: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The address may appear later than the service, as an interface does at a machine's start.
    listener.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise ServiceError(
            f"the boot service must be able to listen on {place}: {error.strerror} (boot.listen)"
        ) from error
    return listener


def _tell(heard: list[Callable[[Snapshot], None]], inventory: Inventory) -> None:
    """Pass a newer snapshot on to all that follow it."""
    for follow in heard:
        follow(inventory.snapshot)


async def _keep_nfs_trees(trees: NfsTrees, inventory: Inventory) -> None:
    while True:
        await trees.ensure(trees.wanted(inventory.snapshot))
        await asyncio.sleep(NFS_CHECK_S)
