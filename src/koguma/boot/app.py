"""The boot service's HTTP: iPXE scripts, the stage-1 API and the artifacts. ARCHITECTURE.md has the formats.

Endpoints check who asks, ask the planner or the server, and keep reports in the journal. Everything a machine sends
is hostile until it has passed `requests`; refusals are `{"error": "<rule, value, place>"}` with a 4xx status.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from koguma.boot import ipxe, requests
from koguma.boot.errors import AlreadyInstalled, BootError, NotBootable, NotThisMachine
from koguma.boot.handover import handover
from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal, Report
from koguma.boot.labels import Labels
from koguma.boot.planning import Planner, Site
from koguma.boot.server_link import ServerLink
from koguma.boot.tokens import Tokens, new_boot_id
from koguma.model.snapshot import SnapshotNode

log = logging.getLogger(__name__)


def application(
    site: Site,
    repository: Path,
    inventory: Inventory,
    journal: Journal,
    tokens: Tokens,
    server: ServerLink,
    *,
    loaders: Path | None = None,
) -> Starlette:
    """The ASGI application, wired from its parts. `loaders` is a directory of first loaders for UEFI's HTTP boot."""
    labels = Labels(repository)
    stage1 = Stage1Api(site, inventory, labels, journal, tokens, server)
    return Starlette(
        routes=[
            Route("/ipxe/boot.ipxe", stage1.entry),
            Route("/ipxe/{uuid}/script", stage1.script),
            Route("/ipxe/{uuid}/menu", stage1.menu),
            Route("/ipxe/{uuid}/handover", stage1.handover),
            Route("/ipxe/{uuid}/register", stage1.register, methods=["POST"]),
            Route("/ipxe/{uuid}/profile", stage1.profile),
            Route("/ipxe/{uuid}/detail", stage1.detail),
            Route("/ipxe/{uuid}/members", stage1.members),
            Route("/ipxe/{uuid}/phase", stage1.phase, methods=["POST"]),
            Route("/ipxe/{uuid}/installed", stage1.installed, methods=["POST"]),
            Route("/ipxe/{uuid}/heartbeat", stage1.heartbeat, methods=["POST"]),
            Route("/health", stage1.health),
            *([Mount("/loaders", StaticFiles(directory=loaders, check_dir=False))] if loaders else []),
            Mount("/artifacts/stage1", ArtifactFiles(directory=repository / "boot" / "stage1", check_dir=False)),
            Mount("/artifacts/disks", ArtifactFiles(directory=repository / "boot" / "disks", check_dir=False)),
            Mount("/artifacts", ArtifactFiles(directory=repository / "boot" / "artifacts", check_dir=False)),
        ],
        exception_handlers={BootError: _refused},
    )


