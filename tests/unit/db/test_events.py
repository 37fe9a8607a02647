"""Every transition is an event, in an order nobody can miss one of, and webhooks are told of each."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from typing import Any

import httpx
import psycopg
import pytest
from django.db import connection, transaction

from koguma.db import events, nodes, webhooks
from koguma.db.events import BEGINNING, Place
from koguma.db.models import NodeRow, WebhookRow
from koguma.model.errors import InvalidValue
from koguma.model.states import Verb
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")

SECRET = "a secret of some length"


def told(place: Place = BEGINNING, **narrow: Any) -> list[tuple[str, str]]:
    return [(event["kind"], event["provision_state"]) for _, event in events.after(place, 1000, **narrow)]


def test_what_happens_to_a_node_is_told_in_order() -> None:
    row = factories.register(1)
    place = events.newest()
    NodeRow.objects.filter(pk=row.pk).update(provision_state="manageable")
    NodeRow.objects.filter(pk=row.pk).update(power_state="power on")
    NodeRow.objects.filter(pk=row.pk).update(maintenance=True)
    NodeRow.objects.filter(pk=row.pk).update(status_code="BMC_REFUSED")
    NodeRow.objects.filter(pk=row.pk).update(extra={"nothing": "to tell"})
    nodes.delete("node-1", force=True)
    assert [kind for kind, _ in told(place)] == ["provision", "power", "maintenance", "status", "deleted"]
    assert told(place, kinds=["power"]) == [("power", "manageable")]
    assert told(place, node=factories.machine_uuid(2)) == []


def test_a_node_that_was_rolled_back_was_never_there() -> None:
    with transaction.atomic():
        factories.register(1)
        transaction.set_rollback(True)
    assert told() == []


def test_an_event_of_a_slow_transaction_is_not_missed_by_who_has_read_a_faster_ones(db: str) -> None:
    slow_row, fast_row = factories.register(1), factories.register(2)
    place = events.newest()
    with psycopg.connect(db) as slow:
        slow.execute("UPDATE koguma_node SET provision_state = 'manageable' WHERE id = %s", [slow_row.pk])
        NodeRow.objects.filter(pk=fast_row.pk).update(provision_state="manageable")
        NodeRow.objects.filter(pk=fast_row.pk).update(provision_state="available")
        seen = events.after(place, 1000)
        place = seen[-1][0] if seen else place
        slow.commit()
    later = events.after(place, 1000)
    everybody = [(event["name"], event["provision_state"]) for _, event in seen + later]
    assert sorted(everybody) == [("node-1", "manageable"), ("node-2", "available"), ("node-2", "manageable")]
    assert [state for name, state in everybody if name == "node-2"] == ["manageable", "available"]


def test_a_page_goes_on_where_the_last_one_ended() -> None:
    row = factories.register(1)
    place = events.newest()
    for number in range(5):
        NodeRow.objects.filter(pk=row.pk).update(status_code=f"CODE_{number}")
    first = events.after(place, 2)
    rest = events.after(first[-1][0], 100)
    assert [event["status_code"] for _, event in first + rest] == [f"CODE_{number}" for number in range(5)]


class Receiver:
    """Takes what is posted, or fails."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.status = 204

    def __call__(self, url: str, **request: Any) -> httpx.Response:
        if self.status == 0:
            raise httpx.ReadTimeout("it hangs")
        if self.status < 300:
            self.raw.append(request["content"])
            self.bodies.append(json.loads(request["content"]))
            self.headers.append(request["headers"])
        return httpx.Response(self.status)

    def states(self) -> list[str]:
        return [event["provision_state"] for body in self.bodies for event in body["events"]]


def hook(**changes: Any) -> WebhookRow:
    values: dict[str, Any] = {"name": "hook", "url": "http://127.0.0.1:9/", "secret": SECRET, "kinds": ["provision"]}
    return webhooks.create(**{**values, **changes})


