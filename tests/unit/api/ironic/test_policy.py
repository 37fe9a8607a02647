"""What system-scoped and project-scoped roles, owners and lessees of nodes may see and do; and whose a token is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from koguma.db.models import AllocationRow, NodeRow

if TYPE_CHECKING:
    from tests.unit.api.ironic.client import Ironic

OWNER, LESSEE, OTHER = "a" * 32, "b" * 32, "c" * 32
ROLES = {"reader": ("reader",), "member": ("reader", "member"), "admin": ("reader", "member", "manager", "admin")}


@pytest.fixture
def asked_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Who asks from now on: a role on `system`, or on a project."""
    from koguma.api.ironic import keystone
    from koguma.api.ironic.http import Refused
    from koguma.api.ironic.identity import Identity

    now: list[Identity | None] = [None]

    def identify(_: Any) -> Identity:
        if now[0] is None:
            raise Refused(401, "The request you have made requires authentication.")
        return now[0]

    def ask(role: str, project: str, **more: Any) -> None:
        roles = frozenset(ROLES.get(role, (role,)))
        system = project == "system"
        now[0] = Identity("someone", roles, None if system else project, system, **more)

    monkeypatch.setattr(keystone, "identify", identify)
    with override_settings(KOGUMA_API_AUTH="keystone"):
        yield ask


@pytest.fixture
def node(ironic: Ironic) -> dict[str, Any]:
    """A node of OWNER, leased to LESSEE, and one of nobody; both made before anybody is asked who they are."""
    ironic.node(name="nobodys")
    return ironic.node(name="n1", owner=OWNER, lessee=LESSEE, driver_info={"fake_clean_delay_s": 1})


@pytest.mark.usefixtures("node")
def test_without_a_token_only_the_root_and_agents_are_answered(ironic: Ironic, asked_by: Any) -> None:
    refused = ironic("GET", "/v1/nodes")
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Keystone uri=")
    assert ironic("GET", "/").status == ironic("GET", "/v1/").status == 200
    assert ironic("GET", "/v1/lookup?addresses=52:54:00:00:00:01").status == 404


@pytest.mark.parametrize(
    ("role", "project", "seen"),
    [
        ("reader", "system", ["n1", "nobodys"]),
        ("admin", "system", ["n1", "nobodys"]),
        ("service", "system", ["n1", "nobodys"]),
        ("reader", OWNER, ["n1"]),
        ("reader", LESSEE, ["n1"]),
        ("admin", OTHER, []),
    ],
)
def test_a_list_shows_what_one_may_see(
    ironic: Ironic, node: dict[str, Any], asked_by: Any, role: str, project: str, seen: list[str]
) -> None:
    asked_by(role, project)
    for path in ("/v1/nodes", "/v1/nodes/detail"):
        assert sorted(item["name"] for item in ironic("GET", path).json["nodes"]) == seen
    assert ironic("GET", "/v1/nodes/n1").status == (200 if "n1" in seen else 404)
    assert ironic("GET", "/v1/nodes/nobodys").status == (200 if "nobodys" in seen else 404)


def test_a_role_that_is_none_sees_nothing(ironic: Ironic, node: dict[str, Any], asked_by: Any) -> None:
    asked_by("observer", OWNER)
    assert ironic("GET", "/v1/nodes").status == 403


def test_a_lessee_does_not_see_how_the_node_is_driven(ironic: Ironic, node: dict[str, Any], asked_by: Any) -> None:
    NodeRow.objects.update(last_error="the BMC at 192.0.2.1 is away")
    asked_by("admin", LESSEE)
    shown = ironic("GET", "/v1/nodes/n1").json
    for field in ("driver_info", "driver_internal_info", "last_error", "reservation"):
        assert "Redacted" in str(shown[field])
    asked_by("reader", OWNER)
    shown = ironic("GET", "/v1/nodes/n1").json
    assert (shown["driver_info"], shown["last_error"]) == ({"fake_clean_delay_s": 1}, "the BMC at 192.0.2.1 is away")


PROVISION = ("PUT", "/v1/nodes/n1/states/provision", {"target": "manage"})
POWER = ("PUT", "/v1/nodes/n1/states/power", {"target": "power on"})
MAINTENANCE = ("PUT", "/v1/nodes/n1/maintenance", {"reason": "r"})
TRAIT = ("PUT", "/v1/nodes/n1/traits/CUSTOM_X", None)
PORT = ("POST", "/v1/ports", {"node_uuid": "n1", "address": "52:54:00:00:00:01"})
HISTORY = ("GET", "/v1/nodes/n1/history", None)
DELETE = ("DELETE", "/v1/nodes/n1", None)