class Stage1Api:
    """What machines ask for and report, endpoint by endpoint."""

    def __init__(
        self, site: Site, inventory: Inventory, labels: Labels, journal: Journal, tokens: Tokens, server: ServerLink
    ) -> None:
        self._site = site
        self._inventory = inventory
        self._labels = labels
        self._journal = journal
        self._tokens = tokens
        self._server = server
        self._planner = Planner(site, inventory, labels, journal)

    async def entry(self, _: Request) -> Response:
        return PlainTextResponse(ipxe.entry(self._site.url))

    async def script(self, request: Request) -> Response:
        """The script of one boot: a new boot begins here."""
        mac = requests.mac_of(request.query_params.get("mac", ""))
        uuid = self._inventory.identity(requests.uuid_of(request.path_params["uuid"]), mac)
        self._inventory.reject_foreign_mac(uuid, mac)
        boot_id = new_boot_id()
        boot = ipxe.Boot(self._site.url, uuid, self._tokens.mint(uuid, boot_id), mac, self._site.console_args)
        node = self._inventory.snapshot.by_uuid.get(uuid)
        asked = {"mac": mac, "remote_address": _remote(request)}
        if node is None:
            script = ipxe.stage1(boot, self._labels.stage1(), "register", "new machine", menu=False)
            self._journal.add_unregistered(Report.now(uuid, boot_id, "script", {**asked, "mode": "register"}))
            log.info("script given", extra={"uuid": uuid, "boot": boot_id, "mode": "register"})
            return PlainTextResponse(script)
        self._inventory.reject_foreign_address(node, _remote(request))
        if self._planner.boots_disk(node):
            return self._local_script(node, boot_id, asked)
        script, told = self._script_of(node, boot, boot_id, request.query_params.get("choose"))
        self._journal.add(Report.now(uuid, boot_id, "script", {**asked, **told}))
        self._server.deliver_soon()
        log.info("script given", extra={"node": node.name, "boot": boot_id, **told})
        return PlainTextResponse(script)

    def _local_script(self, node: SnapshotNode, boot_id: str, asked: dict[str, str]) -> Response:
        """Send the machine to its disk. The first time after that was written, it is still the boot that wrote it."""
        try:
            loader = self._labels.stage1().local_loader
        except NotBootable:
            loader = None  # the disk needs nothing of a repository
        writer = self._journal.writer_of(node.boot.disk.wish) if node.boot.disk and node.boot.disk.wish else None
        if writer and not self._journal.is_installed(writer):
            body = requests.phase_of({"phase": "restart", "state": "started"})
            self._journal.add(Report.now(node.uuid, writer, "phase", body))
        else:
            self._journal.add(Report.now(node.uuid, boot_id, "script", {**asked, "mode": "disk"}))
        self._server.deliver_soon()
        log.info("script given", extra={"node": node.name, "boot": writer or boot_id, "mode": "disk"})
        return PlainTextResponse(ipxe.local(self._site.url, loader, f"{node.name} boots its disk"))

    def _script_of(
        self, node: SnapshotNode, boot: ipxe.Boot, boot_id: str, choose: str | None
    ) -> tuple[str, dict[str, str]]:
        """The script, and what its report says of it."""
        if node.boot.mode == "refuse":
            return ipxe.refuse(node.name, node.boot.refuse_reason or "it may not boot now"), {"mode": "refuse"}
        stage1 = self._labels.stage1()
        if node.boot.mode == "register":
            script = ipxe.stage1(boot, stage1, "register", f"{node.name} registers again", menu=False)
            return script, {"mode": "register"}
        if node.boot.mode == "rescue":
            return ipxe.stage1(boot, stage1, "rescue", f"{node.name} is rescued", menu=False), {"mode": "rescue"}
        if node.boot.disk:
            mode = "clean" if node.boot.mode == "clean" else "deploy"
            if not stage1.has_disks:
                raise NotBootable("stage 1 must be built with the tools for disks: `koguma image build-stage1`")
            self._journal.begin_disk(boot_id, node.boot.disk.wish or "")
            title = f"{node.name}: {'empties its disks' if mode == 'clean' else 'writes its disk'}"
            return ipxe.stage1(boot, stage1, mode, title, menu=False), {"mode": mode}
        if choose is not None:
            self._journal.choose(boot_id, self._labels.resolve(choose).name)
        if not node.boot.kexec:
            label = self._planner.label(node, boot_id)
            script = ipxe.direct(boot, label.commit, node.boot.kernel_args, f"{node.name} boots {label.name}")
            return script, {"mode": "direct", "label": label.name, "commit": label.commit}
        return ipxe.stage1(boot, stage1, "boot", f"{node.name} boots", menu=choose is None), {"mode": "boot"}

    async def menu(self, request: Request) -> Response:
        """Every label, for the person at the console of a known machine."""
        node = self._asker(request)
        mac = requests.mac_of(request.query_params.get("mac", ""))
        boot = ipxe.Boot(self._site.url, node.uuid, "", mac)
        return PlainTextResponse(ipxe.menu(boot, sorted(self._labels.all()), node.boot.label))

    async def handover(self, request: Request) -> Response:
        """The second initramfs of a boot without stage 1; iPXE can send no header, so the token is in the query."""
        node = self._asker(request)
        token = request.query_params.get("token", "")
        boot_id = self._unfinished(node.uuid, token)
        port = node.boot_port
        env = self._planner.handover(node, boot_id, token, port.mac if port else "")
        return Response(handover(env, self._planner.detail(node)), media_type="application/octet-stream")

    async def register(self, request: Request) -> Response:
        uuid, boot_id = self._boot_of(request)
        document = await requests.json_object(request, requests.REGISTER_SIZE_MAX_BYTES)
        if str(document.get("uuid", "")).lower() != uuid:
            raise NotThisMachine(f"a machine registers itself: the body's uuid must be {uuid}")
        for port in document.get("ports") or ():
            if isinstance(port, dict) and isinstance(port.get("mac"), str):
                self._inventory.reject_foreign_mac(uuid, requests.mac_of(port["mac"]))
        answer = await self._server.register({**document, "remote_address": _remote(request)})
        self._journal.registered(boot_id, _remote(request))
        self._server.deliver_soon()
        log.info("machine registered", extra={"uuid": uuid, "node": answer.get("name")})
        return JSONResponse(answer, status_code=201)

    async def profile(self, request: Request) -> Response:
        node, boot_id = self._asker(request), self._boot_of(request)[1]
        answer = self._planner.profile(node, boot_id)
        chosen = {"label": answer["label"], "commit": answer["commit"]}
        body = {"phase": "profile", "state": "started", "uptime_s": None, "reason": None, "data": chosen}
        self._journal.add(Report.now(node.uuid, boot_id, "phase", body))
        self._server.deliver_soon()
        return JSONResponse(answer)

    async def detail(self, request: Request) -> Response:
        node = self._asker(request)
        self._unfinished(node.uuid, _bearer(request))
        return JSONResponse(self._planner.detail(node))

    async def members(self, request: Request) -> Response:
        self._boot_of(request)
        self._asker(request)
        return JSONResponse(self._planner.members())

    async def phase(self, request: Request) -> Response:
        uuid, boot_id = self._boot_of(request)
        body = requests.phase_of(await requests.json_object(request, requests.REPORT_SIZE_MAX_BYTES))
        report = Report.now(uuid, boot_id, "phase", body)
        node = self._inventory.snapshot.by_uuid.get(uuid)
        if node is None:
            self._journal.add_unregistered(report)
            return Response(status_code=204)
        if not self._journal.has_registered_from(boot_id, _remote(request)):
            self._inventory.reject_foreign_address(node, _remote(request))
        self._journal.add(report)
        if body["phase"] == "disk" and body["state"] == "succeeded":
            self._journal.mark_written(boot_id)
        self._server.deliver_soon()
        if body["state"] == "failed":
            log.warning(
                "boot phase failed", extra={"node": node.name, "phase": body["phase"], "reason": body["reason"]}
            )
        return Response(status_code=204)

    async def installed(self, request: Request) -> Response:
        node, boot_id = self._asker(request), self._boot_of(request)[1]
        body = requests.installed_of(await requests.json_object(request, requests.REPORT_SIZE_MAX_BYTES))
        if self._journal.mark_installed(Report.now(node.uuid, boot_id, "installed", body)):
            log.info("machine installed", extra={"node": node.name, "boot": boot_id})
            self._server.deliver_soon()
        return Response(status_code=204)

    async def heartbeat(self, request: Request) -> Response:
        node, boot_id = self._asker(request), self._boot_of(request)[1]
        body = requests.installed_of(await requests.json_object(request, requests.REPORT_SIZE_MAX_BYTES))
        self._journal.heartbeat(Report.now(node.uuid, boot_id, "heartbeat", body))
        self._server.deliver_soon()
        return JSONResponse({"members_revision": self._inventory.snapshot.members_revision})

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "revision": self._inventory.snapshot.revision})

    def _boot_of(self, request: Request) -> tuple[str, str]:
        """The machine and the boot a token proves. Raises MalformedRequest or NotThisMachine."""
        uuid = requests.uuid_of(request.path_params["uuid"])
        return uuid, self._tokens.boot_id(uuid, _bearer(request))

    def _asker(self, request: Request) -> SnapshotNode:
        """The registered machine that asks, from its own address. Raises UnknownMachine or NotThisMachine."""
        node = self._inventory.node(requests.uuid_of(request.path_params["uuid"]))
        self._inventory.reject_foreign_address(node, _remote(request))
        return node

    def _unfinished(self, uuid: str, token: str) -> str:
        boot_id = self._tokens.boot_id(uuid, token)
        if self._journal.is_installed(boot_id):
            raise AlreadyInstalled(
                f"the details of a boot are told until it has reported installed, boot {boot_id} has"
            )
        return boot_id


class ArtifactFiles(StaticFiles):
    """Static files with ranges, read in large pieces: artifacts are hundreds of megabytes."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        if isinstance(response, FileResponse):
            response.chunk_size = 1 << 20
        return response


def _remote(request: Request) -> str:
    return request.client.host if request.client else ""


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotThisMachine("a request must carry its boot's token: Authorization: Bearer <token>")
    return token


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, BootError):
        raise error
    log.warning("refused", extra={"path": request.url.path, "remote": _remote(request), "reason": str(error)})
    headers = {"Retry-After": "5"} if error.retry else {}
    return JSONResponse({"error": str(error)}, status_code=error.status, headers=headers)
