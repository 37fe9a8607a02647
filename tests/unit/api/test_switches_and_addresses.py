"""Switches and reservations over the native API."""

from __future__ import annotations

import pytest

from koguma.db import switches
from koguma.db.models import SwitchRow
from koguma.model.switch import Placement
from tests.unit import factories
from tests.unit.api.test_native import Api, api

__all__ = ["api"]

pytestmark = pytest.mark.usefixtures("db")

LEAF = {"name": "leaf-1", "driver": "eos", "address": "10.0.0.11", "username": "koguma", "password": "geheim"}


def test_a_switch_is_made_changed_with_its_etag_and_never_tells_its_password(api: Api) -> None:
    made = api("POST", "switches", LEAF)
    assert (made.status_code, made.json()["has_password"], "geheim" in made.content.decode()) == (201, True, False)
    assert api("POST", "switches", LEAF).status_code == 409
    seen = made["ETag"]
    changed = api("PATCH", "switches/leaf-1", {"parking_vlan": 77}, If_Match=seen)
    assert (changed.json()["parking_vlan"], changed.json()["has_password"]) == (77, True)
    assert api("PATCH", "switches/leaf-1", {"parking_vlan": 78}, If_Match=seen).status_code == 412
    for wrong in ({"parking_vlan": 0}, {"driver": "Not One"}, {"unknown": 1}, {"address": ""}):
        assert api("PATCH", "switches/leaf-1", wrong).status_code == 422
    assert "geheim" not in SwitchRow.objects.get().password, "sealed"
    assert [item["name"] for item in api("GET", "switches").json()] == ["leaf-1"]
    assert api("DELETE", "switches/leaf-1").status_code == 204
    assert api("GET", "switches/leaf-1").status_code == 404


def test_a_switchs_ports_tell_what_they_were_put_into(api: Api) -> None:
    api("POST", "switches", LEAF)
    factories.network()
    node = factories.register(1)
    switches.record(Placement("leaf-1", "Ethernet1", None, "red", 301, (200,)), node.pk, written=True)
    (port,) = api("GET", "switches/leaf-1/ports").json()
    assert (port["port"], port["network"], port["untagged"], port["tagged"], port["node"]) == (
        "Ethernet1",
        "red",
        301,
        [200],
        factories.machine_uuid(1),
    )
    assert port["written_at"]
    assert api("DELETE", "switches/leaf-1").status_code == 409, "a node's port hangs on it"


def test_addresses_are_reserved_listed_and_released(api: Api) -> None:
    factories.network()
    factories.register(1)
    body = {"range": "10.77.0.9", "reason": "a printer", "node": "node-1"}
    made = api("POST", "networks/provisioning/reservations", body)
    assert made.json()["reserved"] == [{"range": "10.77.0.9", "reason": "a printer", "node": factories.machine_uuid(1)}]
    assert api("POST", "networks/provisioning/reservations", {"range": "10.77.0.2"}).status_code == 409
    stale = api("POST", "networks/provisioning/reservations", {"range": "10.77.0.3"}, If_Match='"1"')
    assert stale.status_code == 412
    (given,) = api("GET", "networks/provisioning/addresses").json()
    assert (given["address"], given["node"], given["released"]) == ("10.77.0.2", "node-1", False)
    assert api("DELETE", "networks/provisioning/reservations/10.77.0.9").json()["reserved"] == []
    assert api("DELETE", "networks/provisioning/reservations/10.77.0.9").status_code == 404


def test_a_node_is_given_networks_of_its_own_only_if_they_can_be_handed_over(api: Api) -> None:
    factories.network()
    factories.register(1)
    subnet = {"subnet": "fd00:301::/64", "gateway": "fd00:301::1", "ranges": []}
    red = {"name": "red", "purpose": "tenant", "vlan": 301, "subnet": "10.90.1.0/24", "more_subnets": [subnet]}
    assert api("POST", "networks", red).json()["more_subnets"] == [subnet]
    assert api("PATCH", "nodes/node-1", {"networks": ["red"]}).json()["networks"] == ["red"]
    addresses = {item["address"] for item in api("GET", "nodes/node-1").json()["vlan_addresses"]}
    assert addresses == {"10.90.1.1", "fd00:301::2"}
    for wrong in ("provisioning", "nothing"):
        assert api("PATCH", "nodes/node-1", {"networks": [wrong]}).status_code == 422
    assert api("PATCH", "nodes/node-1", {"networks": []}).json()["vlan_addresses"] == []
