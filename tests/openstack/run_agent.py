"""The API client of the released ironic-python-agent looks a node up and sends heartbeats, against a fresh server.

    python -m tests.openstack.run_agent [--work DIR]

1. Install the released package into an environment of its own.
2. Start `koguma up` on an empty directory and put a node of fake hardware into a state in which agents call.
3. Run `agent_client.py` with the agent's Python: lookup by MAC, heartbeat, heartbeat with another's token.
4. See in the API that the heartbeat arrived.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.openstack.released import environment, server, version

PACKAGES = ("ironic-python-agent",)
MAC = "52:54:00:aa:bb:01"
CALLBACK = "http://192.0.2.10:9999"
STATE_TIMEOUT_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the environment is kept for the next time")
    work = parser.parse_args().work or Path(tempfile.mkdtemp(prefix="koguma-agent-"))
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work / "venv", PACKAGES)
    with server(work) as url:
        api = httpx.Client(base_url=f"{url}/v1", headers={"X-OpenStack-Ironic-API-Version": "1.109"}, trust_env=False)
        uuid = node_in_clean_wait(api)
        told = ask_as_agent(python, url)
        seen = api.get(f"/nodes/{uuid}").raise_for_status().json()["driver_internal_info"]
    expected = {"uuid": uuid, "heartbeat": "accepted", "stranger": "refused"}
    ok = {key: told[key] for key in expected} == expected and seen.get("agent_url") == CALLBACK
    print(f"ironic-python-agent {version(python, PACKAGES[0])}: {json.dumps(told)}, {'as expected' if ok else 'WRONG'}")
    return 0 if ok else 1


def node_in_clean_wait(api: httpx.Client) -> str:
    """A node whose cleaning waits for its agent."""
    body = {"driver": "fake-hardware", "driver_info": {"fake_clean_delay_s": 3600}}
    uuid: str = api.post("/nodes", json=body).raise_for_status().json()["uuid"]
    api.post("/ports", json={"node_uuid": uuid, "address": MAC}).raise_for_status()
    steps = [{"interface": "deploy", "step": "erase_devices"}]
    for target, more, state in (
        ("manage", {}, "manageable"),
        ("clean", {"clean_steps": steps}, "clean wait"),
    ):
        api.put(f"/nodes/{uuid}/states/provision", json={"target": target, **more}).raise_for_status()
        wait_for_state(api, uuid, state)
    return uuid


def wait_for_state(api: httpx.Client, uuid: str, state: str) -> None:
    deadline = time.monotonic() + STATE_TIMEOUT_S
    while (node := api.get(f"/nodes/{uuid}").raise_for_status().json())["provision_state"] != state:
        if time.monotonic() > deadline:
            raise SystemExit(f"the node must be {state!r}, it is {node['provision_state']!r}: {node['last_error']}")
        time.sleep(0.2)


def ask_as_agent(python: Path, url: str) -> dict[str, Any]:
    script = Path(__file__).with_name("agent_client.py")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OS_"))}
    command = [str(python), str(script), url, MAC, CALLBACK]
    done = subprocess.run(command, env=environ, text=True, stdout=subprocess.PIPE, check=True, timeout=300)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    raise SystemExit(main())
