"""Nodes: made, shown, listed, changed and forgotten, as OpenStack's clients do it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from koguma.db.lifecycle_store import access_of
from koguma.db.models import NodeRow
from tests.unit import factories
from tests.unit.api.ironic.client import Answer, Ironic


def patch(ironic: Ironic, name: str, *operations: dict[str, Any], **more: Any) -> Answer:
    return ironic("PATCH", f"/v1/nodes/{name}", list(operations), **more)


def put(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def test_a_new_node_is_enrolled_with_its_drivers_interfaces(ironic: Ironic) -> None:
    node = ironic.node(name="n1", properties={"cpus": 2}, resource_class="gold")
    assert (node["provision_state"], node["power_state"], node["maintenance"]) == ("enroll", None, False)
    assert (node["deploy_interface"], node["network_interface"]) == ("fake", "noop")
    assert (node["properties"], node["resource_class"], node["conductor"] is None) == ({"cpus": 2}, "gold", False)
    assert ironic("GET", "/v1/nodes/n1").json == ironic("GET", f"/v1/nodes/{node['uuid']}").json == node


def test_a_node_without_a_name_has_none(ironic: Ironic) -> None:
    node = ironic.node()
    assert node["name"] is None
    assert patch(ironic, node["uuid"], put("/name", "named")).json["name"] == "named"
    assert patch(ironic, "named", {"op": "remove", "path": "/name"}).json["name"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"driver": "nonsense"}, 400),
        ({"driver": "fake-hardware", "nonsense": 1}, 400),
        ({"driver": "fake-hardware", "name": "not a name"}, 400),
        ({"driver": "fake-hardware", "name": "detail"}, 400),
        ({"driver": "fake-hardware", "uuid": "nonsense"}, 400),
        ({"driver": "fake-hardware", "properties": "nonsense"}, 400),
        ({"driver": "fake-hardware", "deploy_interface": "nonsense"}, 400),
        ({"driver": "fake-hardware", "name": "taken"}, 409),
        ({"driver": "fake-hardware", "chassis_uuid": "5c9dcd04-2073-49bc-9618-99ae634d8971"}, 400),
    ],
)
def test_a_node_that_cannot_be_is_refused(ironic: Ironic, body: dict[str, Any], status: int) -> None:
    ironic.node(name="taken")
    answer = ironic("POST", "/v1/nodes", body)
    assert (answer.status, bool(answer.fault)) == (status, True)
    assert NodeRow.objects.count() == 1


def test_a_field_is_seen_from_its_microversion_on(ironic: Ironic) -> None:
    uuid = ironic.node(name="n1")["uuid"]
    assert "resource_class" not in ironic("GET", "/v1/nodes/n1", version="1.20").json
    assert "resource_class" in ironic("GET", "/v1/nodes/n1", version="1.21").json
    assert ironic("GET", "/v1/nodes/n1?fields=owner", version="1.49").status == 406
    assert ironic("POST", "/v1/nodes", {"driver": "fake-hardware", "owner": "me"}, version="1.49").status == 406
    assert patch(ironic, "n1", put("/owner", "me"), version="1.49").status == 406
    (oldest,) = ironic("GET", "/v1/nodes", version="1.1").json["nodes"]
    assert set(oldest) == {"uuid", "instance_uuid", "maintenance", "power_state", "provision_state", "links"}
    NodeRow.objects.update(provision_state="available")
    assert ironic("GET", f"/v1/nodes/{uuid}", version="1.1").json["provision_state"] is None
    assert ironic("GET", "/v1/nodes/n1", version="1.4").status == 404, "names came with 1.5"


def test_fields_are_chosen(ironic: Ironic) -> None:
    node = ironic.node(name="n1")
    assert set(ironic("GET", "/v1/nodes/n1?fields=uuid,driver").json) == {"uuid", "driver", "links"}
    (listed,) = ironic("GET", "/v1/nodes").json["nodes"]
    brief = {"uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"}
    assert set(listed) == brief
    assert ironic("GET", "/v1/nodes/detail").json["nodes"] == [node]
    assert ironic("GET", "/v1/nodes?detail=True").json["nodes"] == [node]
    assert ironic("GET", "/v1/nodes?fields=nonsense").status == 400
    assert ironic("GET", "/v1/nodes?nonsense=1").status == 400


def test_a_list_is_read_page_by_page_in_any_order(ironic: Ironic) -> None:
    owners = ["b", None, "a", "b", None]
    for number, owner in enumerate(owners):
        ironic.node(name=f"n{number}", owner=owner)
    for order in ("", "&sort_key=owner", "&sort_key=owner&sort_dir=desc", "&sort_dir=desc"):
        whole = [node["name"] for node in ironic("GET", f"/v1/nodes?limit=1000{order}").json["nodes"]]
        path, pages = f"/v1/nodes?limit=2{order}", []
        while path:
            document = ironic("GET", path).json
            pages += [node["name"] for node in document["nodes"]]
            path = document.get("next", "").removeprefix("http://api.test")
        assert pages == whole, order
        assert len(whole) == 5
    assert ironic("GET", "/v1/nodes?sort_key=extra").status == 400
    assert ironic("GET", "/v1/nodes?marker=5c9dcd04-2073-49bc-9618-99ae634d8971").status == 404


def test_lists_are_filtered(ironic: Ironic) -> None:
    ironic.node(name="n1", resource_class="gold", owner="me", shard="s1")
    ironic.node(name="n2", description="Rack 7", instance_uuid=str(uuid4()))
    ironic.node(name="n3", maintenance=True, parent_node="n1")

    def names(query: str) -> list[str]:
        return [node["name"] for node in ironic("GET", f"/v1/nodes?{query}").json["nodes"]]

    assert names("") == ["n1", "n2"]
    assert names("include_children=True") == ["n1", "n2", "n3"]
    assert names("parent_node=n1") == ["n3"]
    assert names("resource_class=gold") == names("owner=me") == names("shard=s1,s2") == ["n1"]
    assert names("associated=True") == names("description_contains=rack") == ["n2"]
    assert names("maintenance=true&include_children=True") == ["n3"]
    assert names("provision_state=active") == []
    assert ironic("GET", "/v1/nodes?provision_state=nonsense").status == 400
    assert ironic("GET", "/v1/nodes/n1/children").json["children"] == [ironic("GET", "/v1/nodes/n3").json["uuid"]]
    assert ironic("GET", "/v1/shards").json == {"shards": [{"name": "s1", "count": 1}]}


def test_a_patch_changes_what_it_names_and_nothing_else(ironic: Ironic) -> None:
    ironic.node(name="n1", extra={"a": 1, "list": [1, 2]})
    answer = patch(
        ironic,
        "n1",
        put("/extra/b~1c", 2),
        {"op": "remove", "path": "/extra/a"},
        put("/extra/list/-", 3),
        {"op": "replace", "path": "/description", "value": "d"},
    )
    assert answer.status == 200, answer.content
    assert (answer.json["extra"], answer.json["description"]) == ({"b/c": 2, "list": [1, 2, 3]}, "d")
    for wrong in (
        put("/nonsense", 1),
        put("/provision_state", "active"),
        put("/uuid", "x"),
        put("/traits", []),
        {"op": "remove", "path": "/extra/nonsense"},
        {"op": "test", "path": "/description", "value": "e"},
        {"op": "nonsense", "path": "/extra"},
        put("/driver", None),
    ):
        assert patch(ironic, "n1", wrong).status == 400, wrong
    assert ironic("PATCH", "/v1/nodes/nobody", [put("/extra/a", 1)]).status == 404


def test_secrets_are_kept_and_never_shown(ironic: Ironic) -> None:
    told = {"ipmi_address": "10.0.0.9", "ipmi_username": "admin", "ipmi_password": "hidden-1", "snmp_token": "hidden-2"}
    node = ironic.node(name="n1", driver="ipmi", driver_info=told)
    masked = {**told, "ipmi_password": "******", "snmp_token": "******"}
    assert node["driver_info"] == masked
    patch(ironic, "n1", put("/driver_info/ipmi_address", "10.0.0.10"), put("/driver_info/note", "x"))
    row = NodeRow.objects.get()
    access = access_of(row)
    assert access is not None
    assert (access.address, access.username, access.password) == ("10.0.0.10", "admin", "hidden-1")
    assert (access.options["snmp_token"], access.options["note"]) == ("hidden-2", "x")
    assert "hidden" not in str(NodeRow.objects.values().get())
    assert "hidden" not in ironic("GET", "/v1/nodes/detail").content.decode()


def test_an_instance_is_not_overwritten(ironic: Ironic) -> None:
    first, second = str(uuid4()), str(uuid4())
    ironic.node(name="n1", instance_uuid=first)
    assert patch(ironic, "n1", put("/instance_uuid", second)).status == 409
    assert ironic("DELETE", "/v1/nodes/n1").status == 409
    assert patch(ironic, "n1", {"op": "remove", "path": "/instance_uuid"}).json["instance_uuid"] is None
    assert ironic("DELETE", "/v1/nodes/n1").status == 204


def test_marks_of_a_node_follow_its_state(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert patch(ironic, "n1", put("/retired", True), put("/retired_reason", "old")).json["retired_reason"] == "old"
    assert patch(ironic, "n1", put("/retired", False)).json["retired_reason"] is None
    assert patch(ironic, "n1", put("/protected", True)).status == 409
    NodeRow.objects.update(provision_state="available")
    assert patch(ironic, "n1", put("/retired", True)).status == 409
    NodeRow.objects.update(provision_state="active")
    assert patch(ironic, "n1", put("/protected", True)).json["protected"] is True
    assert ironic("DELETE", "/v1/nodes/n1").status == 403
    assert patch(ironic, "n1", put("/resource_class", "gold")).status == 200
    assert patch(ironic, "n1", put("/resource_class", "tin")).status == 409
    assert patch(ironic, "n1", put("/deploy_interface", "fake")).status == 409


def test_a_changed_driver_brings_its_interfaces(ironic: Ironic) -> None:
    ironic.node(name="n1", deploy_interface="fake")
    assert patch(ironic, "n1", put("/driver", "ipmi")).status == 400
    answer = ironic("PATCH", "/v1/nodes/n1?reset_interfaces=true", [put("/driver", "ipmi")])
    assert (answer.json["driver"], answer.json["deploy_interface"]) == ("ipmi", "ramdisk")


def test_maintenance_has_a_reason_until_it_ends(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert ironic("PUT", "/v1/nodes/n1/maintenance", {"reason": "disk"}).status == 202
    node = ironic("GET", "/v1/nodes/n1").json
    assert (node["maintenance"], node["maintenance_reason"]) == (True, "disk")
    assert ironic("DELETE", "/v1/nodes/n1/maintenance").status == 202
    node = ironic("GET", "/v1/nodes/n1").json
    assert (node["maintenance"], node["maintenance_reason"]) == (False, None)


def test_a_machine_that_registered_is_a_node_like_any_other(ironic: Ironic) -> None:
    factories.network()
    factories.flavor()
    factories.register(1)
    (node,) = ironic("GET", "/v1/nodes/detail").json["nodes"]
    assert (node["name"], node["uuid"], node["deploy_interface"]) == ("node-1", factories.machine_uuid(1), "ramdisk")
    (port,) = ironic("GET", "/v1/nodes/node-1/ports?detail=True").json["ports"]
    assert (port["address"], port["node_uuid"]) == (factories.mac(1), node["uuid"])
    assert ironic("GET", "/v1/nodes/node-1/inventory").json["inventory"]["cpu"]["count"] == 2
    assert "secret-1" not in ironic("GET", "/v1/nodes/detail").content.decode()


def test_what_no_database_can_hold_is_refused(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert ironic("GET", "/v1/nodes/n%001").status == 400
    assert ironic("GET", "/v1/nodes?owner=%00").status == 400
    assert patch(ironic, "n1", put("/extra/a", "\x00")).status == 400
    assert patch(ironic, "n1", put("/owner", "\x00")).status == 400
    assert ironic("POST", "/v1/nodes", {"driver": "fake-hardware", "properties": {"a": "\x00"}}).status == 400


def test_a_node_takes_what_is_its_own_along_when_it_goes(ironic: Ironic) -> None:
    uuid = ironic.node(name="n1")["uuid"]
    group = ironic("POST", "/v1/portgroups", {"node_uuid": uuid}).json["uuid"]
    ironic("POST", "/v1/ports", {"address": "52:54:00:00:00:01", "node_uuid": uuid, "portgroup_uuid": group})
    ironic.node(name="child", parent_node=uuid)
    assert ironic("DELETE", "/v1/nodes/n1").status == 400
    assert ironic("DELETE", "/v1/nodes/child").status == 204
    assert ironic("DELETE", "/v1/nodes/n1").status == 204
    assert ironic("GET", "/v1/ports").json["ports"] == []


def test_a_name_that_no_host_can_have_boots_under_one_it_can(ironic: Ironic) -> None:
    from koguma.db.snapshots import render

    ironic.node(name="Rack_7~A", uuid="5c9dcd04-2073-49bc-9618-99ae634d8971")
    (node,) = render().nodes
    assert (node.name, node.detail["hostname"]) == ("rack-7-a-5c9dcd04", "rack-7-a-5c9dcd04")
