"""The native API as operators' programs use it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from koguma.db.models import NodeRow, WorkRow
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")


class Api:
    def __init__(self) -> None:
        self._client = Client()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self._client.generic(
            method,
            f"/api/v1/{path}",
            b"" if body is None else json.dumps(body).encode(),
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


@pytest.fixture
def api() -> Api:
    return Api()


def active(number: int = 1) -> None:
    factories.register(number)
    NodeRow.objects.update(provision_state="active", goal=None)
    WorkRow.objects.update(wake_at=None, woken=False)


def test_health_is_ok_while_the_database_answers(api: Api) -> None:
    assert api("GET", "health").json() == {"status": "ok"}


def test_health_is_503_without_a_database(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError
    from django.db.backends.utils import CursorWrapper

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(CursorWrapper, "execute", away)
    assert api("GET", "health").status_code == 503


def test_a_node_tells_all_but_its_secrets(api: Api) -> None:
    factories.network()
    factories.flavor()
    factories.register(1)
    answer = api("GET", "nodes/node-1")
    node = answer.json()
    wanted = {
        "name", "uuid", "provision_state", "power_state", "flavor", "label", "commit", "addresses", "bmc_address",
        "status_code", "status", "last_error", "last_seen", "ports", "inventory", "ssh_host_public_keys", "memory",
    }  # fmt: skip
    assert wanted <= set(node)
    assert (node["label"], node["commit"], node["addresses"]) == ("compute", None, ["10.77.0.2"])
    assert node["ports"][0]["lldp"]["port"] == "node1-eth0"
    assert "secret-1" not in answer.content.decode()
    assert "PRIVATE" not in answer.content.decode()
    assert api("GET", f"nodes/{node['uuid']}").json() == node


def test_nodes_are_listed_in_pages_in_the_order_of_their_numbers(api: Api) -> None:
    for number in range(1, 12):
        factories.register(number)
    names = [node["name"] for node in api("GET", "nodes").json()]
    assert names == [f"node-{number}" for number in range(1, 12)]
    page = api("GET", "nodes?limit=5")
    assert [node["name"] for node in page.json()] == names[:5]
    assert 'rel="next"' in page["Link"]
    path = page["Link"].partition("<")[2].partition(">")[0].removeprefix("/api/v1/")
    assert [node["name"] for node in api("GET", path).json()] == names[5:10]
    assert "Link" not in api("GET", "nodes?limit=11")


def test_lists_filter_by_state_and_flavor(api: Api) -> None:
    factories.flavor()
    active(1)
    factories.register(2)
    assert [node["name"] for node in api("GET", "nodes?provision_state=active").json()] == ["node-1"]
    assert len(api("GET", "nodes?flavor=compute").json()) == 2
    assert api("GET", "nodes?flavor=none").json() == []
    assert api("GET", "nodes?provision_state=nope").status_code == 400


def test_a_stale_change_is_refused(api: Api) -> None:
    active()
    seen = api("GET", "nodes/node-1")["ETag"]
    assert api("PATCH", "nodes/node-1", {"maintenance": True}, If_Match=seen).status_code == 200
    stale = api("PATCH", "nodes/node-1", {"maintenance": False}, If_Match=seen)
    assert stale.status_code == 412
    assert "has changed" in stale.json()["error"]
    assert api("PATCH", "nodes/node-1", {"maintenance": False}, If_Match="nonsense").status_code == 400
    assert api("DELETE", "nodes/node-1", If_Match=seen).status_code == 412


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "Not A Name"}, 422),
        ({"name": None}, 400),
        ({"flavor": "none"}, 404),
        ({"uuid": "x"}, 422),
        ({"label": "../x"}, 422),
        ({"provision_state": "active"}, 422),
        ([], 422),
    ],
)
def test_changes_against_the_rules_are_refused_with_an_error(api: Api, body: Any, status: int) -> None:
    active()
    answer = api("PATCH", "nodes/node-1", body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_name_belongs_to_one_node(api: Api) -> None:
    active(1)
    active(2)
    assert api("PATCH", "nodes/node-2", {"name": "node-1"}).status_code == 409


def test_verbs_start_operations_and_wrong_ones_say_what_is_possible(api: Api) -> None:
    active()
    answer = api("PUT", "nodes/node-1/provision", {"target": "rebuild"})
    assert answer.status_code == 202
    assert (answer.json()["provision_state"], answer.json()["target_provision_state"]) == ("deploying", "active")
    again = api("PUT", "nodes/node-1/provision", {"target": "rebuild"})
    assert again.status_code == 409
    unknown = api("PUT", "nodes/node-1/provision", {"target": "explode"})
    assert (unknown.status_code, "manage" in unknown.json()["error"]) == (409, True)


def test_power_is_a_wish_that_a_worker_fulfils(api: Api) -> None:
    active()
    answer = api("PUT", "nodes/node-1/power", {"target": "off"})
    assert (answer.status_code, answer.json()["target_power_state"]) == (202, "power off")
    assert WorkRow.objects.get().wake_at is not None
    assert api("PUT", "nodes/node-1/power", {"target": "sideways"}).status_code == 422


def test_a_label_can_be_set_once_for_good_and_taken_back(api: Api) -> None:
    factories.flavor()
    active()
    once = api("PUT", "nodes/node-1/boot", {"label": "next", "once": True, "reboot": False}).json()
    assert (once["once"]["label"], once["label"]) == ("next", "compute")
    kept = api("PUT", "nodes/node-1/boot", {"label": "next", "reboot": False}).json()
    assert (kept["once"], kept["label"]) == (None, "next")
    assert api("PUT", "nodes/node-1/boot", {"label": None, "reboot": False}).json()["label"] == "compute"


def test_a_node_in_use_is_deleted_by_force_only(api: Api) -> None:
    active()
    assert api("DELETE", "nodes/node-1").status_code == 409
    assert api("DELETE", "nodes/node-1?force=true").status_code == 204
    assert api("GET", "nodes/node-1").status_code == 404


def test_boots_and_history_are_lists(api: Api) -> None:
    active()
    assert api("GET", "nodes/node-1/boots").json() == []
    assert api("GET", "nodes/node-1/history").json() == []
    assert api("GET", "nodes/nix/boots").status_code == 404


def test_flavors_are_made_changed_and_deleted_when_unused(api: Api) -> None:
    made = api("POST", "flavors", {"name": "compute", "templates": [{"source": "/a.tpl", "target": "/a"}]})
    assert (made.status_code, made.json()["label"]) == (201, "compute")
    assert api("POST", "flavors", {"name": "compute"}).status_code == 409
    assert api("PATCH", "flavors/compute", {"label": "v2"}).json()["label"] == "v2"
    assert api("PATCH", "flavors/compute", {"label": "v3"}, If_Match=made["ETag"]).status_code == 412
    assert api("PUT", "flavors/compute", {"label": "v4"}).json()["templates"] == []
    factories.register(1)
    assert api("DELETE", "flavors/compute").status_code == 409
    NodeRow.objects.all().delete()
    assert api("DELETE", "flavors/compute").status_code == 204
    assert api("GET", "flavors").json() == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": "../x"},
        {"name": "x", "root_method": "floppy"},
        {"name": "x", "overlay_size_bytes": -1},
        {"name": "x", "kernel_args": "a\nb"},
        {"name": "x", "templates": [{"source": "relative", "target": "/a"}]},
        {"name": "x", "templates": [{"source": "/a", "target": "/a", "mode": "rwx"}]},
        {"name": "x", "unknown": 1},
        {},
    ],
)
def test_flavors_against_the_rules_are_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api("POST", "flavors", body)
    assert answer.status_code == 422
    assert answer.json()["error"]


def test_networks_are_made_and_refused_with_the_rule(api: Api) -> None:
    body = {"name": "provisioning", "subnet": "10.77.0.0/24", "vlan": 100, "gateway": "10.77.0.1"}
    assert api("POST", "networks", body).status_code == 201
    assert api("POST", "networks", {**body, "name": "other"}).status_code == 409
    wrong = api("POST", "networks", {**body, "name": "third", "subnet": "10.77.0.0/33"})
    assert (wrong.status_code, "must be a network" in wrong.json()["error"]) == (422, True)
    assert api("DELETE", "networks/provisioning").status_code == 204


def test_networks_are_changed_part_by_part(api: Api) -> None:
    body = {"name": "p", "subnet": "10.77.0.0/24", "vlan": 100, "gateway": "10.77.0.1", "dns_servers": ["10.77.0.1"]}
    seen = api("POST", "networks", body)["ETag"]
    changed = api("PATCH", "networks/p", {"mtu": 9000, "gateway": None}).json()
    assert (changed["mtu"], changed["gateway"], changed["vlan"], changed["dns_servers"]) == (
        9000,
        None,
        100,
        ["10.77.0.1"],
    )
    assert api("PATCH", "networks/p", {"mtu": 1500}, If_Match=seen).status_code == 412
    for wrong in ({"subnet": None}, {"mtu": 1}, {"unknown": 1}, {"vlan": 5000}, {"gateway": "10.78.0.1"}):
        assert api("PATCH", "networks/p", wrong).status_code == 422
    assert api("PATCH", "networks/nix", {"mtu": 9000}).status_code == 404


def test_a_flavors_bonds_and_vlans_are_set_shown_and_taken_away(api: Api) -> None:
    api("POST", "networks", {"name": "storage", "purpose": "storage", "subnet": "10.88.0.0/24", "vlan": 200})
    bonds = [{"name": "bond0", "mode": "802.3ad", "interfaces": ["eth0", "eth1"]}]
    vlans = [{"network": "storage", "interface": "bond0"}]
    made = api("POST", "flavors", {"name": "compute", "bonds": bonds, "vlans": vlans})
    assert (made.status_code, made.json()["bonds"], made.json()["vlans"]) == (201, bonds, vlans)
    assert "layout" not in made.json()
    without = api("PATCH", "flavors/compute", {"bonds": []})
    assert (without.status_code, "'bond0'" in without.json()["error"]) == (422, True)
    kept = api("PATCH", "flavors/compute", {"label": "v2"}).json()
    assert (kept["label"], kept["bonds"], kept["vlans"]) == ("v2", bonds, vlans)
    none = api("PATCH", "flavors/compute", {"bonds": [], "vlans": []}).json()
    assert (none["bonds"], none["vlans"]) == ([], [])
    assert api("PUT", "flavors/compute", {"label": "v2", "bonds": bonds}).json()["bonds"] == bonds
    assert api("GET", "flavors").json()[0]["bonds"] == bonds


@pytest.mark.parametrize(
    "body",
    [
        {"bonds": [{"name": "bond0", "mode": "lacp", "interfaces": ["eth0"]}]},
        {"bonds": [{"name": "bond0", "mode": "802.3ad", "interfaces": []}]},
        {"bonds": [{"name": "bond0", "mode": "802.3ad", "interfaces": ["ens3"]}]},
        {"bonds": [{"name": "sixteen-bytes-ab", "mode": "802.3ad", "interfaces": ["eth0"]}]},
        {"bonds": [{"name": "a\nb", "mode": "802.3ad", "interfaces": ["eth0"]}]},
        {"vlans": [{"network": "nothing", "interface": "eth0"}]},
        {"vlans": [{"network": "nothing"}]},
    ],
)
def test_layouts_against_the_rules_are_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api("POST", "flavors", {"name": "compute", **body})
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert api("GET", "flavors").json() == []


def test_a_node_says_why_it_does_not_boot_and_what_its_nics_are_called(api: Api) -> None:
    api("POST", "networks", {"name": "storage", "purpose": "storage", "subnet": "10.88.0.0/24", "vlan": 200})
    factories.flavor()
    active()
    assert api("GET", "nodes/node-1").json()["reason_not_bootable"] is None
    api("PATCH", "flavors/compute", {"vlans": [{"network": "storage", "interface": "eth0"}]})
    node = api("GET", "nodes/node-1").json()
    assert node["vlan_addresses"] == [{"network": "storage", "address": "10.88.0.1"}]
    assert (node["reason_not_bootable"], node["ports"][0]["interface"]) == (None, "eth0")
    api("PATCH", "flavors/compute", {"vlans": [{"network": "storage", "interface": "eth3"}]})
    assert api("GET", "nodes").json()[0]["reason_not_bootable"] == "a VLAN needs eth3, the node's NICs are eth0"
    api("PATCH", "nodes/node-1", {"flavor": None})
    assert "needs a flavor" in api("GET", "nodes/node-1").json()["reason_not_bootable"]


def test_a_network_without_room_for_a_flavors_nodes_is_a_conflict(api: Api) -> None:
    api("POST", "networks", {"name": "storage", "purpose": "storage", "subnet": "10.88.0.0/32", "vlan": 200})
    factories.flavor()
    active(1)
    active(2)
    answer = api("PATCH", "flavors/compute", {"vlans": [{"network": "storage", "interface": "eth0"}]})
    assert (answer.status_code, "2 more need one" in answer.json()["error"]) == (409, True)


def test_nodes_can_be_made_by_hand(api: Api) -> None:
    body = {
        "name": "web-1",
        "bmc": {"driver": "fake", "address": "x", "password": "hush"},
        "ports": [{"mac": factories.mac(3)}],
    }
    made = api("POST", "nodes", body)
    assert (made.status_code, made.json()["name"], made.json()["bmc_address"]) == (201, "web-1", "x")
    assert "hush" not in made.content.decode()
    assert api("POST", "nodes", {"name": "web-1"}).status_code == 409
    assert api("POST", "nodes", {"name": "web-2", "ports": [{"mac": factories.mac(3)}]}).status_code == 409
    assert api("POST", "nodes", {"ports": [{"mac": "nonsense"}]}).status_code == 422


def test_the_openapi_document_is_there(api: Api) -> None:
    document = api("GET", "openapi.json").json()
    assert "/api/v1/nodes/{reference}/boots" in document["paths"]
    schemas = document["components"]["schemas"]
    assert "802.3ad" in schemas["BondMode"]["enum"]
    assert {"bonds", "vlans"} <= set(schemas["FlavorPatch"]["properties"])
    assert schemas["NetworkBody"]["required"] == ["subnet"]
