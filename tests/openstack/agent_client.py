"""Speaks with an Ironic API as ironic-python-agent does; runs in the agent's own environment, which has its packages.

    python agent_client.py URL MAC CALLBACK_URL

Prints one JSON object: what the lookup found, and whether heartbeats were taken.
"""

# mypy: ignore-errors

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

from ironic_python_agent import config  # isort: skip  # declares the options that the others read when imported

from ironic_python_agent import errors, hardware, ironic_api_client
from ironic_python_agent.agent import Host
from oslo_config import cfg


def main(url: str, mac: str, callback: str) -> None:
    assert config
    cfg.CONF([], project="ironic-python-agent")
    client = ironic_api_client.APIClient(url)
    nic = hardware.NetworkInterface("eth0", mac)
    found = client.lookup_node(hardware_info={"interfaces": [nic]}, timeout=60, starting_interval=1)
    uuid, token = found["node"]["uuid"], found["config"]["agent_token"]
    parts = urlsplit(callback)
    where = Host(hostname=parts.hostname, port=parts.port)
    told = {"uuid": uuid, "heartbeat_timeout": found["config"]["heartbeat_timeout"]}
    told["heartbeat"] = beat(client, uuid, where, token)
    told["stranger"] = beat(client, uuid, where, "another's token")
    print(json.dumps(told))


def beat(client, uuid, where, token):
    client.agent_token = token
    try:
        client.heartbeat(uuid=uuid, advertise_address=where, advertise_protocol="http")
    except errors.HeartbeatError:
        return "refused"
    return "accepted"


main(*sys.argv[1:])
