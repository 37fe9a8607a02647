"""The command line against a live server, as a person or a script runs it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import uvicorn
from typer.testing import CliRunner

from koguma.cli import flavor, network, node, switch
from koguma.cli.client import ApiAway, Client
from koguma.cli.errors import Failed, UsageFault
from koguma.db import reports, switches
from koguma.db.models import NodeRow, SwitchRow, WorkRow
from koguma.errors import KogumaError
from tests.unit import factories

APPS = {"node": node.app, "flavor": flavor.app, "network": network.app, "switch": switch.app}


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config("koguma.api.asgi:application", log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def koguma(server: str, db: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs words; standard output, or the Koguma error that `main` would print."""
    monkeypatch.setenv("KOGUMA_API", server)

    def run(noun: str, *words: str) -> str:
        result = CliRunner().invoke(APPS[noun], list(words))
        if isinstance(result.exception, KogumaError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_json_is_what_scripts_are_promised(koguma: Callable[..., str]) -> None:
    factories.network()
    factories.flavor()
    assert json.loads(koguma("node", "list", "--json")) == []
    factories.register(1)
    (listed,) = json.loads(koguma("node", "list", "--json"))
    wanted = {"name", "uuid", "provision_state", "power_state", "flavor", "label", "commit", "addresses"}
    assert wanted <= set(listed)
    boot = uuid4().hex
    reports.apply(
        [
            factories.report(1, boot, "script", mode="boot", label="compute", commit="c" * 64),
            factories.report(1, boot, "installed"),
        ]
    )
    (record,) = json.loads(koguma("node", "boots", "node-1", "--json"))
    assert {"id", "outcome", "label", "commit", "duration_s", "phases"} <= set(record)
    assert {"name", "started_at", "duration_s", "outcome", "reason"} == set(record["phases"][0])


def test_tables_show_nodes_flavors_and_networks(koguma: Callable[..., str]) -> None:
    assert "no nodes yet" in koguma("node", "list")
    koguma("network", "create", "provisioning", "--subnet", "10.77.0.0/24", "--discovery", "10.77.0.200-10.77.0.250")
    koguma("flavor", "create", "compute", "--label", "v1")
    factories.register(1)
    assert all(word in koguma("node", "list") for word in ("node-1", "enroll", "compute", "v1", "10.77.0.1"))
    assert "lab-switch node1-eth0" in koguma("node", "show", "node-1")
    assert "v1" in koguma("flavor", "list")
    assert "10.77.0.200-10.77.0.250" in koguma("network", "list")
    assert "no boots yet" in koguma("node", "boots", "node-1")


def test_creating_again_with_equal_values_is_harmless_and_with_others_an_error(koguma: Callable[..., str]) -> None:
    for _ in range(2):
        koguma("network", "create", "p", "--subnet", "10.77.0.0/24", "--purpose", "provisioning")
        koguma("flavor", "create", "compute", "--label", "v1", "--overlay-size", "1G")
    with pytest.raises(UsageFault, match="exists with other values"):
        koguma("network", "create", "p", "--subnet", "10.78.0.0/24")
    with pytest.raises(UsageFault, match="exists with other values"):
        koguma("flavor", "create", "compute", "--label", "v2")


def test_a_flavor_is_set_part_by_part(koguma: Callable[..., str]) -> None:
    koguma("flavor", "create", "compute", "--kernel-args", "quiet")
    koguma(
        "flavor", "set", "compute", "--label", "v2", "--template", "/a.tpl:/a:0640:x.service", "--variables", '{"a": 1}'
    )
    flavor = json.loads(koguma("flavor", "show", "compute", "--json"))
    assert (flavor["label"], flavor["kernel_args"], flavor["variables"]) == ("v2", "quiet", {"a": 1})
    assert flavor["templates"] == [{"source": "/a.tpl", "target": "/a", "mode": "0640", "reload": "x.service"}]
    koguma("flavor", "delete", "compute")
    for wrong in (["--overlay-size", "1X"], ["--template", "a:b"], ["--variables", "{"]):
        with pytest.raises(UsageFault):
            koguma("flavor", "create", "x", *wrong)


def test_a_flavors_bonds_and_vlans_are_words_on_the_command_line(koguma: Callable[..., str]) -> None:
    koguma("network", "create", "storage", "--subnet", "10.88.0.0/24", "--purpose", "storage", "--vlan", "200")
    layout = ("--bond", "bond0:802.3ad:eth0,eth1", "--bond", "bond1:active-backup:eth2", "--vlan", "storage@bond0")
    for _ in range(2):
        koguma("flavor", "create", "compute", *layout)
    with pytest.raises(UsageFault, match="exists with other values"):
        koguma("flavor", "create", "compute", "--bond", "bond0:broadcast:eth0,eth1")
    shown = koguma("flavor", "show", "compute")
    assert "bond0:802.3ad:eth0,eth1, bond1:active-backup:eth2" in shown
    assert "storage@bond0" in shown
    koguma("flavor", "set", "compute", "--bond", "bond0:active-backup:eth0")
    flavor = json.loads(koguma("flavor", "show", "compute", "--json"))
    assert flavor["bonds"] == [{"name": "bond0", "mode": "active-backup", "interfaces": ["eth0"]}]
    assert flavor["vlans"] == [{"network": "storage", "interface": "bond0"}]
    factories.register(1)
    assert "10.88.0.1" in koguma("node", "show", "node-1")
    flavor = json.loads(koguma("flavor", "set", "compute", "--bond", "", "--vlan", "", "--json"))
    assert (flavor["bonds"], flavor["vlans"]) == ([], [])
    for wrong in (["--bond", "bond0"], ["--bond", "bond0:802.3ad:"], ["--vlan", "storage"], ["--vlan", "@eth0"]):
        with pytest.raises(UsageFault, match="must be"):
            koguma("flavor", "set", "compute", *wrong)
    with pytest.raises(KogumaError, match=r"802\.3ad.*bonds"):
        koguma("flavor", "set", "compute", "--bond", "bond0:lacp:eth0")


def test_a_network_is_set_part_by_part(koguma: Callable[..., str]) -> None:
    koguma("network", "create", "p", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "--dns", "10.77.0.1")
    words = ("--mtu", "9000", "--vlan", "7", "--discovery", "10.77.0.200-10.77.0.250", "--reserve", "10.77.0.9")
    network = json.loads(koguma("network", "set", "p", *words, "--domain", "x.example", "--json"))
    changed = {
        "mtu": 9000, "vlan": 7, "discovery_start": "10.77.0.200", "domain": "x.example",
        "reserved": [{"range": "10.77.0.9", "reason": "", "node": None}],
        "gateway": "10.77.0.1", "dns_servers": ["10.77.0.1"], "purpose": "provisioning",
    }  # fmt: skip
    assert {key: network[key] for key in changed} == changed
    cleared = ("--gateway", "", "--dns", "", "--discovery", "", "--reserve", "", "--domain", "")
    network = json.loads(koguma("network", "set", "p", *cleared, "--json"))
    emptied = ("gateway", "dns_servers", "discovery_start", "discovery_end", "reserved", "domain")
    assert [network[key] for key in emptied] == [None, [], None, None, [], ""]
    with pytest.raises(UsageFault, match="what to change"):
        koguma("network", "set", "p")
    with pytest.raises(KogumaError, match="mtu must be"):
        koguma("network", "set", "p", "--mtu", "1")


def test_addresses_are_reserved_shown_and_released(koguma: Callable[..., str]) -> None:
    more = ("--more-subnet", "fd00:301::/64,gateway=fd00:301::1,range=fd00:301::10-fd00:301::20")
    words = ("--subnet", "10.90.1.0/24", "--purpose", "tenant", "--vlan", "301", "--range", "10.90.1.10-10.90.1.20")
    assert koguma("network", "create", "red", *words, *more) == koguma("network", "create", "red", *words, *more)
    machine = factories.machine_uuid(9)
    koguma("network", "reserve", "red", "10.90.1.12", "--node", machine, "--reason", "its licence")
    shown = json.loads(koguma("network", "addresses", "red", "--json"))
    assert shown == {"given": [], "reserved": [{"range": "10.90.1.12", "reason": "its licence", "node": machine}]}
    assert "its licence" in koguma("network", "addresses", "red")
    koguma("network", "release", "red", "10.90.1.12")
    assert json.loads(koguma("network", "show", "red", "--json"))["reserved"] == []
    with pytest.raises(UsageFault, match="gateway=ADDRESS and range="):
        koguma("network", "set", "red", "--more-subnet", "fd00:301::/64,vlan=3")


def test_a_switch_is_put_on_record(koguma: Callable[..., str], tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim\n")
    words = ("leaf-1", "--driver", "eos", "--address", "10.0.0.11", "--username", "k", "--password-file", str(secret))
    shown = json.loads(koguma("switch", "create", *words, "--json"))
    assert (shown["has_password"], "geheim" in json.dumps(shown)) == (True, False)
    assert switches.access_of(SwitchRow.objects.get()).password == "geheim"
    koguma("switch", "set", "leaf-1", "--parking-vlan", "77")
    assert "77" in koguma("switch", "list")
    assert "no port was set yet" in koguma("switch", "ports", "leaf-1")
    koguma("switch", "delete", "leaf-1")
    with pytest.raises(UsageFault, match="what to change"):
        koguma("switch", "set", "leaf-1")


def test_nodes_are_changed_booted_and_deleted(koguma: Callable[..., str]) -> None:
    factories.flavor()
    factories.flavor(name="storage", label="storage")
    factories.register(1)
    NodeRow.objects.update(provision_state="active", goal=None)
    koguma("node", "set-flavor", "node-1", "storage")
    koguma("node", "set", "node-1", "--no-kexec", "--maintenance", "--reason", "fan")
    koguma("node", "set", "node-1", "--no-maintenance")
    assert "boots next once" in koguma("node", "boot", "node-1", "--label", "next", "--once", "--no-reboot")
    row = NodeRow.objects.get()
    assert (row.flavor and row.flavor.name, row.kexec, row.maintenance, row.once_label) == (
        "storage",
        False,
        False,
        "next",
    )
    assert "under way" in koguma("node", "power", "node-1", "off")
    assert WorkRow.objects.get().flow == "off"
    with pytest.raises(KogumaError, match="has to wait"):
        koguma("node", "power", "node-1", "on")
    with pytest.raises(UsageFault, match="--yes"):
        koguma("node", "delete", "node-1")
    koguma("node", "delete", "node-1", "--yes")
    assert not NodeRow.objects.exists()


def test_waiting_ends_when_it_is_done_and_fails_when_it_failed(koguma: Callable[..., str]) -> None:
    factories.register(1)
    NodeRow.objects.update(provision_state="manageable", goal=None)
    ends: list[dict[str, Any]] = [
        {"provision_state": "available"},
        {"provision_state": "clean failed", "last_error": "it burns"},
    ]
    for end in ends:
        NodeRow.objects.update(provision_state="manageable", target_provision_state=None)
        WorkRow.objects.update(operation_id=None)

        def finish(end: dict[str, Any] = end) -> None:
            from django.db import connection

            while NodeRow.objects.get().provision_state != "cleaning":
                time.sleep(0.01)
            NodeRow.objects.update(target_provision_state=None, **end)
            connection.close()

        worker = threading.Thread(target=finish)
        worker.start()
        try:
            if "last_error" in end:
                with pytest.raises(Failed, match="it burns"):
                    koguma("node", "provide", "node-1", "--wait", "--timeout", "20")
            else:
                assert "node-1 is available" in koguma("node", "provide", "node-1", "--wait", "--timeout", "20")
        finally:
            worker.join()


def test_waiting_has_a_deadline(koguma: Callable[..., str]) -> None:
    factories.register(1)
    NodeRow.objects.update(provision_state="manageable", goal=None)
    with pytest.raises(Failed, match=r"not done within 0\.2 s"):
        koguma("node", "provide", "node-1", "--wait", "--timeout", "0.2")


def test_an_api_that_is_away_is_said_in_one_line() -> None:
    with pytest.raises(ApiAway, match=r"does not answer at http://127\.0\.0\.1:1 .*koguma up") as caught:
        Client("127.0.0.1:1").get("nodes")
    assert "\n" not in str(caught.value)


def test_machines_words_cannot_steer_the_terminal(koguma: Callable[..., str]) -> None:
    factories.register(1)
    NodeRow.objects.update(status="\x1b[2J[red]evil[/red]\nsecond line")
    table = koguma("node", "list")
    assert "\x1b[2J" not in table
    assert "[red]evil[/red]" in table