@pytest.mark.parametrize(
    ("role", "project", "request_", "status"),
    [
        ("reader", "system", PROVISION, 403),
        ("member", "system", PROVISION, 202),
        ("reader", OWNER, PROVISION, 403),
        ("member", OWNER, PROVISION, 202),
        ("member", LESSEE, PROVISION, 403),
        ("admin", LESSEE, PROVISION, 202),
        ("admin", OTHER, PROVISION, 404),
        ("member", LESSEE, POWER, 202),
        ("reader", LESSEE, POWER, 403),
        ("admin", LESSEE, MAINTENANCE, 202),
        ("member", OWNER, TRAIT, 403),
        ("admin", OWNER, TRAIT, 204),
        ("admin", LESSEE, TRAIT, 403),
        ("admin", LESSEE, PORT, 403),
        ("admin", OWNER, PORT, 201),
        ("member", "system", PORT, 403),
        ("reader", LESSEE, HISTORY, 403),
        ("reader", OWNER, HISTORY, 200),
        ("member", "system", DELETE, 403),
        ("admin", LESSEE, DELETE, 403),
        ("admin", OWNER, DELETE, 204),
        ("admin", "system", DELETE, 204),
    ],
)
def test_a_role_may_do_what_ironic_lets_it_do(
    ironic: Ironic, node: dict[str, Any], asked_by: Any, role: str, project: str, request_: Any, status: int
) -> None:
    method, path, body = request_
    body = {**body, "node_uuid": node["uuid"]} if body and "node_uuid" in body else body
    asked_by(role, project)
    assert ironic(method, path, body).status == status


@pytest.mark.parametrize(
    ("role", "project", "field", "value", "status"),
    [
        ("member", LESSEE, "/extra/x", "1", 200),
        ("member", LESSEE, "/instance_info/x", "1", 403),
        ("admin", LESSEE, "/instance_info/x", "1", 200),
        ("admin", LESSEE, "/driver_info/x", "1", 403),
        ("member", OWNER, "/driver_info/x", "1", 200),
        ("admin", OWNER, "/owner", OTHER, 403),
        ("member", "system", "/owner", OTHER, 200),
        ("member", OWNER, "/lessee", OTHER, 200),
        ("admin", LESSEE, "/lessee", OTHER, 403),
        ("member", OWNER, "/driver", "ipmi", 403),
        ("admin", OWNER, "/automated_clean", False, 403),
    ],
)
def test_some_fields_are_not_everybodys(
    ironic: Ironic, node: dict[str, Any], asked_by: Any, role: str, project: str, field: str, value: Any, status: int
) -> None:
    asked_by(role, project)
    assert ironic("PATCH", "/v1/nodes/n1", [{"op": "add", "path": field, "value": value}]).status == status


def test_an_admin_of_a_project_makes_nodes_of_that_project(ironic: Ironic, asked_by: Any) -> None:
    asked_by("admin", OWNER)
    made = ironic("POST", "/v1/nodes", {"driver": "fake-hardware"})
    assert (made.status, made.json["owner"]) == (201, OWNER)
    assert ironic("POST", "/v1/nodes", {"driver": "fake-hardware", "owner": OTHER}).status == 403
    asked_by("member", OWNER)
    assert ironic("POST", "/v1/nodes", {"driver": "fake-hardware"}).status == 403


def test_an_allocation_is_its_makers(ironic: Ironic, asked_by: Any) -> None:
    asked_by("member", OWNER)
    made = ironic("POST", "/v1/allocations", {"resource_class": "big", "name": "mine"})
    assert (made.status, made.json["owner"]) == (201, OWNER)
    assert ironic("POST", "/v1/allocations", {"resource_class": "big", "owner": OTHER}).status == 403
    asked_by("admin", OTHER)
    assert ironic("GET", "/v1/allocations").json["allocations"] == []
    assert ironic("GET", "/v1/allocations/mine").status == 404
    assert ironic("DELETE", "/v1/allocations/mine").status == 404
    assert AllocationRow.objects.count() == 1


