"""What inspection rules and hooks make of what machines tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client, override_settings

from koguma.db.models import NodeRow
from koguma.errors import KogumaError
from tests.conftest import BOOT_KEY
from tests.unit import factories

if TYPE_CHECKING:
    from tests.unit.api.ironic.client import Ironic

INVENTORY = {
    "interfaces": [{"mac_address": "52:54:00:00:00:01"}],
    "cpu": {"architecture": "aarch64", "count": 64},
    "memory": {"physical_mb": 4096},
    "boot": {"current_boot_mode": "uefi"},
    "system_vendor": {"manufacturer": "Example Inc."},
}


@pytest.fixture(autouse=True)
def no_rules_remembered() -> Iterator[None]:
    from koguma.api.ironic.inspecting import built_in_rules

    built_in_rules.cache_clear()
    yield
    built_in_rules.cache_clear()


def rule(ironic: Ironic, *actions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = ironic("POST", "/v1/inspection_rules", {"actions": list(actions), **fields})
    assert answer.status == 201, answer.content
    document: dict[str, Any] = answer.json
    return document


def inspected(ironic: Ironic, **plugin_data: Any) -> dict[str, Any]:
    """A node after an agent told INVENTORY of its machine."""
    uuid = ironic.node(name="n1", properties={"capabilities": "cpu_vt:true", "own": 1})["uuid"]
    NodeRow.objects.update(provision_state="inspect wait")
    body = {"inventory": INVENTORY, **plugin_data}
    assert ironic("POST", f"/v1/continue_inspection?node_uuid={uuid}", body).status == 202
    document: dict[str, Any] = ironic("GET", f"/v1/nodes/{uuid}").json
    return document


def registered() -> None:
    body = json.dumps(factories.machine(1))
    headers = {"Authorization": f"Bearer {BOOT_KEY}"}
    answer = Client().post("/boot/v1/registrations", body, content_type="application/json", headers=headers)
    assert answer.status_code == 201, answer.content


def test_a_node_has_the_properties_that_its_machine_told(ironic: Ironic) -> None:
    assert inspected(ironic)["properties"] == {
        "own": 1,
        "cpu_arch": "aarch64",
        "cpus": 64,
        "memory_mb": 4096,
        "capabilities": "cpu_vt:true,boot_mode:uefi",
    }


def test_a_rule_changes_the_node_whose_machine_meets_its_conditions(ironic: Ironic) -> None:
    condition = {"op": "contains", "args": ["{inventory[system_vendor][manufacturer]}", "(?i)example"]}
    rule(
        ironic,
        {"op": "set-attribute", "args": ["/resource_class", "big"]},
        {"op": "set-attribute", "args": {"path": "/driver_info/ipmi_password", "value": "{plugin_data[word]}"}},
        {"op": "add-trait", "args": {"name": "CUSTOM_BIG"}},
        {"op": "set-plugin-data", "args": {"path": "seen", "value": True}},
        conditions=[condition],
    )
    rule(ironic, {"op": "fail", "args": ["never"]}, conditions=[{**condition, "op": "!contains"}])
    node = inspected(ironic, word="w")
    assert (node["resource_class"], node["traits"]) == ("big", ["CUSTOM_BIG"])
    assert ironic("GET", "/v1/nodes/n1/inventory").json["plugin_data"] == {"word": "w", "seen": True}


def test_a_rule_that_fails_says_why_and_changes_nothing(ironic: Ironic) -> None:
    rule(ironic, {"op": "set-attribute", "args": ["/resource_class", "big"]}, priority=9)
    rule(ironic, {"op": "fail", "args": ["no {inventory[cpu][architecture]} here"]}, priority=1)
    node = inspected(ironic)
    assert (node["resource_class"], node["properties"]) == (None, {"capabilities": "cpu_vt:true", "own": 1})
    assert node["last_error"] == "inspection: no aarch64 here"


def test_what_a_client_could_not_set_a_rule_cannot_set_either(ironic: Ironic) -> None:
    rule(ironic, {"op": "set-attribute", "args": ["/driver", "no-such-driver"]})
    assert "no-such-driver" in inspected(ironic)["last_error"]


def test_a_machine_that_registers_by_itself_meets_the_rules(ironic: Ironic) -> None:
    factories.network()
    factories.flavor()
    rule(
        ironic,
        {"op": "set-attribute", "args": {"path": "/extra/macs", "value": "{inventory[interfaces][0][mac_address]}"}},
        {"op": "set-attribute", "args": {"path": "/driver", "value": "ipmi"}},
        {"op": "set-attribute", "args": {"path": "/driver_info/ipmi_address", "value": "198.51.100.9"}},
    )
    registered()
    node = ironic("GET", "/v1/nodes/node-1").json
    assert node["extra"] == {"macs": factories.mac(1)}
    assert node["properties"]["cpus"] == 2
    row = NodeRow.objects.get()
    assert (row.bmc_address, row.goal) == ("198.51.100.9", "active")


def test_a_machine_that_a_rule_refuses_stays_where_it_is(ironic: Ironic) -> None:
    factories.network()
    factories.flavor()
    rule(ironic, {"op": "fail", "args": ["this rack is closed"]})
    registered()
    row = NodeRow.objects.get()
    assert (row.provision_state, row.goal, row.status) == ("enroll", None, "this rack is closed")


def test_rules_of_the_sites_file_are_applied_and_cannot_be_changed(ironic: Ironic, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- description: all\n  actions:\n  - {op: set-attribute, args: [/description, from the file]}\n")
    with override_settings(KOGUMA_INSPECTION_RULES=str(path)):
        assert inspected(ironic)["description"] == "from the file"
    assert ironic("GET", "/v1/inspection_rules").json["inspection_rules"] == []


@pytest.mark.parametrize("text", ["a: b", "- {}", "- {actions: [{op: guess}]}", "- {actions: [{op: fail}]}", "["])
def test_a_file_with_a_rule_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    from koguma.api.ironic.inspecting import read_rules

    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(KogumaError, match=r"rules\.yaml"):
        read_rules(path)


@pytest.mark.parametrize(
    "operation",
    [{"op": "guess", "args": {}}, {"op": "set-attribute", "args": {"path": "/x"}}, {"op": "fail", "args": "x"}],
)
def test_a_rule_that_could_never_run_is_refused(ironic: Ironic, operation: dict[str, Any]) -> None:
    answer = ironic("POST", "/v1/inspection_rules", {"actions": [operation]})
    assert answer.status == 400
    assert "actions[0]" in answer.fault


def test_the_inventory_of_a_machine_that_registered_is_as_an_agent_tells_it(ironic: Ironic) -> None:
    factories.network()
    factories.flavor()
    registered()
    told = ironic("GET", "/v1/nodes/node-1/inventory").json["inventory"]
    assert told["interfaces"][0]["mac_address"] == factories.mac(1)
    assert told["cpu"]["architecture"] == "x86_64"
    assert told["boot"]["pxe_interface"] == factories.mac(1)
