"""Webhooks: who is told of events over HTTP, and telling them.

    POST <url>
    Koguma-Delivery: <webhook>.<first event>    the same again when it is tried again
    Koguma-Signature: t=<seconds>,v1=<HMAC-SHA256 of "<seconds>." + body, with the webhook's secret>
    {"webhook": name, "events": [event, ...]}   in order, each as in GET /api/v1/events

A webhook's place among the events is on record and moves on when its receiver has answered 2xx: every event is
delivered at least once, in order, whatever dies meanwhile. Receivers know a repetition by the events' ids. One that
fails or hangs is tried again ever more slowly, up to RETRY_MAX_S, in a thread that only it waits for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from koguma.db import events
from koguma.db.errors import AlreadyExists, NotFound
from koguma.db.events import Place
from koguma.db.models import WebhookRow
from koguma.db.sealing import seal, unseal
from koguma.model import names
from koguma.model.errors import InvalidValue

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
BATCH = 100
RETRY_S = 2.0
RETRY_MAX_S = 300.0
AT_ONCE_MAX = 32
WEBHOOK_LOCK = 0x4B6F6768


def create(name: str, url: str, secret: str, kinds: list[str]) -> WebhookRow:
    """It is told of what happens from now on. Raises InvalidValue or AlreadyExists."""
    place = events.newest()
    row = WebhookRow(name=names.host_name(name), secret=seal(secret), tx=place.tx, event_id=place.id)
    _set(row, url, kinds)
    if len(secret) < 16:
        raise InvalidValue(f"a webhook's secret must have 16 characters or more, got {len(secret)} (webhook {name})")
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise AlreadyExists(f"a webhook must have its own name, got {name!r}") from None
    return row


def change(name: str, *, url: str | None, kinds: list[str] | None, enabled: bool | None) -> WebhookRow:
    """A webhook that is enabled again is told of what it missed. Raises NotFound or InvalidValue."""
    with transaction.atomic():
        row = find(name)
        _set(row, row.url if url is None else url, row.kinds if kinds is None else kinds)
        row.enabled = row.enabled if enabled is None else enabled
        row.tries, row.next_at = 0, timezone.now()
        row.save(update_fields=["url", "kinds", "enabled", "tries", "next_at"])
    return row


def find(name: str) -> WebhookRow:
    """Raises NotFound."""
    row = WebhookRow.objects.filter(name=name).first()
    if row is None:
        raise NotFound(f"a webhook must exist with this name, got {names.shown(name)}")
    return row


def remove(name: str) -> None:
    """Raises NotFound."""
    find(name).delete()


def shown(row: WebhookRow) -> dict[str, Any]:
    """As the API shows it: without the secret."""
    return {
        "name": row.name,
        "uuid": str(row.uuid),
        "url": row.url,
        "kinds": row.kinds,
        "enabled": row.enabled,
        "delivered_to": str(Place(row.tx, row.event_id)),
        "delivered_at": row.delivered_at.isoformat() if row.delivered_at else None,
        "tries": row.tries,
        "next_at": row.next_at.isoformat() if row.tries else None,
        "last_error": row.last_error or None,
    }


_delivering: set[int] = set()
_guard = threading.Lock()


def deliver_due() -> None:
    """Begin a thread for each webhook that has something to be told, and that this process is not telling already."""
    due = WebhookRow.objects.filter(enabled=True, next_at__lte=timezone.now()).order_by("next_at")
    newest = events.newest()
    for row in due:
        if Place(row.tx, row.event_id) >= newest:
            continue
        with _guard:
            if row.pk in _delivering or len(_delivering) >= AT_ONCE_MAX:
                continue
            _delivering.add(row.pk)
        threading.Thread(target=_deliver, args=(row.pk,), name=f"webhook {row.name}", daemon=True).start()


def _deliver(key: int) -> None:
    try:
        while deliver(key):
            pass
    except Exception as error:
        log.warning("a webhook was left for now", extra={"error": str(error)[:300]})
    finally:
        connection.close()
        with _guard:
            _delivering.discard(key)


def deliver(key: int, post: Callable[..., httpx.Response] = httpx.post) -> bool:
    """Tell it of the next events. Whether there may be more. One process at a time does, by an advisory lock that ends
    with its connection.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [WEBHOOK_LOCK, key])
        if not cursor.fetchone()[0]:
            return False
    try:
        row = WebhookRow.objects.filter(pk=key, enabled=True, next_at__lte=timezone.now()).first()
        return row is not None and _deliver_next(row, post)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [WEBHOOK_LOCK, key])


def _deliver_next(row: WebhookRow, post: Callable[..., httpx.Response]) -> bool:
    place = Place(row.tx, row.event_id)
    found = events.after(place, BATCH, kinds=row.kinds or None)
    if not found:
        # What it is not told of is behind it, too.
        newest = events.newest()
        _moved(row, max(newest, place), delivered=False)
        return False
    body = json.dumps({"webhook": row.name, "events": [event for _, event in found]}).encode()
    headers = {
        "Content-Type": "application/json",
        "Koguma-Delivery": f"{row.uuid}.{found[0][0]}",
        "Koguma-Signature": signature(unseal(row.secret), body, int(time.time())),
    }
    if error := _error_of(row.url, body, headers, post):
        tries = row.tries + 1
        delay_s = min(RETRY_S * 2.0 ** min(row.tries, 20), RETRY_MAX_S)
        WebhookRow.objects.filter(pk=row.pk).update(
            tries=tries, last_error=error, next_at=timezone.now() + timedelta(seconds=delay_s)
        )
        log.warning("a webhook's receiver failed", extra={"webhook": row.name, "tries": tries, "error": error})
        return False
    _moved(row, found[-1][0], delivered=True)
    return len(found) == BATCH


def signature(secret: str, body: bytes, at_s: int) -> str:
    """The header's value; a receiver computes the same and compares, and refuses times long past."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def _error_of(url: str, body: bytes, headers: dict[str, str], post: Callable[..., httpx.Response]) -> str:
    """Why the receiver has not taken it, or nothing."""
    try:
        # No redirects: the body goes where the operator said. The whole exchange is bounded by the step's own times.
        answer = post(url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False)
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if 200 <= answer.status_code < 300 else f"it answered {answer.status_code}"


def _moved(row: WebhookRow, place: Place, *, delivered: bool) -> None:
    values: dict[str, Any] = {"tx": place.tx, "event_id": place.id, "tries": 0, "last_error": ""}
    if delivered:
        values["delivered_at"] = timezone.now()
    WebhookRow.objects.filter(pk=row.pk).update(**values)


def _set(row: WebhookRow, url: str, kinds: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > 2000:
        raise InvalidValue(f"a webhook's url must be http:// or https:// with a host, got {names.shown(url)}")
    if unknown := sorted(set(kinds) - set(events.KINDS)):
        raise InvalidValue(f"a kind of event must be one of {', '.join(events.KINDS)}, got {', '.join(unknown)}")
    row.url, row.kinds = url, kinds
