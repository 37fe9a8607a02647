"""The tables of switches and of what their ports were put into. Rows only, as in `koguma.db.models`, which is where
everybody imports them from.
"""

from __future__ import annotations

from django.db import models

NODE = "koguma.NodeRow"


class SwitchRow(models.Model):
    """A switch and how to reach it."""

    name = models.CharField(max_length=63, unique=True)
    driver = models.CharField(max_length=32)
    address = models.CharField(max_length=1000)
    username = models.CharField(max_length=64, default="", blank=True)
    password = models.TextField(default="", blank=True)  # sealed
    private_key = models.TextField(default="", blank=True)  # sealed
    host_key = models.TextField(default="", blank=True)
    port = models.IntegerField(null=True)
    chassis = models.CharField(max_length=255, default="", blank=True)
    parking_vlan = models.IntegerField(default=999)
    version = models.BigIntegerField(default=1)

    class Meta:
        db_table = "koguma_switch"


class PlacementRow(models.Model):
    """What a switch port was put into, and for which node; kept when the node is forgotten, because the port stays."""

    switch = models.ForeignKey(SwitchRow, models.PROTECT, related_name="placements")
    port = models.CharField(max_length=255)
    node = models.ForeignKey(NODE, models.SET_NULL, null=True, related_name="placements")
    network = models.CharField(max_length=1000)
    untagged = models.IntegerField(null=True)
    tagged = models.JSONField(default=list)
    bond = models.IntegerField(null=True)
    written_at = models.DateTimeField(null=True)  # null: about to be written

    class Meta:
        db_table = "koguma_placement"
        constraints = [models.UniqueConstraint(fields=["switch", "port"], name="koguma_placement_unique")]
