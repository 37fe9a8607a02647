"""Koguma behind a real Keystone: tokens of system and project scope, owners and lessees.

    python -m tests.openstack.run_keystone [--work DIR]

1. Install the released keystone and keystonemiddleware into environments of their own.
2. Start Keystone on SQLite and a loopback port: projects `mine` and `other`, users with roles, Koguma's own account.
3. Start `koguma up --auth keystone` on an empty directory, with the middleware on its path.
4. Ask with tokens that Keystone gave, and compare what is answered with what Ironic's rules say.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.openstack.released import STOP_TIMEOUT_S, environment, free_address, version, wait_for

PASSWORD = "correct horse"
KEYSTONE_CONF = """
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{work}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {work}/fernet
[credential]
key_repository = {work}/credential
[oslo_policy]
enforce_scope = true
"""
SERVE = """
import sys
from wsgiref.simple_server import make_server, WSGIRequestHandler
from keystone.server.wsgi import initialize_public_application
host, port = sys.argv.pop(1).split(":")
class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass
make_server(host, int(port), initialize_public_application(), handler_class=Quiet).serve_forever()
"""
START_S = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the environments are kept for the next time")
    work = (parser.parse_args().work or Path(tempfile.mkdtemp(prefix="koguma-keystone-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work / "venv", ("keystone", "keystonemiddleware"))
    with keystone(work, python) as auth_url, koguma(work, python, auth_url) as url:
        wrong = compare(auth_url, url)
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"keystone {version(python, 'keystone')}, keystonemiddleware {version(python, 'keystonemiddleware')}:"
          f" {'as Ironic answers' if not wrong else f'{len(wrong)} differences'}")  # fmt: skip
    return 1 if wrong else 0


@contextlib.contextmanager
def keystone(work: Path, python: Path) -> Iterator[str]:
    """A fresh Keystone; its URL."""
    state = Path(tempfile.mkdtemp(prefix="state-", dir=work))
    (state / "keystone.conf").write_text(KEYSTONE_CONF.format(work=state))
    (state / "serve.py").write_text(SERVE)
    address = free_address()
    environ = {**os.environ, "OS_KEYSTONE_CONFIG_FILES": str(state / "keystone.conf"), "PYTHONWARNINGS": "ignore"}
    manage = [str(python.with_name("keystone-manage")), "--config-file", str(state / "keystone.conf")]
    me = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    for words in (
        ["db_sync"],
        ["fernet_setup", *me],
        ["credential_setup", *me],
        ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-internal-url", f"http://{address}/v3"],
    ):
        subprocess.run([*manage, *words], check=True, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (state / "log").open("wb") as log:
        process = subprocess.Popen([str(python), str(state / "serve.py"), address], env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://{address}/v3", trust_env=False).status_code == 200:
                    break
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"Keystone must answer; it said:\n{(state / 'log').read_text()[-3000:]}")
            time.sleep(0.3)
        yield f"http://{address}/v3"
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def koguma(work: Path, python: Path, auth_url: str) -> Iterator[str]:
    """`koguma up --auth keystone`, which finds the middleware in the other environment; its URL."""
    admin = Keystone(auth_url)
    admin.user("koguma", PASSWORD, [("admin", {"project": "service"}), ("service", {"project": "service"})])
    address, log = free_address(), work / "koguma.log"
    state = tempfile.mkdtemp(prefix="koguma-keystone-")
    packages = next((work / "venv/lib").glob("python3*/site-packages"))
    environ = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "KOGUMA_KEYSTONE_AUTH_URL": auth_url,
        "KOGUMA_KEYSTONE_PASSWORD": PASSWORD,
    }
    command = [
        sys.executable,
        "-m",
        "koguma",
        "up",
        "--state",
        state,
        "--api",
        address,
        "--auth",
        "keystone",
        "--no-boot",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ)
    try:
        wait_for(f"http://{address}/v1/", process, log, needle=b'"v1"')
        yield f"http://{address}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
        subprocess.run(["rm", "-rf", state], check=False)


class Keystone:
    """Keystone's API as its administrator asks it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._api = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self._api.headers["X-Auth-Token"] = self.token("admin", PASSWORD, {"system": {"all": True}})
        self._roles = {item["name"]: item["id"] for item in self._get("/roles", "roles")}
        self.projects = {item["name"]: item["id"] for item in self._get("/projects", "projects")}

    def token(self, user: str, password: str, scope: dict[str, Any]) -> str:
        who = {"user": {"name": user, "domain": {"id": "default"}, "password": password}}
        body = {"auth": {"identity": {"methods": ["password"], "password": who}, "scope": scope}}
        answer = self._api.post("/auth/tokens", json=body)
        answer.raise_for_status()
        return str(answer.headers["X-Subject-Token"])

    def project(self, name: str) -> str:
        if name not in self.projects:
            body = {"project": {"name": name, "domain_id": "default"}}
            self.projects[name] = self._api.post("/projects", json=body).raise_for_status().json()["project"]["id"]
        return str(self.projects[name])

    def user(self, name: str, password: str, roles: list[tuple[str, dict[str, str]]]) -> None:
        """A user with roles on `{"project": NAME}` or `{"system": "all"}`."""
        body = {"user": {"name": name, "domain_id": "default", "password": password}}
        user = self._api.post("/users", json=body).raise_for_status().json()["user"]["id"]
        for role, scope in roles:
            place = "system" if "system" in scope else f"projects/{self.project(scope['project'])}"
            self._api.put(f"/{place}/users/{user}/roles/{self._roles[role]}").raise_for_status()

    def service(self, kind: str, url: str) -> None:
        """A service of the catalog, with a public endpoint."""
        body = {"service": {"type": kind, "name": kind}}
        made = self._api.post("/services", json=body).raise_for_status().json()["service"]["id"]
        endpoint = {"service_id": made, "interface": "public", "url": url, "region": "RegionOne"}
        self._api.post("/endpoints", json={"endpoint": endpoint}).raise_for_status()

    def _get(self, path: str, key: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._api.get(path).raise_for_status().json()[key]
        return items


def compare(auth_url: str, url: str) -> list[str]:
    """What is answered otherwise than Ironic's rules say."""
    admin = Keystone(auth_url)
    mine, other = admin.project("mine"), admin.project("other")
    system = admin.token("admin", PASSWORD, {"system": {"all": True}})
    tokens = {"system admin": system}
    for project in ("mine", "other"):
        for role in ("admin", "member", "reader"):
            admin.user(f"{project}-{role}", PASSWORD, [(role, {"project": project})])
            scope = {"project": {"name": project, "domain": {"id": "default"}}}
            tokens[f"{project} {role}"] = admin.token(f"{project}-{role}", PASSWORD, scope)
    ask = Asker(url)
    body = {"driver": "fake-hardware", "name": "n1", "owner": mine, "lessee": other}
    made = ask("POST", "/v1/nodes", system, body)
    provision = ("PUT", "/v1/nodes/n1/states/provision", {"target": "manage"})
    expected = [
        ("made by the system's admin", made, 201),
        ("without a token", ask("GET", "/v1/nodes", None), 401),
        ("a token that is none", ask("GET", "/v1/nodes", "gAAAA"), 401),
        ("owner's reader sees it", ask("GET", "/v1/nodes/n1", tokens["mine reader"]), 200),
        ("lessee's reader sees it", ask("GET", "/v1/nodes/n1", tokens["other reader"]), 200),
        ("owner's reader changes it", ask(provision[0], provision[1], tokens["mine reader"], provision[2]), 403),
        ("lessee's member provisions it", ask(provision[0], provision[1], tokens["other member"], provision[2]), 403),
        ("owner's member provisions it", ask(provision[0], provision[1], tokens["mine member"], provision[2]), 202),
        ("a project's admin sees drivers", ask("GET", "/v1/drivers", tokens["mine admin"]), 403),
        ("lookup needs no token", ask("GET", "/v1/lookup?addresses=52:54:00:00:00:01", None), 404),
    ]
    return [f"{title}: {status}, not {wanted}" for title, status, wanted in expected if status != wanted]


class Asker:
    """Requests with one token or another; the answers' statuses."""

    def __init__(self, url: str) -> None:
        headers = {"X-OpenStack-Ironic-API-Version": "1.109"}
        self._api = httpx.Client(base_url=url, trust_env=False, timeout=60, headers=headers)

    def __call__(self, method: str, path: str, token: str | None, body: Any = None) -> int:
        headers = {"X-Auth-Token": token} if token else {}
        return self._api.request(method, path, json=body, headers=headers).status_code


if __name__ == "__main__":
    raise SystemExit(main())
