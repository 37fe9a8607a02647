"""The way of fake hardware through Ironic's states, asked for over the API and worked on by the real executor."""

from __future__ import annotations

from typing import Any

import pytest

from koguma.db.models import NodeRow
from tests.unit.api.ironic.client import Ironic, Worker


def go(ironic: Ironic, worker: Worker, uuid: str, target: str, **more: Any) -> str:
    answer = ironic.provision(uuid, target, **more)
    assert answer.status == 202, answer.content
    worker.work(uuid)
    return ironic.state(uuid)


def active(ironic: Ironic, worker: Worker, **fields: Any) -> str:
    uuid = str(ironic.node(**fields)["uuid"])
    assert go(ironic, worker, uuid, "manage") == "manageable"
    assert go(ironic, worker, uuid, "provide") == "available"
    assert go(ironic, worker, uuid, "active") == "active"
    return uuid


def step(name: str, interface: str = "deploy", **args: Any) -> dict[str, Any]:
    return {"interface": interface, "step": name, "args": args}


def test_a_node_goes_from_enroll_to_active_and_back(ironic: Ironic, worker: Worker) -> None:
    uuid = active(ironic, worker)
    assert go(ironic, worker, uuid, "rebuild") == "active"
    NodeRow.objects.update(instance_info={"display_name": "web"}, instance_name="web")
    assert go(ironic, worker, uuid, "deleted") == "available"
    node = ironic("GET", f"/v1/nodes/{uuid}").json
    assert (node["instance_info"], node["instance_name"], node["target_provision_state"]) == ({}, None, None)
    assert go(ironic, worker, uuid, "manage") == "manageable"
    assert ironic("DELETE", f"/v1/nodes/{uuid}").status == 204


def test_a_retired_node_is_not_offered_again(ironic: Ironic, worker: Worker) -> None:
    uuid = active(ironic, worker)
    NodeRow.objects.update(retired=True)
    assert go(ironic, worker, uuid, "deleted") == "manageable"
    assert ironic.provision(uuid, "provide").status == 400


def test_the_state_names_its_target_while_it_is_on_the_way(ironic: Ironic) -> None:
    uuid = ironic.node()["uuid"]
    ironic.provision(uuid, "manage")
    node = ironic("GET", f"/v1/nodes/{uuid}").json
    assert (node["provision_state"], node["target_provision_state"]) == ("verifying", "manageable")
    assert node["reservation"] is not None
    assert ironic.provision(uuid, "manage").status == 409
    assert ironic("DELETE", f"/v1/nodes/{uuid}").status == 409


@pytest.mark.parametrize("target", ["provide", "active", "rescue", "nonsense", "inspect", "adopt"])
def test_a_verb_that_the_state_does_not_allow_is_refused(ironic: Ironic, target: str) -> None:
    uuid = ironic.node()["uuid"]
    more = {"rescue_password": "x"} if target == "rescue" else {}
    assert ironic.provision(uuid, target, **more).status == 400


def test_a_verb_is_known_from_its_microversion_on(ironic: Ironic) -> None:
    uuid = ironic.node()["uuid"]
    body = {"target": "manage"}
    assert ironic("PUT", f"/v1/nodes/{uuid}/states/provision", body, version="1.3").status == 406
    assert ironic("PUT", f"/v1/nodes/{uuid}/states/provision", body, version="1.4").status == 202


