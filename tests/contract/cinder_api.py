"""Keystone, Glance and Cinder as recorded: their answers in form and in order, for the driver and its library.

Recorded of Keystone 30, Glance 33 and Cinder 29; `make test-cinder` runs the same suite against them.
"""

from __future__ import annotations

import ast
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import yaml

PASSWORD, PROJECT = "correct horse battery", "13e8b7e6d669436184f319c282171698"
TOKEN = "gAAAAABrDADiWD4q9arcvNsOdpc8gwmwLMApUFKbdjt6llHPcVeptiyTNbC"
CLOUD = "recorded"
Fault = Callable[[str, str], tuple[int, Any] | None]


class CinderApi:
    """Serves one project until `close`. `fault`, given method and path, answers in place of the service. The request of
    number `cut_at` is served but its answer is lost, and no later one is served, as for a worker that is killed.
    """

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.image_ids: set[str] = set()
        self.contents: dict[str, bytes] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.attachments: dict[str, dict[str, Any]] = {}
        self.connectors: dict[str, dict[str, Any]] = {}
        self.messages: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.fault: Fault = lambda _method, _path: None
        self.cut_at: int | None = None
        self.upload_takes_s = 0.0
        self.becomes = ["creating", "downloading", "available"]
        self.connection: dict[str, Any] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def write_clouds(self, path: Path) -> None:
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": "koguma",
            "password": PASSWORD,
            "project_name": "koguma-volumes",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        cloud = {"auth": auth, "region_name": "RegionOne"}
        path.write_text(yaml.safe_dump({"clouds": {CLOUD: cloud}}))

    def count(self, pattern: str) -> int:
        return sum(re.fullmatch(pattern, line) is not None for line in self.requests)

    def age(self, seconds: float) -> None:
        """Glance's images become older."""
        for image in self.images.values():
            made = datetime.fromisoformat(image["created_at"]) - timedelta(seconds=seconds)
            image["created_at"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")

    def copy_of(self, volume: str) -> str:
        """As a backup is restored to a new volume: with its metadata."""
        copy = str(uuid4())
        self.volumes[copy] = {**self.volumes[volume], "id": copy, "metadata": dict(self.volumes[volume]["metadata"])}
        return copy

    # --- Keystone and versions

    def versions(self, service: str) -> tuple[int, Any]:
        self_link = {"rel": "self", "href": f"{self.url}/{service}/"}
        if service == "identity/v3":
            media = [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]
            version = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": [self_link]}
            return 200, {"version": {**version, "media-types": media}}
        if service == "image":
            link = [{"rel": "self", "href": f"{self.url}/image/v2/"}]
            states = {"v2.17": "CURRENT", "v2.15": "SUPPORTED", "v2.0": "SUPPORTED"}
            return 300, {"versions": [{"id": name, "status": state, "links": link} for name, state in states.items()]}
        media = [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}]
        links = [{"rel": "describedby", "type": "text/html", "href": "http://docs.invalid/"}, self_link]
        version = {"id": "v3.0", "status": "CURRENT", "version": "3.71", "min_version": "3.0"}
        return 200, {"versions": [{**version, "updated": "2023-08-31T00:00:00Z", "links": links, "media-types": media}]}

    def token(self, body: Any) -> tuple[int, Any]:
        if body["auth"]["identity"]["password"]["user"]["password"] != PASSWORD:
            return _keystone_fault(401, "The request you have made requires authentication.")
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "user": {"domain": domain, "id": "512b7493", "name": "koguma", "password_expires_at": None},
            "audit_ids": ["9U47hq5ER96WJXW1-L1HKw"],
            "expires_at": _stamp(datetime.now(UTC) + timedelta(hours=1)) + "Z",
            "issued_at": _stamp(datetime.now(UTC)) + "Z",
            "project": {"domain": domain, "id": PROJECT, "name": "koguma-volumes"},
            "is_domain": False,
            "roles": [{"id": "0dede2f5", "name": "member"}, {"id": "4a8760cd", "name": "reader"}],
            "catalog": [
                self._service("identity", "identity/v3"),
                self._service("image", "image"),
                self._service("block-storage", "volume/v3"),
            ],
        }
        return 201, {"token": token}

    def _service(self, kind: str, path: str) -> dict[str, Any]:
        endpoint = {"id": kind, "interface": "public", "region_id": "RegionOne", "region": "RegionOne"}
        return {"id": kind, "type": kind, "name": kind, "endpoints": [{**endpoint, "url": f"{self.url}/{path}"}]}

    # --- Glance

    def image_made(self, body: Any) -> tuple[int, Any]:
        image_id = body.get("id") or str(uuid4())
        if image_id in self.image_ids:
            return _html(409, "Conflict", f"Image ID {image_id} already exists!")
        self.image_ids.add(image_id)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        empty = {"size": None, "virtual_size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None}
        rest = {"protected": False, "min_ram": 0, "min_disk": 0, "owner": PROJECT, "os_hidden": False, "tags": []}
        times = {"created_at": now, "updated_at": now, "schema": "/v2/schemas/image"}
        paths = {"self": f"/v2/images/{image_id}", "file": f"/v2/images/{image_id}/file"}
        self.images[image_id] = {**body, **empty, **rest, **times, **paths, "id": image_id, "status": "queued"}
        return 201, self.images[image_id]

    def image(self, image_id: str) -> tuple[int, Any]:
        if image_id not in self.images:
            return _html(404, "Not Found", f"No image found with ID {image_id}")
        return 200, self.images[image_id]

    def image_begun(self, image_id: str) -> tuple[int, Any] | None:
        """None when its content may come."""
        if image_id not in self.images:
            return _html(404, "Not Found", f"No image found with ID {image_id}")
        state = self.images[image_id]["status"]
        if state != "queued":
            return _html(409, "Conflict", f"Image status transition from {state} to saving is not allowed")
        self.images[image_id]["status"] = "saving"
        return None

    def image_ended(self, image_id: str, content: bytes) -> tuple[int, Any]:
        if image_id not in self.images:
            return _html(410, "Gone", "Image not found")
        self.contents[image_id] = content
        self.images[image_id] |= {"status": "active", "size": len(content), "virtual_size": len(content)}
        return 204, None

    def image_removed(self, image_id: str) -> tuple[int, Any]:
        if image_id not in self.images:
            return _html(404, "Not Found", f"Failed to find image {image_id} to delete")
        del self.images[image_id]
        return 204, None

    # --- Cinder

    def volume_made(self, body: Any) -> tuple[int, Any]:
        asked = body["volume"]
        if self.images.get(asked["imageRef"], {}).get("status") != "active":
            return _fault(400, "badRequest", "Invalid image identifier or unable to access requested image.")
        volume_id = str(uuid4())
        self.volumes[volume_id] = {
            "id": volume_id,
            "status": "creating",
            "size": asked["size"],
            "availability_zone": "nova",
            "created_at": _stamp(datetime.now(UTC)),
            "updated_at": None,
            "name": asked["name"],
            "description": None,
            "volume_type": "__DEFAULT__",
            "snapshot_id": None,
            "source_volid": None,
            "metadata": dict(asked["metadata"]),
            "links": [{"rel": "self", "href": f"{self.url}/volume/v3/volumes/{volume_id}"}],
            "user_id": "49a7241f",
            "bootable": "false",
            "encrypted": False,
            "replication_status": None,
            "consistencygroup_id": None,
            "multiattach": False,
            "attachments": [],
            "group_id": None,
        }
        return 202, {"volume": dict(self.volumes[volume_id])}

    def volume(self, volume_id: str) -> tuple[int, Any]:
        if volume_id not in self.volumes:
            return _no_volume(volume_id)
        volume = self.volumes[volume_id]
        answer = 200, {"volume": {**volume, "os-vol-tenant-attr:tenant_id": PROJECT}}
        if volume["status"] in self.becomes[:-1]:
            volume["status"] = self.becomes[self.becomes.index(volume["status"]) + 1]
        elif volume["status"] == "deleting":
            del self.volumes[volume_id]
        return answer

    def volumes_listed(self, query: dict[str, str]) -> tuple[int, Any]:
        wanted = ast.literal_eval(query.get("metadata", "{}")).items()
        found = [item for item in reversed(self.volumes.values()) if wanted <= item["metadata"].items()]
        ids = [item["id"] for item in found]
        if "marker" in query:
            found = found[ids.index(query["marker"]) + 1 :]
        limit = int(query.get("limit", "1000"))
        page: dict[str, Any] = {"volumes": [{**item} for item in found[:limit]]}
        if len(found) >= limit:
            href = f"{self.url}/volume/v3/volumes/detail?limit={limit}&marker={found[limit - 1]['id']}"
            page["volumes_links"] = [{"rel": "next", "href": href}]
        return 200, page

    def volume_deleted(self, volume_id: str) -> tuple[int, Any]:
        if volume_id not in self.volumes:
            return _no_volume(volume_id)
        if self.volumes[volume_id]["status"] not in {"available", "error"} or self._of(volume_id):
            return _fault(400, "badRequest", "Invalid volume: Volume status must be available or error or …")
        self.volumes[volume_id]["status"] = "deleting"
        return 202, None

    def noted(self, volume_id: str, body: Any) -> tuple[int, Any]:
        if volume_id not in self.volumes:
            return _no_volume(volume_id)
        self.volumes[volume_id]["metadata"] |= body["metadata"]
        return 200, {"metadata": self.volumes[volume_id]["metadata"]}

    def note_removed(self, volume_id: str, key: str) -> tuple[int, Any]:
        if volume_id not in self.volumes:
            return _no_volume(volume_id)
        if self.volumes[volume_id]["metadata"].pop(key, None) is None:
            return _fault(404, "itemNotFound", f"Volume {volume_id} has no metadata with key {key}.")
        return 200, None

    def attachments_listed(self, query: dict[str, str]) -> tuple[int, Any]:
        keys = ("id", "status", "instance", "volume_id")
        return 200, {"attachments": [{key: item[key] for key in keys} for item in self._of(query["volume_id"])]}

    def attachment(self, attachment_id: str) -> tuple[int, Any]:
        if attachment_id not in self.attachments:
            return _no_attachment(attachment_id)
        return 200, {"attachment": self.attachments[attachment_id]}

    def reserved(self, body: Any) -> tuple[int, Any]:
        volume_id = body["attachment"]["volume_uuid"]
        if volume_id not in self.volumes:
            return _no_volume(volume_id)
        status = self.volumes[volume_id]["status"]
        if status not in {"available", "downloading"}:
            rule = f"Volume {volume_id} status must be available or downloading to reserve"
            return _fault(400, "badRequest", f"Invalid volume: {rule}, but the current status is {status}.")
        return 200, {"attachment": self.attach(volume_id)}

    def attach(self, volume_id: str, instance: str | None = None) -> dict[str, Any]:
        self.volumes[volume_id]["status"] = "reserved"
        attachment = {
            "id": str(uuid4()),
            "status": "reserved",
            "instance": instance,
            "volume_id": volume_id,
            "attached_at": "",
            "detached_at": "",
            "attach_mode": "null",
            "connection_info": {},
        }
        self.attachments[attachment["id"]] = attachment
        return attachment

    def let_in(self, attachment_id: str, body: Any) -> tuple[int, Any]:
        if attachment_id not in self.attachments:
            return _no_attachment(attachment_id)
        attachment = self.attachments[attachment_id]
        volume_id = attachment["volume_id"]
        self.connectors[attachment_id] = body["attachment"]["connector"]
        info = {
            "target_discovered": False,
            "target_portal": "192.0.2.7:3260",
            "target_iqn": f"iqn.2010-10.org.openstack:volume-{volume_id}",
            "target_lun": 0,
            "volume_id": volume_id,
            "auth_method": "CHAP",
            "auth_username": "hZ7kQbXw3yTnVd9LmFpR",
            "auth_password": secret_of(volume_id),
            "encrypted": False,
            "qos_specs": None,
            "access_mode": "rw",
            "cacheable": False,
            "driver_volume_type": "iscsi",
            "attachment_id": attachment_id,
            "enforce_multipath": False,
        }
        info |= self.connection
        attachment["connection_info"] = {key: value for key, value in info.items() if value is not ...}
        answer = 200, {"attachment": dict(attachment)}  # the status is that of before
        attachment |= {"status": "attaching", "attached_at": "2026-11-29T10:53:11.355808", "attach_mode": "rw"}
        self.volumes[volume_id]["status"] = "attaching"
        return answer

    def completed(self, attachment_id: str) -> tuple[int, Any]:
        if attachment_id not in self.attachments:
            return _no_attachment(attachment_id)
        self.attachments[attachment_id]["status"] = "attached"
        self.volumes[self.attachments[attachment_id]["volume_id"]]["status"] = "in-use"
        return 204, None

    def detached(self, attachment_id: str) -> tuple[int, Any]:
        if attachment_id not in self.attachments:
            return _no_attachment(attachment_id)
        volume_id = self.attachments.pop(attachment_id)["volume_id"]
        self.connectors.pop(attachment_id, None)
        if not self._of(volume_id):
            self.volumes[volume_id]["status"] = "available"
        return 200, {"attachments": []}

    def _of(self, volume_id: str) -> list[dict[str, Any]]:
        return [item for item in self.attachments.values() if item["volume_id"] == volume_id]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if path.rstrip("/") in {"/identity/v3", "/image", "/volume/v3"} and method == "GET":
            return self.versions(path.strip("/"))
        for form, serve in (
            (r"POST /identity/v3/auth/tokens", lambda: self.token(body)),
            (r"POST /image/v2/images", lambda: self.image_made(body)),
            (r"GET /image/v2/images/([^/]+)", self.image),
            (r"DELETE /image/v2/images/([^/]+)", self.image_removed),
            (r"POST /volume/v3/volumes", lambda: self.volume_made(body)),
            (r"GET /volume/v3/volumes/detail", lambda: self.volumes_listed(query)),
            (r"GET /volume/v3/volumes/([^/]+)", self.volume),
            (r"DELETE /volume/v3/volumes/([^/]+)", self.volume_deleted),
            (r"POST /volume/v3/volumes/([^/]+)/metadata", lambda item: self.noted(item, body)),
            (r"DELETE /volume/v3/volumes/([^/]+)/metadata/([^/]+)", self.note_removed),
            (r"GET /volume/v3/messages", lambda: (200, {"messages": self.messages})),
            (r"GET /volume/v3/attachments", lambda: self.attachments_listed(query)),
            (r"POST /volume/v3/attachments", lambda: self.reserved(body)),
            (r"GET /volume/v3/attachments/([^/]+)", self.attachment),
            (r"PUT /volume/v3/attachments/([^/]+)", lambda item: self.let_in(item, body)),
            (r"POST /volume/v3/attachments/([^/]+)/action", self.completed),
            (r"DELETE /volume/v3/attachments/([^/]+)", self.detached),
        ):
            if match := re.fullmatch(form, f"{method} {path}"):
                found: tuple[int, Any] = serve(*match.groups())  # type: ignore[operator]
                return found
        return _html(404, "Not Found", "The resource could not be found.")


def secret_of(volume_id: str) -> str:
    return f"Sekrit{volume_id.replace('-', '')[:10]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    api: CinderApi
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body leave together, else each waits for the other's receipt

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        api, parts = self.api, urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        upload = re.fullmatch(r"/image/v2/images/([^/]+)/file", parts.path)
        with api.lock:
            api.requests.append(f"{self.command} {parts.path}")
            number = len(api.requests) - 1
            killed = api.cut_at is not None and number > api.cut_at
            begun = api.image_begun(upload[1]) if upload and not killed else None
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if killed:
            self._hang_up()
            return
        if upload and begun is None:
            time.sleep(api.upload_takes_s)
        with api.lock:
            found = api.fault(self.command, parts.path) or self._guarded(parts.path)
            if found is None and upload:
                found = begun or api.image_ended(upload[1], content)
            elif found is None:
                found = api.answer(self.command, parts.path, query, json.loads(content) if content else None)
            status, body = found
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else b""
        if api.cut_at == number:
            self._hang_up()
            return
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=UTF-8" if isinstance(body, str) else "application/json")
        if parts.path.endswith("/auth/tokens") and status == 201:
            self.send_header("X-Subject-Token", TOKEN)
        if status != 204:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _guarded(self, path: str) -> tuple[int, Any] | None:
        """What a service says to who has no token, or speaks an API that is too old for what is asked."""
        if path.startswith("/identity") or path.rstrip("/") in {"/image", "/volume/v3"}:
            return None
        if self.headers.get("X-Auth-Token") != TOKEN:
            return _keystone_fault(401, "The request you have made requires authentication.")
        said = re.fullmatch(r"volume 3\.(\d+)", self.headers.get("OpenStack-API-Version", "volume 3.0"))
        needed = 44 if path.endswith("/action") else 27 if "/attachments" in path else 0
        if path.startswith("/volume") and (said is None or int(said[1]) < needed):
            return _html(404, "Not Found", "The resource could not be found.")
        return None

    def log_message(self, *arguments: Any) -> None:
        pass


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")


def _fault(status: int, kind: str, message: str) -> tuple[int, Any]:
    return status, {kind: {"code": status, "message": message}}


def _keystone_fault(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": status, "message": message, "title": "Unauthorized"}}


def _no_volume(volume_id: str) -> tuple[int, Any]:
    return _fault(404, "itemNotFound", f"Volume {volume_id} could not be found.")


def _no_attachment(attachment_id: str) -> tuple[int, Any]:
    message = f"Volume attachment could not be found with filter: attachment_id = {attachment_id}."
    return _fault(404, "itemNotFound", message)


def _html(status: int, title: str, text: str) -> tuple[int, str]:
    head = f"<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n  <h1>{status} {title}</h1>\n"
    return status, f"{head}  {text}<br /><br />\n\n\n\n </body>\n</html>"
