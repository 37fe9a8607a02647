"""DHCP and TFTP: dnsmasq, configured from the snapshot and watched over.

Authoritative, with a fixed address for every known MAC and a range for machines nobody has seen. Reservations are
files in a directory that dnsmasq watches, so that a new node needs no restart; only a changed network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from koguma.errors import KogumaError
from koguma.model.snapshot import Snapshot, SnapshotNetwork

log = logging.getLogger(__name__)

LEASE_TIME = "1h"
LOADERS = {
    "undionly.kpxe": "BIOS machines without iPXE in their firmware",
    "ipxe.efi": "UEFI machines without iPXE in their firmware",
    "ipxe.iso": "machines that boot from virtual media",
}
LOADER_DIRS = (Path("/usr/lib/ipxe"), Path("/usr/share/ipxe"))
RESTART_BACKOFF_S = 2.0


class DhcpError(KogumaError):
    """DHCP or TFTP cannot be served as configured."""


@dataclass(frozen=True)
class DhcpSettings:
    """Where and what dnsmasq serves."""

    interface: str
    boot_url: str
    directory: Path
    """Configuration, leases and the TFTP root are kept below it."""

    @property
    def loaders(self) -> Path:
        """The first loaders, which TFTP and HTTP serve."""
        return self.directory / "tftp"


def configuration(settings: DhcpSettings, networks: Iterable[SnapshotNetwork]) -> str:
    """dnsmasq.conf for the provisioning networks."""
    entry = f"{settings.boot_url}/ipxe/boot.ipxe"
    lines = [
        "port=0",
        f"interface={settings.interface}",
        "bind-dynamic",
        "dhcp-authoritative",
        # Firmware, iPXE and stage 1 present different client ids; a machine's address must not depend on them.
        "dhcp-ignore-clid",
        "dhcp-rapid-commit",
        "no-ping",
        f"dhcp-leasefile={settings.directory / 'leases'}",
        f"dhcp-hostsdir={settings.directory / 'hosts'}",
        "enable-tftp",
        f"tftp-root={settings.loaders}",
        "tftp-no-fail",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:efi64,option:client-arch,7",
        "dhcp-match=set:efi64,option:client-arch,9",
        # UEFI firmware that boots over HTTP takes offers only of a server that says it speaks it. Most try PXE first:
        # what broke off there, for instance because this service was started again, gets its second chance here.
        "dhcp-vendorclass=set:httpboot,HTTPClient",
        "dhcp-option-force=tag:httpboot,60,HTTPClient",
        f"dhcp-boot=tag:httpboot,{settings.boot_url}/loaders/ipxe.efi",
        "dhcp-boot=tag:!ipxe,tag:!efi64,tag:!httpboot,undionly.kpxe",
        "dhcp-boot=tag:!ipxe,tag:efi64,tag:!httpboot,ipxe.efi",
        f"dhcp-boot=tag:ipxe,{entry}",
        # iPXE would wait some seconds for the offer of a separate PXE server (its option 176, no-pxedhcp).
        "dhcp-option=tag:ipxe,encap:175,176,1b",
        # iPXE asks for an IPv6 router too, and waits a quarter of a minute where none answers. This announces the
        # prefix of the interface's own IPv6 address, where it has one, and no default router.
        "enable-ra",
        "quiet-ra",
        f"dhcp-range=::,constructor:{settings.interface},ra-only,64",
        f"ra-param={settings.interface},0,0",
    ]
    for network in networks:
        lines += _network_lines(network)
    return "\n".join([*lines, ""])


def reservations(snapshot: Snapshot) -> str:
    """One line for each known MAC with an address: `mac,address,name`."""
    rows = [f"{port.mac},{port.address},{node.name}" for node in snapshot.nodes for port in node.ports if port.address]
    return "".join(f"{row}\n" for row in sorted(rows))


def without_stale(leases: str, reserved: str) -> str:
    """dnsmasq's leases (`expiry mac address …`) but for those of addresses that `reservations` gives another machine.

    dnsmasq would keep a node's address from the machine that replaced it until the dead one's lease has run out.
    """
    owners = {line.split(",")[1]: line.split(",")[0] for line in reserved.splitlines()}

    def stands(line: str) -> bool:
        words = line.split()
        return len(words) < 3 or owners.get(words[2], words[1]) == words[1]

    return "".join(line for line in leases.splitlines(keepends=True) if stands(line))


def provisioning(snapshot: Snapshot) -> list[SnapshotNetwork]:
    return [network for network in snapshot.networks if network.purpose == "provisioning"]


class Dnsmasq:
    """One dnsmasq process, restarted when it ends, when its networks change and when an address changes machines."""

    def __init__(self, settings: DhcpSettings, loaders: Path | None = None) -> None:
        self._settings = settings
        self._loaders = loaders
        self._process: asyncio.subprocess.Process | None = None
        self._configuration: str | None = None
        self._reservations: str | None = None
        self._changed = asyncio.Event()

    def apply(self, snapshot: Snapshot) -> None:
        """Bring files up to the snapshot; the running process follows by itself or is restarted."""
        text = reservations(snapshot)
        if text != self._reservations:
            _write(self._settings.directory / "hosts" / "nodes", text)
            # dnsmasq reads files of the directory as they appear, but forgets removed lines only on SIGHUP.
            self._signal(signal.SIGHUP)
            self._reservations = text
            leases = self._leases()
            if without_stale(leases, text) != leases:
                self._changed.set()
        networks = provisioning(snapshot)
        wanted = configuration(self._settings, networks) if networks else None
        if wanted != self._configuration:
            self._configuration = wanted
            self._changed.set()

    async def run_forever(self) -> None:
        """Serve until cancelled."""
        self._prepare()
        try:
            while True:
                self._changed.clear()
                if self._configuration is None:
                    await self._changed.wait()
                    continue
                await self._run_once(self._configuration)
        finally:
            await self._stop()

    async def _run_once(self, text: str) -> None:
        path = self._settings.directory / "dnsmasq.conf"
        _write(path, text)
        leases = self._leases()
        if (kept := without_stale(leases, self._reservations or "")) != leases:
            log.info("leases of addresses that other machines have now are forgotten")
            _write(self._settings.directory / "leases", kept)
        self._process = await asyncio.create_subprocess_exec(
            # A boot service that was killed must not leave its DHCP server behind to answer from old files. Told to
            # end, dnsmasq first writes its last words to whoever read its log, and waits for ever for a dead reader.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *(
                "dnsmasq",
                "--keep-in-foreground",
                f"--conf-file={path}",
                "--log-facility=-",
                # Changing the user or the group would make the kernel forget the signal asked for above.
                "--user=root",
                "--group=root",
                "--pid-file=",
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        log.info(
            "dnsmasq serves DHCP and TFTP", extra={"interface": self._settings.interface, "pid": self._process.pid}
        )
        ended = asyncio.create_task(_follow(self._process))
        changed = asyncio.create_task(self._changed.wait())
        await asyncio.wait({ended, changed}, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        if ended.done():
            log.error("dnsmasq ended, starting it again", extra={"status": ended.result()})
            await asyncio.sleep(RESTART_BACKOFF_S)
        else:
            ended.cancel()
            await self._stop()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _leases(self) -> str:
        """Only dnsmasq writes them, and only this service while it does not run."""
        try:
            return (self._settings.directory / "leases").read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _prepare(self) -> None:
        if shutil.which("dnsmasq") is None:
            raise DhcpError("DHCP needs dnsmasq on PATH, it is not there (Debian package dnsmasq-base)")
        for directory in (self._settings.directory / "hosts", self._settings.loaders):
            directory.mkdir(parents=True, exist_ok=True)
        for name, machines in LOADERS.items():
            source = self._loader(name)
            if source is None:
                log.warning("%s cannot boot: no %s (package ipxe)", machines, name)
                continue
            target = self._settings.loaders / name
            shutil.copyfile(source, target)

    def _loader(self, name: str) -> Path | None:
        directories = (self._loaders,) if self._loaders else LOADER_DIRS
        return next((directory / name for directory in directories if (directory / name).is_file()), None)


async def _follow(process: asyncio.subprocess.Process) -> int:
    """Pass on what the process says until it ends; its exit status."""
    while process.stderr and (line := await process.stderr.readline()):
        log.info(line.decode(errors="replace").strip())
    return await process.wait()


def _network_lines(network: SnapshotNetwork) -> list[str]:
    tag = f"set:{network.name}"
    subnet = ipaddress.ip_network(network.subnet)
    lines = []
    if network.discovery_start and network.discovery_end:
        lines.append(
            f"dhcp-range={tag},{network.discovery_start},{network.discovery_end},{subnet.netmask},{LEASE_TIME}"
        )
    else:
        lines.append(f"dhcp-range={tag},{subnet.network_address},static,{subnet.netmask},{LEASE_TIME}")
    options = {
        "router": network.gateway or "",
        "dns-server": ",".join(network.dns_servers),
        "ntp-server": ",".join(network.ntp_servers),
        "domain-name": network.domain,
        "mtu": str(network.mtu),
    }
    # An option without a value tells dnsmasq not to make one up (it would name itself as router and resolver).
    lines += [
        f"dhcp-option=tag:{network.name},option:{name}{',' if value else ''}{value}" for name, value in options.items()
    ]
    return lines


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
