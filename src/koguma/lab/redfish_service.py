"""The process behind a Redfish BMC: sushy-tools' emulator, with a driver of ours that powers the lab's QEMU.

    python -m koguma.lab.redfish_service HOME LAB MACHINE

The emulator owns HTTP, accounts and the resources; `QemuSystem` owns the machine. Two things the emulator does not
keep are answered here: whether a boot device is chosen once or for good, and that none is chosen. What was chosen and
inserted is in the BMC's directory and outlives the process; so does the machine, which is found again by its record.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import bcrypt
import flask
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver

from koguma.lab import launch
from koguma.lab.bmc import FACTORY_PASSWORD, FACTORY_USER
from koguma.lab.command import wait_until
from koguma.lab.errors import LabError
from koguma.lab.lab import recall
from koguma.lab.machine import BOOT_DEVICES, BootSettings, BootSource, boot_devices, boot_index, write_launch_file
from koguma.lab.monitor import Monitor
from koguma.lab.plan import Firmware, Machine, Plan
from koguma.lab.processes import Processes, end, write_atomically
from koguma.lab.redfish_bmc import PORT, certificate_of, key_of

START_S = 10
NO_OVERRIDE = "Disabled"


class Settings:
    """What was asked of the BMC and is to be remembered: `override` is Once, Continuous or Disabled."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.source = BootSource.NETWORK
        self.override = NO_OVERRIDE
        self.cdrom: Path | None = None
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.source, self.override = BootSource(kept["source"]), kept["override"]
            self.cdrom = Path(kept["cdrom"]) if kept["cdrom"] else None

    @property
    def boot(self) -> BootSettings:
        """For the next start of the machine."""
        first = BootSource.NETWORK if self.override == NO_OVERRIDE else self.source
        return BootSettings(first, self.cdrom if self.cdrom and self.cdrom.exists() else None)

    def keep(self) -> None:
        kept = {"source": self.source.value, "override": self.override, "cdrom": str(self.cdrom or "")}
        write_atomically(self._path, json.dumps(kept) + "\n")


class QemuSystem(AbstractSystemsDriver):  # type: ignore[misc]  # sushy-tools has no types
    """One machine, in the words of the emulator; `identity` is its UUID."""

    def __init__(self, machine: Machine, switch_namespace: str) -> None:
        self._machine = machine
        self._switch = switch_namespace
        self._processes = Processes(machine.home)
        self._turn = threading.RLock()
        self.settings = Settings(machine.bmc_dir / "settings.json")

    @property
    def driver(self) -> str:
        return "<koguma lab>"

    @property
    def systems(self) -> list[str]:
        return [self._machine.uuid]

    def uuid(self, identity: str) -> str:
        if identity not in (self._machine.uuid, self._machine.name):
            raise error.NotFound(f"this BMC has one system, {self._machine.uuid}, got {identity}")
        return self._machine.uuid

    def name(self, identity: str) -> str:
        self.uuid(identity)
        return self._machine.name

    def get_power_state(self, identity: str) -> str:
        self.uuid(identity)
        return "On" if self._processes.running(self._machine.name) else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        with self._turn:
            is_on = self.get_power_state(identity) == "On"
            if state in ("On", "ForceOn"):
                self._start()
            elif not is_on:
                if state not in ("ForceOff", "GracefulShutdown"):
                    raise error.BadRequest(f"the machine must be on for {state}, it is off")
            elif state == "ForceOff":
                self._stop()
            else:
                self._tell(state)

    def get_boot_device(self, identity: str) -> str:
        self.uuid(identity)
        return self.settings.source.value

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        self.uuid(identity)
        self.choose(boot_source, "Continuous")

    def choose(self, source: str | None, override: str) -> None:
        """BadRequest for what this machine cannot do."""
        known = {item.value for item in BootSource}
        if source is not None and source not in known:
            raise error.BadRequest(f"BootSourceOverrideTarget must be one of {', '.join(sorted(known))}, got {source}")
        if override not in ("Once", "Continuous", NO_OVERRIDE):
            raise error.BadRequest(f"BootSourceOverrideEnabled must be Once, Continuous or Disabled, got {override}")
        with self._turn:
            self.settings.override = override if source or override == NO_OVERRIDE else self.settings.override
            self.settings.source = BootSource(source) if source else self.settings.source
            self.settings.keep()

    def get_boot_mode(self, identity: str) -> str:
        self.uuid(identity)
        return "UEFI" if self._machine.hardware.firmware is Firmware.UEFI else "Legacy"

    def set_boot_mode(self, identity: str, boot_mode: str) -> None:
        if boot_mode != self.get_boot_mode(identity):
            raise error.BadRequest(f"the firmware is {self.get_boot_mode(identity)} for good, got {boot_mode}")

    def get_total_memory(self, identity: str) -> float:
        self.uuid(identity)
        return self._machine.hardware.memory_mib / 1024

    def get_total_cpus(self, identity: str) -> int:
        self.uuid(identity)
        return self._machine.hardware.cpus

    def get_nics(self, identity: str) -> list[dict[str, str]]:
        self.uuid(identity)
        return [{"id": nic.mac, "mac": nic.mac} for nic in self._machine.nics]

    def set_boot_image(
        self, identity: str, device: str, boot_image: str | None = None, write_protected: bool = True
    ) -> None:
        """Put an image into the virtual drive, or take it out."""
        if device != "Cd" or not write_protected:
            raise error.NotSupportedError(f"the virtual drive is a CD drive, got {device}")
        with self._turn:
            self.settings.cdrom = Path(boot_image) if boot_image else None
            self.settings.keep()
            if self.get_power_state(identity) != "On":
                return
            drive = BOOT_DEVICES[BootSource.CDROM]
            with Monitor(self._machine.qmp_socket) as monitor:
                if boot_image:
                    monitor.execute("blockdev-change-medium", id=drive, filename=boot_image, format="raw", force=True)
                else:
                    monitor.execute("eject", id=drive, force=True)

    def _start(self) -> None:
        if self._processes.running(self._machine.name):
            return
        path = write_launch_file(self._machine, self._switch, self.settings.boot)
        # In a session of its own: a BMC that is killed does not take its machine with it.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(path)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=process.wait, daemon=True).start()

        def runs() -> bool:
            if process.poll() is not None:
                raise LabError(f"the machine ended as soon as it was started, see its log ({self._machine.name})")
            return self._processes.running(self._machine.name) is not None and self._machine.qmp_socket.exists()

        wait_until(f"{self._machine.name} on", runs, timeout_s=START_S)
        self._begun()

    def _stop(self) -> None:
        record = self._processes.running(self._machine.name)
        if record:
            end([record], term_s=3, kill_s=3)

    def _tell(self, state: str) -> None:
        commands = {"GracefulShutdown": "system_powerdown", "Nmi": "inject-nmi", "ForceRestart": "system_reset"}
        if state not in commands:
            raise error.NotSupportedError(f"ResetType must be one of On, ForceOff, {', '.join(commands)}, got {state}")
        with Monitor(self._machine.qmp_socket) as monitor:
            if state == "ForceRestart":
                self._order(monitor, self.settings.boot.first)
            monitor.execute(commands[state])
            if state == "ForceRestart":
                monitor.wait_for("RESET")
        if state == "ForceRestart":
            self._begun()

    def _begun(self) -> None:
        """The firmware has its order: what was chosen once is used up, and a reboot of the machine follows the rest."""
        if self.settings.override == "Once":
            self.settings.override = NO_OVERRIDE
            self.settings.keep()
        with Monitor(self._machine.qmp_socket) as monitor:
            self._order(monitor, self.settings.boot.first)

    def _order(self, monitor: Monitor, first: BootSource) -> None:
        """The firmware reads it at the next reset."""
        devices = boot_devices(self._machine)
        for device in devices.values():
            # No two devices may have the same place, not even for a moment.
            monitor.execute("qom-set", path=f"/machine/peripheral/{device}", property="bootindex", value=-1)
        for source, device in devices.items():
            place = boot_index(source, first)
            monitor.execute("qom-set", path=f"/machine/peripheral/{device}", property="bootindex", value=place)


