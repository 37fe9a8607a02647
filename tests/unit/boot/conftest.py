"""A boot service in one process: real application, real journal and inventory; the server it talks to is a small one
of the test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from koguma.boot.app import application
from koguma.boot.inventory import Inventory
from koguma.boot.journal import Journal
from koguma.boot.planning import Site
from koguma.boot.server_link import ServerLink
from koguma.boot.tokens import Tokens
from koguma.model.snapshot import BootPlan, Once, Snapshot, SnapshotNetwork, SnapshotNode, SnapshotPort

URL = "http://10.77.0.1:8080"
UUID_1 = "11111111-2222-4333-8444-555555555501"
UUID_2 = "11111111-2222-4333-8444-555555555502"
NEW_UUID = "11111111-2222-4333-8444-555555555599"
MAC_1, MAC_2, NEW_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:99"
IP_1, IP_2, NEW_IP = "10.77.0.11", "10.77.0.12", "10.77.0.200"
COMMIT, NEXT_COMMIT = "a" * 64, "b" * 64


class FakeServer:
    """The server's `/boot/v1` as far as the boot service uses it; can be away, and refuses what it is told to."""

    def __init__(self) -> None:
        self.away = False
        self.refusal: tuple[int, str] | None = None
        self.registrations: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.snapshot: dict[str, Any] = Snapshot().to_json()
        self.app = Starlette(
            routes=[
                Route("/boot/v1/registrations", self._register, methods=["POST"]),
                Route("/boot/v1/reports", self._reports, methods=["POST"]),
                Route("/boot/v1/snapshot", self._snapshot),
            ]
        )

    async def _register(self, request: Request) -> Response:
        if self.away:
            return JSONResponse({"error": "away"}, 503)
        if self.refusal:
            return JSONResponse({"error": self.refusal[1]}, self.refusal[0])
        self.registrations.append(await request.json())
        return JSONResponse({"name": "node-9", "uuid": self.registrations[-1]["uuid"]}, 201)

    async def _reports(self, request: Request) -> Response:
        if self.away:
            return JSONResponse({"error": "away"}, 503)
        reports = (await request.json())["reports"]
        self.reports += reports
        return JSONResponse({"accepted": [report["id"] for report in reports], "refused": {}})

    async def _snapshot(self, request: Request) -> Response:
        if self.away:
            return JSONResponse({"error": "away"}, 503)
        etag = f'"{self.snapshot["revision"]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(self.snapshot, headers={"ETag": etag})


def node(number: int, **boot: Any) -> SnapshotNode:
    name = f"node-{number}"
    port = SnapshotPort(f"52:54:00:00:00:0{number}", "provisioning", f"10.77.0.1{number}", boot=True)
    return SnapshotNode(
        uuid=f"11111111-2222-4333-8444-55555555550{number}",
        name=name,
        serial=f"S{number}",
        provision_state="active",
        flavor="compute",
        boot=BootPlan(**{"label": "compute", **boot}),
        ports=(port,),
        detail={"node": name, "hostname": name, "ssh_host_keys": {"ssh_host_ed25519_key": f"secret of {name}"}},
    )


def snapshot(*nodes: SnapshotNode) -> Snapshot:
    network = SnapshotNetwork(
        "provisioning", "provisioning", 100, "10.77.0.0/24", "10.77.0.1", "10.77.0.200", "10.77.0.250"
    )
    return Snapshot(networks=(network,), nodes=nodes)


def once(label: str) -> Once:
    return Once("1" * 32, label)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A published `boot/` directory; what is in the files does not matter to the boot service."""
    boot = tmp_path / "images" / "boot"
    for commit in (COMMIT, NEXT_COMMIT):
        directory = boot / "artifacts" / commit
        directory.mkdir(parents=True)
        (directory / "root.squashfs").write_bytes(b"root of " + commit.encode())
    stage1 = boot / "stage1" / hashlib.sha256(b"stage 1").hexdigest()
    stage1.mkdir(parents=True)
    (stage1 / "disks").write_bytes(b"tools for disks")
    (boot / "stage1" / "current").symlink_to(stage1.name)
    labels = {
        "compute": {"commit": COMMIT, "kind": "branch"},
        "compute-next": {"commit": NEXT_COMMIT, "kind": "branch"},
    }
    (boot / "labels.json").write_text(json.dumps({"format": "koguma-labels/1", "labels": labels}))
    (tmp_path / "images" / "private").write_text("signing key")
    return tmp_path / "images"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    inventory = Inventory(tmp_path / "snapshot.json")
    inventory.replace(snapshot(node(1), node(2)).to_json())
    return inventory


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


@pytest.fixture
def link(server: FakeServer, inventory: Inventory, journal: Journal) -> ServerLink:
    transport = httpx.ASGITransport(app=server.app)
    return ServerLink(httpx.AsyncClient(transport=transport, base_url="http://server"), inventory, journal, poll_s=0.01)


class Machine:
    """A machine's side of the stage-1 API, at one address."""

    def __init__(self, app: Starlette, uuid: str, mac: str, address: str) -> None:
        self.uuid, self.mac, self.address = uuid, mac, address
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, client=(address, 40000)), base_url=URL, timeout=5
        )
        self.token = ""

    async def script(self, **query: str) -> httpx.Response:
        """Ask for the script and keep its token."""
        response = await self.get("script", params={"mac": self.mac, **query})
        for word in response.text.split():
            if word.startswith("koguma.token="):
                self.token = word.removeprefix("koguma.token=")
        return response

    async def get(self, endpoint: str, **options: Any) -> httpx.Response:
        return await self._client.get(f"/ipxe/{self.uuid}/{endpoint}", headers=self._headers(), **options)

    async def post(self, endpoint: str, body: Any = None, **options: Any) -> httpx.Response:
        return await self._client.post(
            f"/ipxe/{self.uuid}/{endpoint}", headers=self._headers(), **({"json": body} | options)
        )

    async def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._client.request(method, path, headers=self._headers(), **options)

    async def close(self) -> None:
        await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@pytest.fixture
def app(repository: Path, inventory: Inventory, journal: Journal, link: ServerLink) -> Starlette:
    return application(Site(URL), repository, inventory, journal, Tokens(b"k" * 32), link)


@pytest.fixture
def machine(app: Starlette) -> Machine:
    """A registered machine."""
    return Machine(app, UUID_1, MAC_1, IP_1)


@pytest.fixture
def stranger(app: Starlette) -> Machine:
    """A machine nobody has seen."""
    return Machine(app, NEW_UUID, NEW_MAC, NEW_IP)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