def test_a_runbook_is_its_projects_or_everybodys(ironic: Ironic, node: dict[str, Any], asked_by: Any) -> None:
    steps = [{"interface": "deploy", "step": "erase_devices", "args": {}, "order": 1}]
    asked_by("admin", OWNER)
    made = ironic("POST", "/v1/runbooks", {"name": "CUSTOM_MINE", "steps": steps})
    assert (made.status, made.json["owner"]) == (201, OWNER)
    assert ironic("POST", "/v1/runbooks", {"name": "CUSTOM_ALL", "steps": steps, "public": True}).status == 403
    asked_by("admin", LESSEE)
    assert ironic("GET", "/v1/runbooks/CUSTOM_MINE").status == 404
    assert ironic("GET", "/v1/runbooks").json["runbooks"] == []
    NodeRow.objects.update(provision_state="manageable")
    use = {"target": "clean", "runbook": "CUSTOM_MINE"}
    assert ironic("PUT", "/v1/nodes/n1/states/provision", use).status == 404
    asked_by("admin", "system")
    public = [{"op": "replace", "path": "/public", "value": True}]
    assert ironic("PATCH", "/v1/runbooks/CUSTOM_MINE", public).status == 200
    asked_by("admin", LESSEE)
    assert ironic("GET", "/v1/runbooks/CUSTOM_MINE").status == 200
    assert ironic("DELETE", "/v1/runbooks/CUSTOM_MINE").status == 403
    assert ironic("PUT", "/v1/nodes/n1/states/provision", use).status == 202


def test_how_a_volume_is_reached_is_for_admins(ironic: Ironic, node: dict[str, Any], asked_by: Any) -> None:
    target = {"volume_type": "iscsi", "volume_id": "v", "boot_index": 0, "properties": {"target_iqn": "iqn.x"}}
    asked_by("admin", LESSEE)
    assert ironic("POST", "/v1/volume/targets", {**target, "node_uuid": node["uuid"]}).status == 201
    path = "/v1/volume/targets?detail=true"
    assert ironic("GET", path).json["targets"][0]["properties"] == {"target_iqn": "iqn.x"}
    asked_by("reader", LESSEE)
    assert "redacted_contents" in ironic("GET", path).json["targets"][0]["properties"]


@pytest.mark.parametrize("path", ["conductors", "drivers", "chassis", "deploy_templates", "inspection_rules", "shards"])
def test_what_is_the_systems_is_not_shown_to_projects(ironic: Ironic, asked_by: Any, path: str) -> None:
    asked_by("admin", OWNER)
    assert ironic("GET", f"/v1/{path}").status == 403
    asked_by("reader", "system")
    assert ironic("GET", f"/v1/{path}").status == 200


def test_the_service_of_the_service_project_is_trusted_with_the_system(
    ironic: Ironic, node: dict[str, Any], asked_by: Any
) -> None:
    asked_by("service", OTHER)
    assert ironic("GET", "/v1/nodes/n1").status == 404
    asked_by("service", OTHER, service_project=True)
    assert ironic("GET", "/v1/nodes/n1").status == 200
    assert ironic(*PROVISION).status == 202


def test_the_middlewares_words_become_an_identity() -> None:
    from koguma.api.ironic.http import Refused
    from koguma.api.ironic.keystone import identity_of

    told = {"HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_ROLES": "Reader,member", "HTTP_X_USER_NAME": "u"}
    who = identity_of({**told, "HTTP_X_PROJECT_ID": OWNER, "HTTP_X_PROJECT_NAME": "service"})
    assert (who.roles, who.project, who.system, who.service_project) == ({"reader", "member"}, OWNER, False, True)
    assert identity_of({**told, "HTTP_OPENSTACK_SYSTEM_SCOPE": "all"}).system
    with pytest.raises(Refused):
        identity_of({**told, "HTTP_X_IDENTITY_STATUS": "Invalid"})


@pytest.mark.usefixtures("db")
def test_every_path_is_somebodys() -> None:
    """A rule for a path that does not exist would protect nothing."""
    from koguma.api.ironic.policy import RULES
    from koguma.api.ironic.routes import ROUTES

    assert set(RULES) <= {(method, pattern) for method, pattern, _ in ROUTES}


def test_the_native_api_is_the_operators(ironic: Ironic, asked_by: Any) -> None:
    asked_by("admin", OWNER)
    assert ironic("GET", "/api/v1/nodes").status == 403
    asked_by("reader", "system")
    assert ironic("GET", "/api/v1/nodes").status == 200
    assert ironic("POST", "/api/v1/nodes", {}).status == 403