def take_boot_override(system: QemuSystem) -> Any:
    """Answers a PATCH of the system's `Boot` in the emulator's place; None leaves a request to the emulator."""
    boot = (flask.request.get_json(silent=True) or {}).get("Boot") if flask.request.method == "PATCH" else None
    if not isinstance(boot, dict) or not flask.request.path.rstrip("/").endswith(system.systems[0]):
        return None
    if mode := boot.get("BootSourceOverrideMode"):
        system.set_boot_mode(system.systems[0], mode)
    target, enabled = boot.get("BootSourceOverrideTarget"), boot.get("BootSourceOverrideEnabled", "Once")
    if target == "None":
        target, enabled = None, NO_OVERRIDE
    system.choose(target, enabled)
    return flask.Response(status=204)


def tell_boot_override(system: QemuSystem, response: flask.Response) -> flask.Response:
    """The emulator's document of the system, with what is chosen."""
    asked = flask.request.method, flask.request.path.rstrip("/")
    if asked == ("GET", f"/redfish/v1/Systems/{system.systems[0]}") and response.status_code == 200:
        document, settings = response.get_json(), system.settings
        target = "None" if settings.override == NO_OVERRIDE else settings.source.value
        document["Boot"].update(BootSourceOverrideEnabled=settings.override, BootSourceOverrideTarget=target)
        response.set_data(json.dumps(document))
    return response


def serve(machine: Machine, switch_namespace: str) -> None:
    directory = machine.bmc_dir
    media = directory / "media"
    media.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(media)  # where the emulator downloads images to
    users = directory / "users"
    if not users.exists():
        hashed = bcrypt.hashpw(FACTORY_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        write_atomically(users, f"{FACTORY_USER}:{hashed}\n", mode=0o600)
    system = QemuSystem(machine, switch_namespace)
    emulator.Application.systems = property(lambda _: system)
    application = emulator.app
    application.configure(
        extra_config={
            "SUSHY_EMULATOR_AUTH_FILE": str(users),
            "SUSHY_EMULATOR_STATE_DIR": str(directory / "emulator"),
            "SUSHY_EMULATOR_VMEDIA_DEVICES": {"Cd": {"Name": "Virtual CD", "MediaTypes": ["CD", "DVD"]}},
        }
    )
    application.before_request(lambda: take_boot_override(system))
    application.after_request(lambda response: tell_boot_override(system, response))
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(certificate_of(machine), key_of(machine))
    application.run(host=str(machine.bmc_address), port=PORT, ssl_context=trust, threaded=True)


def main(arguments: list[str]) -> None:
    home, lab, name = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    plan = recall(Plan(lab, Path(home)))
    serve(plan.machine(name), plan.switch_namespace)


if __name__ == "__main__":
    main(sys.argv[1:])
