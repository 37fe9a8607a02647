"""`koguma up` as others script against it: an empty directory, one command, an API, and a clean end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from koguma.cli.client import ApiError, Client

pytestmark = pytest.mark.slow

START_S = 60.0
"""Ten seconds on an idle machine; a busy one takes longer."""


class Site:
    """One `koguma up` on a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.log = directory / "up.log"
        command = [sys.executable, "-m", "koguma", "up", "--state", str(directory / "state"), "--api", self.address]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--no-boot", *options], stdout=output, stderr=subprocess.STDOUT, cwd=directory
            )

    def get(self, path: str, **headers: str) -> Any:
        url = f"http://{self.address}{path}"
        named = {"X-OpenStack-Ironic-API-Version": "1.115", **headers}
        with urllib.request.urlopen(urllib.request.Request(url, headers=named), timeout=10) as answer:
            return json.load(answer)

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.get("/v1/")
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"no answer within {START_S} s: {self.log.read_text()[-2000:]}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    begun: list[Site] = []
    yield begun
    for site in begun:
        if site.process.poll() is None:
            site.process.kill()
            site.process.wait()


def test_an_empty_directory_becomes_a_site_that_deploys_and_stops_cleanly(sites: list[Site], tmp_path: Path) -> None:
    site = Site(tmp_path, "--auth", "none")
    sites.append(site)
    site.wait()
    body = json.dumps({"driver": "fake-hardware", "name": "n1"}).encode()
    headers = {"X-OpenStack-Ironic-API-Version": "1.115", "Content-Type": "application/json"}
    base = f"http://{site.address}/v1/nodes"
    urllib.request.urlopen(urllib.request.Request(base, body, headers), timeout=10).close()
    for verb, state in (("manage", "manageable"), ("provide", "available"), ("active", "active")):
        ask = urllib.request.Request(
            f"{base}/n1/states/provision", json.dumps({"target": verb}).encode(), headers, method="PUT"
        )
        urllib.request.urlopen(ask, timeout=10).close()
        deadline = time.monotonic() + 60
        while (node := site.get("/v1/nodes/n1"))["provision_state"] != state:
            assert time.monotonic() < deadline, node
            time.sleep(0.1)
    assert site.stop() == 0, site.log.read_text()[-2000:]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(tuple(site.address.split(":")), timeout=2)  # type: ignore[arg-type]
    state_dir = str(tmp_path / "state").encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, state_dir)]


def test_a_user_file_closes_both_apis(sites: list[Site], tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"operator:{bcrypt.hashpw(b'p@ss', bcrypt.gensalt(4)).decode()}\n")
    site = Site(tmp_path, "--auth", "http_basic", "--users", str(users))
    sites.append(site)
    site.wait()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        site.get("/v1/nodes")
    with pytest.raises(ApiError, match="Authorization required"):
        Client(f"http://{site.address}").get("nodes")
    assert Client(f"http://operator:p%40ss@{site.address}").get("nodes") == []
    assert site.stop() == 0


def _mentions(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except OSError:
        return False
