"""Whole sites in labs of their own, as their operators see them: by the command line and the API.

A test run never meets another's lab: the name of a site's lab and the port of its API follow from its state directory,
which carries the pid of the run. What a run that was killed left behind is taken down by the next. A site that was
kept is taken down with `python -m tests.boot.sites DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

KOGUMA = Path(sys.executable).with_name("koguma")
# Not below pytest's directories, which only this user may enter: the database runs as another.
SITES = Path("/var/tmp")
PORTS = range(20000, 30000)
"""Below those that the kernel gives to clients."""


class Site:
    """A Koguma site, as its operator sees it."""

    def __init__(self, state: Path) -> None:
        number = int.from_bytes(hashlib.sha256(str(state).encode()).digest()[:8], "big")
        self.state = state
        self.lab = f"t{number % 16**5:05x}"
        api = f"127.0.0.1:{PORTS[number % len(PORTS)]}"
        self.url = f"http://{api}"
        self.environ = {
            **os.environ,
            "KOGUMA_STATE_DIR": str(state),
            "KOGUMA_API_LISTEN": api,
            "KOGUMA_LAB_NAME": self.lab,
            "KOGUMA_API": self.url,
            "NO_COLOR": "1",
        }
        # Asking by the command line every second would take a third of a core from the machines.
        self._api = httpx.Client(base_url=f"{self.url}/api/v1", timeout=30, trust_env=False)

    def close(self) -> None:
        self._api.close()

    def koguma(self, *words: str, check: bool = True, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KOGUMA, *words], env=self.environ, text=True, capture_output=True, check=False, timeout=timeout_s
        )
        if check and done.returncode != 0:
            pytest.fail(f"koguma {shlex.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.koguma(*words, "--json").stdout)

    def nodes(self) -> list[dict[str, Any]]:
        return sorted(self._api.get("/nodes").raise_for_status().json(), key=lambda node: node["name"])

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.nodes() if node["name"] == name)

    def boots(self, name: str) -> list[dict[str, Any]]:
        return list(self._api.get(f"/nodes/{name}/boots").raise_for_status().json())

    def machine(self, name: str) -> str:
        """The lab's name of a node's machine."""
        machines = {machine["uuid"]: machine["name"] for machine in self.json("lab", "status")["machines"]}
        return str(machines[self.node(name)["uuid"]])

    def wait_until_boot_service_knows(self, name: str, **plan: Any) -> None:
        """The boot service answers from its own copy, which follows within seconds."""

        def known() -> bool:
            snapshot = json.loads((self.state / "boot/snapshot.json").read_text())
            boots = {node["name"]: node["boot"] for node in snapshot["nodes"]}
            return all(boots[name][key] == value for key, value in plan.items())

        self.wait_for(f"the boot service knows of {name} that {plan}", known, 30)

    def ssh(self, name: str, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.koguma("lab", "ssh", self.machine(name), "--", command, check=check, timeout_s=60)

    def console(self, name: str) -> str:
        return (self.state / "lab" / "consoles" / f"{self.machine(name)}.log").read_text(errors="replace")

    def wait_for(self, what: str, condition: Callable[[], Any], timeout_s: float = 300) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if value := condition():
                    return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:.0f} s: {what}\n{self.story()}")
            time.sleep(1)

    def story(self) -> str:
        """What each node is at, its last two boots, the end of its console and of every log, in few lines."""
        lines, nodes = [], []
        try:
            nodes = self.nodes()
        except httpx.HTTPError as error:
            lines.append(f"the API does not answer: {error}")
        for node in nodes:
            keys = ("provision_state", "power_state", "target_power_state", "status_code", "status", "last_error")
            lines.append(f"{node['name']}: " + ", ".join(f"{key} {node[key]}" for key in keys if node[key]))
            for boot in self.boots(node["name"])[:2]:
                phases = [f"{phase['name']} {phase['outcome']} {phase['reason'] or ''}" for phase in boot["phases"]]
                lines.append(f"  boot {boot['label']} {boot['started_at']} {boot['outcome']}: {'; '.join(phases)}")
            with contextlib.suppress(OSError, KeyError):
                lines += [f"  console: {line}" for line in self.console(node["name"]).splitlines()[-4:]]
        for log in sorted((self.state / "lab/logs").glob("*.log")):
            lines += [f"{log.name}: {line[:200]}" for line in log.read_text(errors="replace").splitlines()[-6:]]
        return "\n".join(lines)

    def wait_for_boot(
        self, name: str, after: str, outcome: str = "succeeded", timeout_s: float = 300
    ) -> dict[str, Any]:
        """The newest boot record, once it is not the boot `after` and has ended as expected."""

        def ended() -> dict[str, Any] | None:
            newest = self.boots(name)[0]
            return newest if newest["id"] != after and newest["outcome"] == outcome else None

        found: dict[str, Any] = self.wait_for(f"{name} has a new boot that {outcome}", ended, timeout_s)
        return found

    def reboot(self, name: str) -> dict[str, Any]:
        """Reboot from inside and wait until the node is back."""
        before = self.boots(name)[0]["id"]
        self.ssh(name, "systemctl reboot --no-wall", check=False)
        return self.wait_for_boot(name, before)

    def processes(self, command: str) -> list[int]:
        """The pids of this site's processes whose command line ends with the words."""
        pids = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                words = (directory / "cmdline").read_bytes().split(b"\0")[:-1]
                environ = (directory / "environ").read_bytes()
            except OSError:
                continue
            ours = f"KOGUMA_STATE_DIR={self.state}".encode() in environ.split(b"\0")
            if ours and b" ".join(words).decode(errors="replace").endswith(command):
                pids.append(int(directory.name))
        return pids

    def remove(self) -> None:
        """Leave nothing of it on this machine."""
        self.close()
        self.koguma("lab", "down", check=False)
        subprocess.run(["rm", "-rf", str(self.state)], check=False)

    def kill_database(self) -> None:
        pid = int((self.state / "postgresql/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def kill(self, command: str) -> int:
        """SIGKILL to those processes; how many there were."""
        pids = self.processes(command)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)


AnySite = TypeVar("AnySite", bound=Site)


def send_signal(pids: list[int], name: str) -> None:
    for pid in pids:
        os.kill(pid, getattr(signal, f"SIG{name}"))


@contextlib.contextmanager
def site_of(kind: str, make: Callable[[Path], AnySite]) -> Iterator[AnySite]:
    """A site for the tests of a kind; one that KOGUMA_TEST_SITE_<KIND> names is kept for the next run to find."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    remove_abandoned()
    kept = os.environ.get(f"KOGUMA_TEST_SITE_{kind.upper()}")
    site = make(Path(kept) if kept else SITES / f"koguma-test-{kind}-{os.getpid()}")
    try:
        yield site
    finally:
        if kept:
            site.close()
        else:
            site.remove()


def remove_abandoned() -> None:
    """Take down the sites of test runs that no longer live."""
    for state in SITES.glob("koguma-test-*-*"):
        pid = state.name.rpartition("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            Site(state).remove()


if __name__ == "__main__":
    Site(Path(sys.argv[1])).remove()
