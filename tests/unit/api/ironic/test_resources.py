"""Everything that is one row each goes through the same hands: made, shown, listed, changed, forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from koguma.db.models import NodeRow
from tests.unit.api.ironic.client import Ironic

STEP = {"interface": "bios", "step": "apply_configuration", "args": {"password": "hidden"}}
NOBODY = "5c9dcd04-2073-49bc-9618-99ae634d8971"

KINDS: dict[str, tuple[str, dict[str, Any], tuple[str, Any]]] = {
    "chassis": ("chassis", {"description": "rack"}, ("description", "room")),
    "ports": ("ports", {"address": "11:22:33:44:55:66", "node_uuid": True}, ("address", "66:55:44:33:22:11")),
    "portgroups": ("portgroups", {"node_uuid": True, "name": "bond"}, ("mode", "802.3ad")),
    "deploy_templates": (
        "deploy_templates",
        {"name": "CUSTOM_T", "steps": [{**STEP, "priority": 150}]},
        ("extra", {"a": 1}),
    ),
    "runbooks": ("runbooks", {"name": "CUSTOM_R", "steps": [{**STEP, "order": 1}]}, ("description", "what it does")),
    "inspection_rules": (
        "inspection_rules",
        {"actions": [{"op": "set-attribute", "args": ["/driver", "ipmi"]}], "description": "d"},
        ("priority", 7),
    ),
    "volume/connectors": (
        "connectors",
        {"node_uuid": True, "type": "iqn", "connector_id": "iqn.2020-01.org:1"},
        ("connector_id", "iqn.2020-01.org:2"),
    ),
    "volume/targets": (
        "targets",
        {"node_uuid": True, "volume_type": "iscsi", "volume_id": "v1", "boot_index": 0},
        ("boot_index", 1),
    ),
}


@pytest.fixture
def node(ironic: Ironic) -> str:
    uuid = str(ironic.node(name="n1")["uuid"])
    NodeRow.objects.update(power_state="power off")
    return uuid


@pytest.mark.parametrize("path", KINDS)
def test_a_resource_lives_from_its_making_to_its_end(ironic: Ironic, node: str, path: str) -> None:
    key, body, (field, value) = KINDS[path]
    body = {**body, **({"node_uuid": node} if "node_uuid" in body else {})}
    made = ironic("POST", f"/v1/{path}", body)
    assert made.status == 201, made.content
    uuid = made.json["uuid"]
    assert made.headers["location"] == f"http://api.test/v1/{path}/{uuid}"
    assert "hidden" not in made.content.decode()
    assert ironic("GET", f"/v1/{path}/{uuid}").json == made.json
    listed = ironic("GET", f"/v1/{path}").json[key]
    assert [item["uuid"] for item in listed] == [uuid]
    assert field not in ironic("GET", f"/v1/{path}?fields=uuid").json[key][0]
    assert ironic("GET", f"/v1/{path}?detail=True").json[key] == [made.json]
    changed = ironic("PATCH", f"/v1/{path}/{uuid}", [{"op": "add", "path": f"/{field}", "value": value}])
    assert (changed.status, changed.json[field]) == (200, value)
    assert changed.json["updated_at"] is not None
    assert ironic("DELETE", f"/v1/{path}/{uuid}").status == 204
    assert ironic("GET", f"/v1/{path}/{uuid}").status == 404
    assert ironic("PATCH", f"/v1/{path}/{uuid}", [{"op": "add", "path": f"/{field}", "value": value}]).status == 404
    assert ironic("DELETE", f"/v1/{path}/{uuid}").status == 404


@pytest.mark.parametrize("path", KINDS)
def test_what_a_resource_cannot_be_is_refused(ironic: Ironic, node: str, path: str) -> None:
    _, body, (field, value) = KINDS[path]
    body = {**body, **({"node_uuid": node} if "node_uuid" in body else {})}
    assert ironic("POST", f"/v1/{path}", {**body, "nonsense": 1}).status == 400
    assert ironic("POST", f"/v1/{path}", {**body, "uuid": "nonsense"}).status == 400
    assert ironic("POST", f"/v1/{path}", [body]).status == 400
    if "node_uuid" in body:
        assert ironic("POST", f"/v1/{path}", {**body, "node_uuid": NOBODY}).status == 400
    uuid = ironic("POST", f"/v1/{path}", body).json["uuid"]
    for wrong in ({"op": "add", "path": "/nonsense", "value": 1}, {"op": "add", "path": "/uuid", "value": NOBODY}):
        assert ironic("PATCH", f"/v1/{path}/{uuid}", [wrong]).status == 400
    assert ironic("PATCH", f"/v1/{path}/{uuid}", {field: value}).status == 400


@pytest.mark.parametrize(
    ("path", "version"),
    [("portgroups", "1.22"), ("allocations", "1.51"), ("runbooks", "1.91"), ("volume/targets", "1.31")],
)
def test_a_resource_is_unknown_before_its_microversion(ironic: Ironic, path: str, version: str) -> None:
    assert ironic("GET", f"/v1/{path}", version=version).status == 404


def test_ports_are_found_by_address_node_and_group(ironic: Ironic, node: str) -> None:
    group = ironic("POST", "/v1/portgroups", {"node_uuid": node, "name": "bond"}).json["uuid"]
    first = {"address": "52:54:00:00:00:01", "node_uuid": node, "portgroup_uuid": group, "name": "eth-a"}
    uuid = ironic("POST", "/v1/ports", first).json["uuid"]
    ironic("POST", "/v1/ports", {"address": "52:54:00:00:00:02", "node_ident": "n1"})

    def found(query: str) -> list[str]:
        return [port["address"][-1] for port in ironic("GET", f"/v1/{query}").json["ports"]]

    assert found("ports?address=52:54:00:00:00:02") == ["2"]
    assert found("ports?node=n1") == found(f"nodes/{node}/ports") == ["1", "2"]
    assert found("ports?portgroup=bond") == found("portgroups/bond/ports") == ["1"]
    assert ironic("GET", "/v1/ports/eth-a").json["uuid"] == uuid
    assert ironic("DELETE", "/v1/portgroups/bond").status == 400
    assert ironic("POST", "/v1/ports", {**first, "name": "other"}).status == 409
    assert ironic("GET", "/v1/ports?node=nobody").status == 404
    assert ironic("POST", "/v1/ports", {"address": "nonsense", "node_uuid": node}).status == 400


def test_a_port_tells_its_switch_port(ironic: Ironic, node: str) -> None:
    body = {"address": "52:54:00:00:00:01", "node_uuid": node}
    link = {"switch_id": "0A:1B:2C:3D:4E:5F", "port_id": "Eth1/1", "switch_info": "sw1"}
    port = ironic("POST", "/v1/ports", {**body, "local_link_connection": link}).json
    assert port["local_link_connection"] == {**link, "switch_id": "0a:1b:2c:3d:4e:5f"}
    for wrong in ({"switch_id": "nonsense", "port_id": "1"}, {"port_id": "1"}, {"nonsense": 1}):
        change = [{"op": "add", "path": "/local_link_connection", "value": wrong}]
        assert ironic("PATCH", f"/v1/ports/{port['uuid']}", change).status == 400


def test_a_chassis_with_nodes_stays(ironic: Ironic) -> None:
    chassis = ironic("POST", "/v1/chassis", {}).json["uuid"]
    uuid = ironic.node(name="n2", chassis_uuid=chassis)["uuid"]
    assert [item["uuid"] for item in ironic("GET", f"/v1/chassis/{chassis}/nodes").json["nodes"]] == [uuid]
    assert ironic("DELETE", f"/v1/chassis/{chassis}").status == 400


def test_volumes_of_a_machine_that_is_on_are_left_alone(ironic: Ironic, node: str) -> None:
    body = {"node_uuid": node, "volume_type": "iscsi", "volume_id": "v1", "boot_index": 0}
    uuid = ironic("POST", "/v1/volume/targets", body).json["uuid"]
    assert ironic("POST", "/v1/volume/targets", body).status == 409
    assert len(ironic("GET", "/v1/nodes/n1/volume/targets").json["targets"]) == 1
    NodeRow.objects.update(power_state="power on")
    assert ironic("DELETE", f"/v1/volume/targets/{uuid}").status == 400


def test_a_sensitive_rule_is_not_shown(ironic: Ironic) -> None:
    rule = {"actions": [{"op": "fail", "args": ["hidden"]}], "sensitive": True}
    answer = ironic("POST", "/v1/inspection_rules", rule)
    assert (answer.status, answer.json["actions"]) == (201, None)


def test_a_runbook_has_traits_of_its_own(ironic: Ironic) -> None:
    ironic("POST", "/v1/runbooks", {"name": "fast-cpu", "steps": [{**STEP, "order": 1}]})
    assert (
        ironic("POST", "/v1/runbooks", {"name": "old", "steps": [{**STEP, "order": 1}]}, version="1.111").status == 400
    )
    assert ironic("PUT", "/v1/runbooks/fast-cpu/traits", {"traits": ["CUSTOM_A"]}).status == 204
    assert ironic("PUT", "/v1/runbooks/fast-cpu/traits/CUSTOM_B").status == 204
    assert ironic("DELETE", "/v1/runbooks/fast-cpu/traits/CUSTOM_A").status == 204
    assert ironic("GET", "/v1/runbooks/fast-cpu").json["traits"] == ["CUSTOM_B"]