def due(row: WebhookRow) -> None:
    """Its pause is over."""
    WebhookRow.objects.filter(pk=row.pk).update(next_at="2000-01-01T00:00:00Z")


def test_a_receiver_is_told_in_order_and_can_check_who_told_it() -> None:
    node = factories.register(1)
    row, receiver = hook(), Receiver()
    for state in ("manageable", "available"):
        NodeRow.objects.filter(pk=node.pk).update(provision_state=state)
    webhooks.deliver(row.pk, receiver)
    assert receiver.states() == ["manageable", "available"]
    at, _, digest = receiver.headers[0]["Koguma-Signature"].removeprefix("t=").partition(",v1=")
    assert hmac.new(SECRET.encode(), f"{at}.".encode() + receiver.raw[0], hashlib.sha256).hexdigest() == digest
    due(row)
    webhooks.deliver(row.pk, receiver)
    assert receiver.states() == ["manageable", "available"], "nothing is told twice"


@pytest.mark.parametrize("status", [0, 302, 404, 500])
def test_what_a_receiver_did_not_take_is_told_again_and_the_reason_is_on_record(status: int) -> None:
    node = factories.register(1)
    row, receiver = hook(), Receiver()
    NodeRow.objects.filter(pk=node.pk).update(provision_state="manageable")
    receiver.status = status
    webhooks.deliver(row.pk, receiver)
    failed = webhooks.shown(webhooks.find("hook"))
    assert failed["tries"] == 1
    assert failed["last_error"]
    assert webhooks.deliver(row.pk, receiver) is False, "it is given a pause"
    receiver.status = 200
    due(row)
    webhooks.deliver(row.pk, receiver)
    assert receiver.states() == ["manageable"]
    assert webhooks.shown(webhooks.find("hook"))["last_error"] is None


def test_only_one_worker_tells_a_receiver(db: str) -> None:
    node = factories.register(1)
    row, receiver = hook(), Receiver()
    NodeRow.objects.filter(pk=node.pk).update(provision_state="manageable")
    with psycopg.connect(db, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [webhooks.WEBHOOK_LOCK, row.pk])
        assert webhooks.deliver(row.pk, receiver) is False
        assert receiver.bodies == []


def test_a_receiver_that_hangs_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    node = factories.register(1)
    hook(name="hangs", url="http://hangs/")
    hook(name="well", url="http://well/")
    NodeRow.objects.filter(pk=node.pk).update(provision_state="manageable")
    receiver, release = Receiver(), threading.Event()

    def post(url: str, **request: Any) -> httpx.Response:
        if url == "http://hangs/":
            release.wait(30)
            raise httpx.ReadTimeout("it hangs")
        return receiver(url, **request)

    monkeypatch.setattr(webhooks.deliver, "__defaults__", (post,))
    try:
        webhooks.deliver_due()
        _wait_for(lambda: receiver.states() == ["manageable"])
        webhooks.deliver_due()  # the one that hangs is not begun again
        assert sum(thread.name == "webhook hangs" for thread in threading.enumerate()) == 1
    finally:
        release.set()
    _wait_for(lambda: webhooks.shown(webhooks.find("hangs"))["tries"] == 1)
    _wait_for(lambda: not any(thread.name.startswith("webhook") for thread in threading.enumerate()))


def test_a_webhook_has_a_sensible_url_secret_and_kinds() -> None:
    for wrong in ({"url": "file:///etc/passwd"}, {"secret": "short"}, {"kinds": ["nonsense"]}):
        with pytest.raises(InvalidValue):
            hook(**wrong)


def test_an_operators_wish_is_an_event_at_once() -> None:
    factories.register(1)
    NodeRow.objects.update(provision_state="available", goal=None)
    place = events.newest()
    nodes.request_verb("node-1", Verb.MANAGE)
    assert told(place) == [("provision", "manageable")]


def _wait_for(condition: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    connection.close()
