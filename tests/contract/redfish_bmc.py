"""Redfish BMCs for tests, over HTTP or HTTPS: a stateful one of our own that can also misbehave, and the emulator of
`sushy-tools`, written by others, as a process.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from koguma.contracts.power import Access
from koguma.model.states import PowerState

USER, PASSWORD = "koguma", "s3cretpw1"
SYSTEM = "/redfish/v1/Systems/1"
SIMPLE_UPDATE = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate"
TASK = "/redfish/v1/TaskService/TaskMonitors/1"
RESETS = ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi"]
SOURCES = ["None", "Pxe", "Hdd", "Cd", "BiosSetup", "UefiHttp"]
FACTORY_BIOS = {"BootMode": "Uefi", "NumaEnabled": True, "QuietBoot": True}


class RedfishBmc:
    """Serves one machine until `close`. `fault`, given the path, answers in place of the service or returns None."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.restore()
        handler = type("Handler", (_Handler,), {"bmc": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.scheme = "redfish+http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "redfish"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def restore(self) -> None:
        """As it comes from the factory."""
        self.state = PowerState.OFF
        self.stuck = False
        self.boot: dict[str, Any] = {
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": SOURCES,
        }
        self.media: dict[str, str | None] = {"Cd": None, "Usb": None}
        self.bios: dict[str, Any] = dict(FACTORY_BIOS)
        self.pending: dict[str, Any] = {}
        self.secure_boot = False
        self.update: dict[str, Any] = {}
        self.asked_update: dict[str, Any] = {}
        self.resets: list[str] = []
        self.resets_known = list(RESETS)
        self.requests: list[str] = []
        self.fault: Callable[[str], tuple[int, bytes] | None] = lambda _: None

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def access(self) -> Access:
        return Access("redfish", f"{self.scheme}://127.0.0.1:{self.port}", USER, PASSWORD)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def get(self, path: str) -> dict[str, Any] | None:
        resources: dict[str, Callable[[], dict[str, Any]]] = {
            "/redfish/v1": self._root,
            "/redfish/v1/Systems": lambda: _members("/redfish/v1/Systems", [SYSTEM]),
            SYSTEM: self._system,
            f"{SYSTEM}/Bios": lambda: {
                "Attributes": self.bios,
                "@Redfish.Settings": {"SettingsObject": {"@odata.id": f"{SYSTEM}/Bios/Settings"}},
                "Actions": {"#Bios.ResetBios": {"target": f"{SYSTEM}/Bios/Actions/Bios.ResetBios"}},
            },
            f"{SYSTEM}/Bios/Settings": lambda: {"Attributes": {**self.bios, **self.pending}},
            f"{SYSTEM}/SecureBoot": lambda: {"SecureBootEnable": self.secure_boot},
            f"{SYSTEM}/VirtualMedia": lambda: _members(
                f"{SYSTEM}/VirtualMedia", [f"{SYSTEM}/VirtualMedia/{name}" for name in self.media]
            ),
            "/redfish/v1/UpdateService": lambda: {
                "FirmwareInventory": {"@odata.id": "/redfish/v1/UpdateService/FirmwareInventory"},
                "Actions": {
                    "#UpdateService.SimpleUpdate": {
                        "target": SIMPLE_UPDATE,
                        "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"],
                    }
                },
            },
            TASK: lambda: self.update,
            "/redfish/v1/UpdateService/FirmwareInventory": lambda: _members(
                "/redfish/v1/UpdateService/FirmwareInventory",
                [f"/redfish/v1/UpdateService/FirmwareInventory/{name}" for name in ("BIOS", "BMC")],
            ),
        }
        for name in ("BIOS", "BMC"):
            resources[f"/redfish/v1/UpdateService/FirmwareInventory/{name}"] = lambda name=name: {
                "Version": "1.0",
                "Updateable": True,
                "Name": name,
            }
        for name, image in self.media.items():
            place = f"{SYSTEM}/VirtualMedia/{name}"
            resources[place] = lambda name=name, image=image, place=place: {
                "MediaTypes": ["CD", "DVD"] if name == "Cd" else ["USBStick"],
                "Image": image,
                "Inserted": image is not None,
                "Actions": {
                    "#VirtualMedia.InsertMedia": {"target": f"{place}/Actions/VirtualMedia.InsertMedia"},
                    "#VirtualMedia.EjectMedia": {"target": f"{place}/Actions/VirtualMedia.EjectMedia"},
                },
            }
        if path not in resources:
            return None
        named = {"@odata.id": path, "Id": path.rsplit("/", 1)[-1], "Name": path.rsplit("/", 1)[-1]}
        return {**named, **resources[path]()}

    def change(self, path: str, body: dict[str, Any]) -> int:
        """A PATCH or POST; the status."""
        if path == SYSTEM and "Boot" in body:
            if body["Boot"].get("BootSourceOverrideTarget", "None") not in SOURCES:
                return 400
            self.boot.update(body["Boot"])
        elif path == f"{SYSTEM}/Actions/ComputerSystem.Reset":
            return self._reset(body["ResetType"])
        elif path == f"{SYSTEM}/Bios/Settings":
            self.pending.update(body["Attributes"])
        elif path == f"{SYSTEM}/Bios/Actions/Bios.ResetBios":
            self.pending = dict(FACTORY_BIOS)
        elif path == f"{SYSTEM}/SecureBoot":
            self.secure_boot = body["SecureBootEnable"]
        elif path == SIMPLE_UPDATE:
            self.update = {"Id": "1", "Name": "update", "TaskState": "Running", "PercentComplete": 40}
            self.asked_update = body
            return 202
        elif path.startswith(f"{SYSTEM}/VirtualMedia/"):
            name = path.removeprefix(f"{SYSTEM}/VirtualMedia/").split("/")[0]
            if path.endswith("InsertMedia") and self.media[name]:
                return 409  # something is in it
            self.media[name] = body["Image"] if path.endswith("InsertMedia") else None
        else:
            return 404
        return 204

    def _root(self) -> dict[str, Any]:
        return {
            "RedfishVersion": "1.6.0",
            "UUID": "92384634-2938-2342-8820-489239905423",
            "Systems": {"@odata.id": "/redfish/v1/Systems"},
            "UpdateService": {"@odata.id": "/redfish/v1/UpdateService"},
        }

    def _system(self) -> dict[str, Any]:
        reset = {"target": f"{SYSTEM}/Actions/ComputerSystem.Reset"}
        return {
            "PowerState": "On" if self.state is PowerState.ON else "Off",
            "Boot": self.boot,
            "Bios": {"@odata.id": f"{SYSTEM}/Bios"},
            "SecureBoot": {"@odata.id": f"{SYSTEM}/SecureBoot"},
            "VirtualMedia": {"@odata.id": f"{SYSTEM}/VirtualMedia"},
            "Actions": {
                "#ComputerSystem.Reset": {**reset, "ResetType@Redfish.AllowableValues": self.resets_known},
            },
        }

    def _reset(self, kind: str) -> int:
        if kind not in self.resets_known:
            return 400
        self.resets.append(kind)
        if self.stuck or kind == "Nmi":
            return 204
        before = self.state
        self.state = PowerState.OFF if kind in {"ForceOff", "GracefulShutdown"} else PowerState.ON
        if self.state is PowerState.ON and (before is not PowerState.ON or kind == "ForceRestart"):
            self.bios.update(self.pending)
            self.pending = {}
            if self.boot["BootSourceOverrideEnabled"] == "Once":
                self.boot.update(BootSourceOverrideEnabled="Disabled", BootSourceOverrideTarget="None")
        return 204


class _Handler(http.server.BaseHTTPRequestHandler):
    bmc: RedfishBmc
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.rstrip("/")
        self.bmc.requests.append(f"GET {path}")
        if self._misbehaves(path) or self._is_stranger(path):
            return
        found = self.bmc.get(path)
        running = path == TASK and self.bmc.update.get("TaskState") == "Running"
        self._answer(
            202 if running else 200 if found else 404, json.dumps(found or _error("no such resource")).encode()
        )

    def do_PATCH(self) -> None:
        path = self.path.rstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self.bmc.requests.append(f"{self.command} {path}")
        if self._misbehaves(path) or self._is_stranger(path):
            return
        status = self.bmc.change(path, body)
        self._answer(status, b"" if status in {202, 204} else json.dumps(_error("refused")).encode())

    do_POST = do_PATCH  # noqa: N815 - the name is http.server's

    def _misbehaves(self, path: str) -> bool:
        fault = self.bmc.fault(path)
        if fault is None:
            return False
        self._answer(*fault)
        return True

    def _is_stranger(self, path: str) -> bool:
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if path == "/redfish/v1" or self.headers.get("Authorization") == f"Basic {token}":
            return False
        self._answer(401, json.dumps(_error("who are you?")).encode())
        return True

    def _answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 202:
                self.send_header("Location", TASK)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # a driver whose time is up has gone

    def log_message(self, *args: object) -> None:
        pass


def _members(path: str, places: list[str]) -> dict[str, Any]:
    return {"@odata.id": path, "Members": [{"@odata.id": place} for place in places]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"code": "Base.1.0.GeneralError", "message": message}}


