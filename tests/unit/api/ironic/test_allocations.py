"""Allocations: each gets a node of its own, or a reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection

from koguma.db import allocations
from koguma.db.models import AllocationRow, NodeRow
from tests.unit.api.ironic.client import Ironic, Worker


def free_nodes(ironic: Ironic, count: int = 1, **fields: Any) -> list[str]:
    uuids = [str(ironic.node(resource_class="gold", **fields)["uuid"]) for _ in range(count)]
    NodeRow.objects.update(provision_state="available", power_state="power off")
    return uuids


def wish(ironic: Ironic, **fields: Any) -> dict[str, Any]:
    answer = ironic("POST", "/v1/allocations", {"resource_class": "gold", **fields})
    assert answer.status == 201, answer.content
    document: dict[str, Any] = answer.json
    return document


def test_an_allocation_gets_a_free_node(ironic: Ironic, worker: Worker) -> None:
    (node,) = free_nodes(ironic)
    made = wish(ironic, name="web")
    assert (made["state"], made["node_uuid"]) == ("allocating", None)
    worker.allocate()
    found = ironic("GET", "/v1/allocations/web").json
    assert (found["state"], found["node_uuid"], found["last_error"]) == ("active", node, None)
    shown = ironic("GET", f"/v1/nodes/{node}").json
    assert (shown["allocation_uuid"], shown["instance_uuid"]) == (made["uuid"], made["uuid"])
    assert ironic("GET", f"/v1/nodes/{node}/allocation").json["uuid"] == made["uuid"]
    assert ironic("DELETE", "/v1/allocations/web").status == 204
    assert ironic("GET", f"/v1/nodes/{node}").json["instance_uuid"] is None


def test_an_allocation_without_a_node_says_why(ironic: Ironic, worker: Worker) -> None:
    free_nodes(ironic)
    made = wish(ironic, resource_class="tin")
    worker.allocate()
    found = ironic("GET", f"/v1/allocations/{made['uuid']}").json
    assert (found["state"], "tin" in found["last_error"]) == ("error", True)


def test_traits_and_candidates_narrow_the_choice(ironic: Ironic, worker: Worker) -> None:
    first, second = free_nodes(ironic, 2)
    NodeRow.objects.filter(uuid=second).update(traits=["CUSTOM_A", "CUSTOM_B"])
    by_trait = wish(ironic, traits=["CUSTOM_A"])
    by_name = wish(ironic, candidate_nodes=[first])
    worker.allocate()
    assert ironic("GET", f"/v1/allocations/{by_trait['uuid']}").json["node_uuid"] == second
    assert ironic("GET", f"/v1/allocations/{by_name['uuid']}").json["node_uuid"] == first
    assert ironic("POST", "/v1/allocations", {"resource_class": "gold", "candidate_nodes": ["nobody"]}).status == 400
    assert ironic("POST", "/v1/allocations", {}).status == 400


def test_no_node_is_given_twice(ironic: Ironic) -> None:
    nodes = free_nodes(ironic, 5)
    uuids = [wish(ironic)["uuid"] for _ in range(8)]

    def allocate(uuid: str) -> None:
        try:
            allocations.allocate(uuid)
        finally:
            connection.close()

    for _ in range(3):  # one that met only nodes being taken is looked at again
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(allocate, uuids))
    given = [str(uuid) for uuid in AllocationRow.objects.exclude(node=None).values_list("node__uuid", flat=True)]
    assert sorted(given) == sorted(nodes)
    assert AllocationRow.objects.filter(state="error").count() == 3


def test_taking_the_instance_from_a_node_ends_its_allocation(ironic: Ironic, worker: Worker) -> None:
    (node,) = free_nodes(ironic)
    wish(ironic)
    worker.allocate()
    change = [{"op": "remove", "path": "/instance_uuid"}]
    assert ironic("PATCH", f"/v1/nodes/{node}", change).status == 200
    assert AllocationRow.objects.count() == 0


def test_an_allocation_is_made_for_a_node_in_use(ironic: Ironic) -> None:
    (node,) = free_nodes(ironic)
    assert ironic("POST", "/v1/allocations", {"node": node}).status == 400
    NodeRow.objects.update(provision_state="active")
    made = ironic("POST", "/v1/allocations", {"node": node}).json
    assert (made["state"], made["resource_class"]) == ("active", "gold")
    assert ironic("DELETE", f"/v1/allocations/{made['uuid']}").status == 409


def test_allocations_are_filtered_and_renamed(ironic: Ironic, worker: Worker) -> None:
    (node,) = free_nodes(ironic)
    first = wish(ironic)["uuid"]
    worker.allocate()
    wish(ironic, resource_class="tin")

    def found(query: str) -> list[str]:
        return [item["uuid"] for item in ironic("GET", f"/v1/allocations?{query}").json["allocations"]]

    assert found(f"node={node}") == found("state=active") == found("resource_class=gold") == [first]
    change = [{"op": "add", "path": "/name", "value": "web"}]
    assert ironic("PATCH", f"/v1/allocations/{first}", change).json["name"] == "web"
    assert ironic("PATCH", f"/v1/allocations/{first}", change, version="1.56").status == 405
    assert ironic("PATCH", "/v1/allocations/web", [{"op": "add", "path": "/state", "value": "x"}]).status == 400