def test_inspection_leaves_when_it_was(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    assert go(ironic, worker, uuid, "inspect") == "manageable"
    node = ironic("GET", f"/v1/nodes/{uuid}").json
    assert node["inspection_started_at"] <= node["inspection_finished_at"]


def test_adopting_takes_a_machine_over_as_it_is(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    assert go(ironic, worker, uuid, "adopt") == "active"


def test_rescue_and_back(ironic: Ironic, worker: Worker) -> None:
    uuid = active(ironic, worker)
    assert ironic.provision(uuid, "rescue").status == 400
    assert go(ironic, worker, uuid, "rescue", rescue_password="hidden") == "rescue"
    assert go(ironic, worker, uuid, "unrescue") == "active"
    assert "hidden" not in str(NodeRow.objects.values().get())


def test_steps_run_in_their_order_and_hold_until_they_are_let_go_on(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    steps = [step("power_on", "power"), step("hold", "power"), step("erase_devices")]
    assert go(ironic, worker, uuid, "clean", clean_steps=steps) == "clean hold"
    node = ironic("GET", f"/v1/nodes/{uuid}").json
    assert (node["power_state"], node["clean_step"]["step"]) == ("power on", "hold")
    assert node["target_provision_state"] == "manageable"
    assert go(ironic, worker, uuid, "unhold") == "manageable"
    assert ironic("GET", f"/v1/nodes/{uuid}").json["clean_step"] == {}


def test_a_node_that_holds_can_be_aborted(ironic: Ironic, worker: Worker) -> None:
    uuid = active(ironic, worker)
    assert go(ironic, worker, uuid, "service", service_steps=[step("hold", "power")]) == "service hold"
    assert go(ironic, worker, uuid, "abort") == "service failed"
    assert go(ironic, worker, uuid, "abort") == "active"


def test_cleaning_needs_steps_that_can_be(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    for steps in (None, [], [{"step": "x"}], [{"interface": "nonsense", "step": "x"}]):
        assert ironic.provision(uuid, "clean", clean_steps=steps).status == 400
    assert ironic.provision(uuid, "provide", clean_steps=[step("x")]).status == 400


def test_a_runbook_brings_the_steps(ironic: Ironic, worker: Worker) -> None:
    steps = [{"interface": "power", "step": "hold", "order": 2}, {"interface": "power", "step": "power_on", "order": 1}]
    assert ironic("POST", "/v1/runbooks", {"name": "CUSTOM_R", "steps": steps}).status == 201
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    assert go(ironic, worker, uuid, "clean", runbook="CUSTOM_R") == "clean hold"
    assert ironic("GET", f"/v1/nodes/{uuid}").json["power_state"] == "power on"
    assert ironic.provision(uuid, "clean", runbook="nobody").status == 404


def test_deploy_templates_add_steps_by_the_instances_traits(ironic: Ironic, worker: Worker) -> None:
    hold = {"interface": "power", "step": "hold", "args": {}, "priority": 50}
    ironic("POST", "/v1/deploy_templates", {"name": "CUSTOM_T", "steps": [hold]})
    uuid = ironic.node(instance_info={"traits": ["CUSTOM_T"]})["uuid"]
    go(ironic, worker, uuid, "manage")
    go(ironic, worker, uuid, "provide")
    NodeRow.objects.update(instance_info={"traits": ["CUSTOM_T"]})
    assert go(ironic, worker, uuid, "active") == "deploy hold"
    assert go(ironic, worker, uuid, "unhold") == "active"


def test_fake_work_takes_as_long_as_it_is_told(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node(driver_info={"fake_deploy_delay_s": 30})["uuid"]
    go(ironic, worker, uuid, "manage")
    go(ironic, worker, uuid, "provide")
    assert go(ironic, worker, uuid, "active") == "wait call-back"
    worker.work(uuid, after_s=31)
    assert ironic.state(uuid) == "active"


def test_a_deployment_that_waits_can_be_aborted(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node(driver_info={"fake_deploy_delay_s": 30})["uuid"]
    go(ironic, worker, uuid, "manage")
    go(ironic, worker, uuid, "provide")
    go(ironic, worker, uuid, "active")
    path = f"/v1/nodes/{uuid}/states/provision"
    assert ironic("PUT", path, {"target": "abort"}, version="1.109").status == 406
    assert go(ironic, worker, uuid, "abort") == "deploy failed"
    worker.work(uuid, after_s=31)
    assert ironic.state(uuid) == "deploy failed"


def test_fake_work_fails_as_it_is_told(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node(driver_info={"fake_deploy_failure": "no image"})["uuid"]
    go(ironic, worker, uuid, "manage")
    go(ironic, worker, uuid, "provide")
    assert go(ironic, worker, uuid, "active") == "deploy failed"
    assert ironic("GET", f"/v1/nodes/{uuid}").json["last_error"] == "the fake deploy is done: no image"
    history = ironic("GET", f"/v1/nodes/{uuid}/history?detail=True").json["history"]
    assert (history[0]["severity"], "no image" in history[0]["event"]) == ("ERROR", True)
    event = ironic("GET", f"/v1/nodes/{uuid}/history/{history[0]['uuid']}").json
    assert event == history[0]


def test_a_bmc_that_refuses_leaves_the_node_enrolled(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node(driver_info={"fake_power_failure": "no such account"})["uuid"]
    assert go(ironic, worker, uuid, "manage") == "enroll"
    assert "no such account" in ironic("GET", f"/v1/nodes/{uuid}").json["last_error"]


@pytest.mark.parametrize(
    ("target", "power"),
    [
        ("power on", "power on"),
        ("rebooting", "power on"),
        ("soft rebooting", "power on"),
        ("soft power off", "power off"),
    ],
)
def test_power_is_what_was_asked_for(ironic: Ironic, worker: Worker, target: str, power: str) -> None:
    uuid = ironic.node()["uuid"]
    answer = ironic("PUT", f"/v1/nodes/{uuid}/states/power", {"target": target})
    assert (answer.status, answer.headers["location"]) == (202, f"http://api.test/v1/nodes/{uuid}/states")
    assert ironic("GET", f"/v1/nodes/{uuid}/states").json["target_power_state"] == power
    worker.work(uuid)
    states = ironic("GET", f"/v1/nodes/{uuid}/states").json
    assert (states["power_state"], states["target_power_state"]) == (power, None)


def test_power_targets_have_rules(ironic: Ironic) -> None:
    path = f"/v1/nodes/{ironic.node(disable_power_off=True)['uuid']}/states/power"
    assert ironic("PUT", path, {"target": "nonsense"}).status == 400
    assert ironic("PUT", path, {"target": "power off"}).status == 400
    assert ironic("PUT", path, {"target": "power on", "timeout": 0}).status == 400
    assert ironic("PUT", path, {"target": "soft rebooting"}, version="1.26").status == 406


def test_a_node_in_maintenance_is_not_deployed(ironic: Ironic, worker: Worker) -> None:
    uuid = ironic.node()["uuid"]
    go(ironic, worker, uuid, "manage")
    go(ironic, worker, uuid, "provide")
    ironic("PUT", f"/v1/nodes/{uuid}/maintenance", {})
    assert ironic.provision(uuid, "active").status == 400


def test_a_protected_node_keeps_its_use(ironic: Ironic, worker: Worker) -> None:
    uuid = active(ironic, worker)
    NodeRow.objects.update(protected=True)
    assert ironic.provision(uuid, "deleted").status == ironic.provision(uuid, "rebuild").status == 403
    assert ironic.state(uuid) == "active"