class EmulatorBmc:
    """`sushy-emulator` with its fake machine, over HTTPS or HTTP, with a user of its own; `close` ends the process.

    Its fake machine takes one to eleven seconds to follow by design; here it follows at once.
    """

    _PROGRAM = (
        "import random; random.randint = lambda first, last: 0\nfrom sushy_tools.emulator.main import main; main()"
    )

    def __init__(self, directory: Path, certificate: tuple[Path, Path]) -> None:
        self.directory = directory
        self.port = _free_port()
        self.fingerprint = fingerprint(certificate[0])
        (directory / "users").write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
        (directory / "config.py").write_text(
            f"SUSHY_EMULATOR_AUTH_FILE = {str(directory / 'users')!r}\n"
            f"SUSHY_EMULATOR_STATE_DIR = {str(directory)!r}\n"
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n"
        )
        argv = [sys.executable, "-c", self._PROGRAM, "--fake", "--config", str(directory / "config.py")]
        argv += ["--interface", "127.0.0.1", "--port", str(self.port)]
        argv += ["--ssl-certificate", str(certificate[0]), "--ssl-key", str(certificate[1])]
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": ""},
            )
        self._wait_until_it_answers()

    @property
    def access(self) -> Access:
        return Access("redfish", f"redfish://127.0.0.1:{self.port}?tls=sha256:{self.fingerprint}", USER, PASSWORD)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _wait_until_it_answers(self) -> None:
        context = ssl._create_unverified_context()
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"https://127.0.0.1:{self.port}/redfish/v1/", timeout=2, context=context).close()
            except (URLError, OSError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.close()
                    raise AssertionError((self.directory / "log").read_text()) from None
                time.sleep(0.1)
            else:
                return


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "bmc.crt", directory / "bmc.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def fingerprint(path: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


def _bcrypt(password: str) -> str:
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
