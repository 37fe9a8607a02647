from __future__ import annotations

import json
import time

import pytest
from boot_service import Answer, serving
from koguma_node import service as service_module
from koguma_node.errors import NodeError, RefusedError
from koguma_node.service import Service


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "PAUSES_S", (0.01,))


def soon() -> float:
    return time.monotonic() + 5


def test_every_request_carries_the_boot_token_below_the_machine_s_uuid() -> None:
    with serving(Answer(200, b'{"node": "node-1"}')) as server:
        assert Service(server.url, "uuid-1", "token-1").get("profile", soon()) == {"node": "node-1"}
    assert server.requests[0].path == "/ipxe/uuid-1/profile"
    assert server.requests[0].headers["Authorization"] == "Bearer token-1"


def test_a_busy_service_is_asked_again_until_it_answers() -> None:
    with serving(Answer(503), Answer(500), Answer(201, b'{"name": "node-1"}')) as server:
        assert Service(server.url, "u", "t").post("register", {"a": 1}, soon()) == {"name": "node-1"}
    assert [json.loads(request.body) for request in server.requests] == [{"a": 1}] * 3


def test_a_refusal_is_final_and_says_the_service_s_reason() -> None:
    with serving(Answer(409, b'{"error": "serial must be unique"}')) as server, pytest.raises(RefusedError) as refused:
        Service(server.url, "u", "t").post("register", {}, soon())
    assert str(refused.value) == f"serial must be unique (HTTP 409, {server.url}/ipxe/u/register)"
    assert refused.value.status == 409
    assert len(server.requests) == 1


def test_a_service_that_stays_away_is_given_up_at_the_deadline() -> None:
    with serving(Answer(503)) as server, pytest.raises(NodeError, match=r"must answer in time: HTTP 503"):
        Service(server.url, "u", "t").get("profile", time.monotonic() + 0.2)


def test_no_connection_is_given_up_at_the_deadline() -> None:
    with pytest.raises(NodeError, match="cannot connect"):
        Service("http://127.0.0.1:1", "u", "t").get("profile", time.monotonic() + 0.1)


@pytest.mark.parametrize("body", [b"<html>", b"[1]"])
def test_an_answer_that_is_no_json_object_is_refused(body: bytes) -> None:
    with serving(Answer(200, body)) as server, pytest.raises(NodeError, match="must be"):
        Service(server.url, "u", "t").get("profile", soon())


def test_a_report_that_cannot_be_delivered_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Answer(403, b'{"error": "no"}')) as server:
        Service(server.url, "u", "t").report("verify", "failed", "because")
    assert "was not delivered" in capsys.readouterr().out
    assert json.loads(server.requests[0].body)["reason"] == "because"
