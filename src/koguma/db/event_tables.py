"""The tables of events and of who is told about them, and of the pace of power actions.

Rows only, as in `koguma.db.models`. Events are written by a trigger on nodes (migration `engine`), in the transaction
that changes the node, whoever changes it: none is missed, and none tells of what was rolled back.
"""

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.db.models.functions import Now


class EventRow(models.Model):
    """One transition of one node. `tx` is the transaction that made it: events are read in the order of (tx, id), and
    only those of transactions before the oldest that still runs, so that no later one can appear among them.
    """

    id = models.BigAutoField(primary_key=True)
    tx = models.BigIntegerField()
    at = models.DateTimeField(db_default=Now())
    kind = models.CharField(max_length=16)
    node = models.UUIDField()
    name = models.CharField(max_length=255)
    provision_state = models.CharField(max_length=24)
    previous_provision_state = models.CharField(max_length=24, null=True)
    target_provision_state = models.CharField(max_length=24, null=True)
    power_state = models.CharField(max_length=16)
    status_code = models.CharField(max_length=40)
    status = models.TextField()
    last_error = models.TextField(null=True)
    maintenance = models.BooleanField()
    version = models.BigIntegerField()

    class Meta:
        db_table = "koguma_event"
        indexes = [models.Index(fields=["tx", "id"], name="koguma_event_order")]


class WebhookRow(models.Model):
    """Who is told of events over HTTP, and how far that is."""

    uuid = models.UUIDField(unique=True, default=uuid4)
    name = models.CharField(max_length=63, unique=True)
    url = models.CharField(max_length=2000)
    secret = models.TextField()  # sealed
    kinds = models.JSONField(default=list)
    enabled = models.BooleanField(default=True)
    tx = models.BigIntegerField()  # the last event that was taken
    event_id = models.BigIntegerField()
    tries = models.IntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True)
    last_error = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "koguma_webhook"


class PaceRow(models.Model):
    """When the next power action may begin, in the fleet ("") or in one rack."""

    scope = models.CharField(max_length=255, primary_key=True)
    next_at = models.DateTimeField()

    class Meta:
        db_table = "koguma_pace"
