"""A BMC that speaks Redfish over HTTPS: one `koguma.lab.redfish_service` per chassis, seen from the lab.

Its machine has no way to it, as many have none in use: an operator tells Koguma where it is. Its certificate signs
itself and is made once, as at the factory.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import ssl
import sys
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from koguma.lab import netns
from koguma.lab.bmc import FACTORY_PASSWORD, FACTORY_USER, LINK, Account, PowerAction
from koguma.lab.command import run, wait_until
from koguma.lab.errors import CommandError, ToolsMissingError
from koguma.lab.plan import Machine
from koguma.lab.processes import Processes, write_atomically

PORT = 443
START_S = 60
CALL_S = 30
CERTIFICATE_DAYS = 3650
RESETS = {
    PowerAction.ON: ("On",),
    PowerAction.OFF: ("ForceOff",),
    PowerAction.CYCLE: ("ForceOff", "On"),
    PowerAction.RESET: ("ForceRestart",),
    PowerAction.SOFT: ("GracefulShutdown",),
}


class RedfishBmc:
    """`koguma.lab.bmc.Bmc` for the emulator."""

    def __init__(self, machine: Machine, controller_namespace: str, processes: Processes) -> None:
        self._machine = machine
        self._controller = controller_namespace
        self._processes = processes
        self._name = f"{machine.name}-bmc"
        self._log = machine.home / "logs" / f"{self._name}.log"

    def up(self) -> None:
        """Ensure that the BMC has its address and answers."""
        if importlib.util.find_spec("sushy_tools") is None:
            raise ToolsMissingError("a Redfish BMC needs the Python package sushy-tools: pip install 'koguma[lab]'")
        namespace, network = self._machine.namespace, self._machine.bmc_network
        netns.set_address(namespace, LINK, f"{self._machine.bmc_address}/{network.prefixlen}")
        run(["ip", "-n", namespace, "route", "replace", "default", "via", str(network[1]), "dev", LINK])
        _ensure_certificate(self._machine)
        service = [sys.executable, "-m", "koguma.lab.redfish_service"]
        self._processes.start(
            self._name,
            netns.argv_in(namespace, [*service, str(self._machine.home), self._machine.lab, self._machine.name]),
            log=self._log,
        )

        def answers() -> bool:
            self._processes.require(self._name, self._log)
            return self.power_is_on_or_none() is not None

        wait_until(f"the BMC of {self._machine.name} answering", answers, timeout_s=START_S, every_s=0.2)

    def running(self) -> bool:
        return self._processes.running(self._name) is not None

    def address(self) -> str:
        return str(self._machine.bmc_address)

    def power(self, action: PowerAction, account: Account | None = None) -> None:
        for reset in RESETS[action]:
            path = f"/redfish/v1/Systems/{self._machine.uuid}/Actions/ComputerSystem.Reset"
            self._call("POST", path, account, {"ResetType": reset})

    def power_is_on(self, account: Account | None = None) -> bool:
        system = self._call("GET", f"/redfish/v1/Systems/{self._machine.uuid}", account)
        return bool(system["PowerState"] == "On")

    def power_is_on_or_none(self, account: Account | None = None) -> bool | None:
        try:
            return self.power_is_on(account)
        except CommandError:
            return None

    def credentials(self) -> dict[str, str]:
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_of(self._machine).read_text())).hexdigest()
        return {
            "driver": "redfish",
            "address": f"redfish://{self.address()}?tls=sha256:{fingerprint}",
            "username": FACTORY_USER,
            "password": FACTORY_PASSWORD,
        }

    def _call(self, method: str, path: str, account: Account | None, body: dict[str, Any] | None = None) -> Any:
        """Over the BMC network, from the controller."""
        user = account or Account()
        url = f"https://{self.address()}{path}"
        trust = ssl.create_default_context(cafile=str(certificate_of(self._machine)))
        try:
            with netns.inside(self._controller):
                answer = httpx.request(
                    method,
                    url,
                    json=body,
                    auth=(user.username, user.password),
                    verify=trust,
                    timeout=CALL_S,
                    trust_env=False,
                )
            answer.raise_for_status()
            return answer.json() if answer.content else None
        except (httpx.HTTPError, ValueError) as error:
            raise CommandError(f"the BMC of {self._machine.name} must do {method} {url}: {error}") from error


def certificate_of(machine: Machine) -> Path:
    return machine.bmc_dir / "certificate.pem"


def key_of(machine: Machine) -> Path:
    return machine.bmc_dir / "key.pem"


def _ensure_certificate(machine: Machine) -> None:
    if certificate_of(machine).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, machine.namespace)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(machine.bmc_address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(key_of(machine), private.decode(), mode=0o600)
    write_atomically(certificate_of(machine), made.public_bytes(serialization.Encoding.PEM).decode())
