"""What boot services ask of the server, and what hostile machines send through them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from koguma.db import nodes
from koguma.db.models import BootRow, NodeRow, PortRow
from tests.conftest import BOOT_KEY
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")

KEY = {"Authorization": f"Bearer {BOOT_KEY}"}


def post(path: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return Client().post(f"/boot/v1/{path}", data, content_type="application/json", headers=KEY)


def error(response: HttpResponse) -> str:
    return str(json.loads(response.content)["error"])


def test_a_machine_registers_and_again_harmlessly() -> None:
    for _ in range(2):
        answer = post("registrations", factories.machine(1))
        assert (answer.status_code, answer.json()) == (201, {"name": "node-1", "uuid": factories.machine_uuid(1)})


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {BOOT_KEY}"}],
)
def test_without_the_sites_secret_nothing_is_answered(headers: dict[str, str]) -> None:
    client = Client()
    for answer in (
        client.post("/boot/v1/registrations", "{}", content_type="application/json", headers=headers),
        client.post("/boot/v1/reports", "{}", content_type="application/json", headers=headers),
        client.get("/boot/v1/snapshot", headers=headers),
    ):
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b"[" * 100_000, 422),
        (b'{"uuid": NaN}', 422),
        (b"null", 422),
        (b"[]", 422),
        (b" " * 300_000, 413),
    ],
)
def test_what_is_no_registration_is_a_clear_4xx_and_nothing_is_stored(body: bytes, status: int) -> None:
    answer = post("registrations", body)
    assert answer.status_code == status
    assert len(error(answer)) < 1000
    assert not NodeRow.objects.exists()


def test_another_nodes_identifiers_are_a_409_that_tells_nothing_of_it() -> None:
    post("registrations", factories.machine(1))
    answer = post("registrations", factories.machine(2, ports=factories.machine(1)["ports"]))
    assert answer.status_code == 409
    assert factories.mac(1) in error(answer)
    for secret in (factories.machine_uuid(1), "SER0001", "node-1", "10.77"):
        assert secret not in error(answer)
    assert (NodeRow.objects.count(), PortRow.objects.count()) == (1, 1)


def test_a_node_in_use_is_not_changed_by_a_registration() -> None:
    post("registrations", factories.machine(1))
    NodeRow.objects.update(provision_state="active")
    evil = factories.machine(1, bmc={**factories.machine(1)["bmc"], "password": "evil"})
    answer = post("registrations", evil)
    assert answer.status_code == 409
    assert "active" in error(answer)
    assert "evil" not in error(answer)


def test_a_409_of_the_database_itself_is_no_crash() -> None:
    """A port that moves to another node while both are open: refused by the rules before the constraint sees it."""
    post("registrations", factories.machine(1))
    post("registrations", factories.machine(2))
    both = [*factories.machine(2)["ports"], {**factories.machine(1)["ports"][0], "boot": False}]
    assert post("registrations", factories.machine(2, ports=both)).status_code == 409


def test_reports_are_taken_and_refused_one_by_one() -> None:
    post("registrations", factories.machine(1))
    good = factories.report(1, "b" * 32, "script", mode="boot")
    bad = factories.report(9, "b" * 32, "script")
    answer = post("reports", {"reports": [good, bad]})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == [good["id"]]
    assert list(answer.json()["refused"]) == [bad["id"]]
    assert BootRow.objects.count() == 1


@pytest.mark.parametrize("body", [[], {}, {"reports": {}}, {"reports": [{}] * 1001}])
def test_what_is_no_list_of_reports_is_refused_as_a_whole(body: Any) -> None:
    assert post("reports", body).status_code == 422


def test_the_snapshot_is_sent_once_and_then_only_when_it_changed() -> None:
    post("registrations", factories.machine(1))
    client = Client()
    first = client.get("/boot/v1/snapshot", headers=KEY)
    assert first.json()["nodes"][0]["boot"]["mode"] == "register"
    assert first["ETag"] == f'"{first.json()["revision"]}"'
    again = client.get("/boot/v1/snapshot", headers={**KEY, "If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    nodes.patch("node-1", {"name": "web"})
    assert client.get("/boot/v1/snapshot", headers={**KEY, "If-None-Match": first["ETag"]}).status_code == 200


def test_only_the_methods_that_exist_are_answered() -> None:
    assert Client().get("/boot/v1/registrations", headers=KEY).status_code == 405
    assert Client().post("/boot/v1/snapshot", headers=KEY).status_code == 405


def test_while_the_database_is_away_the_answer_is_503_so_that_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from django.db import OperationalError
    from django.db.backends.base.base import BaseDatabaseWrapper

    def away(*_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(BaseDatabaseWrapper, "cursor", away)
    for answer in (
        post("registrations", factories.machine(1)),
        post("reports", {"reports": [factories.report(1, "b" * 32, "script")]}),
        Client().get("/boot/v1/snapshot", headers=KEY),
        Client().get("/api/v1/nodes"),
    ):
        assert answer.status_code == 503
        assert "database" in error(answer)
