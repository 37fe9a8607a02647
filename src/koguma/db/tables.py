"""The tables of what OpenStack's clients make beside nodes and ports: groups, allocations, templates, rules, volumes.

Rows only, as in `koguma.db.models`, which is where everybody imports them from.
"""

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.db.models.functions import Now

NODE = "koguma.NodeRow"


class Resource(models.Model):
    """What OpenStack's clients make and change as one document."""

    uuid = models.UUIDField(unique=True, default=uuid4)
    extra = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class ChassisRow(Resource):
    """A group of nodes, by where they stand."""

    description = models.CharField(max_length=255, null=True)

    class Meta:
        db_table = "koguma_chassis"


class PortgroupRow(Resource):
    """NICs of a node that are one to its switch."""

    node = models.ForeignKey(NODE, models.CASCADE, related_name="portgroups")
    name = models.CharField(max_length=255, null=True, unique=True)
    address = models.CharField(max_length=18, null=True, unique=True)
    mode = models.CharField(max_length=255, null=True)
    properties = models.JSONField(default=dict)
    internal_info = models.JSONField(default=dict)
    standalone_ports_supported = models.BooleanField(default=True)
    physical_network = models.CharField(max_length=64, null=True)
    category = models.CharField(max_length=80, null=True)
    dynamic_portgroup = models.BooleanField(default=False)

    class Meta:
        db_table = "koguma_portgroup"


class AllocationRow(Resource):
    """A wish for a node of a resource class; a worker finds the node."""

    name = models.CharField(max_length=255, null=True, unique=True)
    node = models.OneToOneField(NODE, models.PROTECT, null=True, related_name="allocation")
    state = models.CharField(max_length=16, default="allocating")
    last_error = models.TextField(null=True)
    resource_class = models.CharField(max_length=80, null=True)
    candidate_nodes = models.JSONField(default=list)
    traits = models.JSONField(default=list)
    owner = models.CharField(max_length=255, null=True)

    class Meta:
        db_table = "koguma_allocation"


class DeployTemplateRow(Resource):
    """Deploy steps that a trait of an instance asks for."""

    name = models.CharField(max_length=255, unique=True)
    steps = models.JSONField(default=list)
    description = models.CharField(max_length=255, null=True)

    class Meta:
        db_table = "koguma_deploy_template"


class RunbookRow(Resource):
    """Steps for cleaning and servicing, under a name."""

    name = models.CharField(max_length=255, unique=True)
    steps = models.JSONField(default=list)
    disable_ramdisk = models.BooleanField(default=False)
    public = models.BooleanField(default=False)
    owner = models.CharField(max_length=255, null=True)
    description = models.CharField(max_length=255, null=True)
    traits = models.JSONField(default=list)

    class Meta:
        db_table = "koguma_runbook"


class InspectionRuleRow(Resource):
    """What to do with a node when its inspection says something."""

    description = models.CharField(max_length=255, null=True)
    priority = models.IntegerField(default=0)
    phase = models.CharField(max_length=16, default="main")
    sensitive = models.BooleanField(default=False)
    conditions = models.JSONField(default=list)
    actions = models.JSONField(default=list)

    class Meta:
        db_table = "koguma_inspection_rule"


class VolumeConnectorRow(Resource):
    """How a node is known to a storage system."""

    node = models.ForeignKey(NODE, models.CASCADE, related_name="volume_connectors")
    type = models.CharField(max_length=32)
    connector_id = models.CharField(max_length=255)

    class Meta:
        db_table = "koguma_volume_connector"
        constraints = [models.UniqueConstraint(fields=["type", "connector_id"], name="koguma_volume_connector_unique")]


class VolumeTargetRow(Resource):
    """A volume that a node uses."""

    node = models.ForeignKey(NODE, models.CASCADE, related_name="volume_targets")
    volume_type = models.CharField(max_length=64)
    volume_id = models.CharField(max_length=36)
    boot_index = models.IntegerField()
    properties = models.JSONField(default=dict)
    sealed = models.TextField(default="", blank=True)  # of Koguma's own volumes: `koguma.db.root_volumes`

    class Meta:
        db_table = "koguma_volume_target"
        constraints = [models.UniqueConstraint(fields=["node", "boot_index"], name="koguma_volume_target_unique")]


class WorkerRow(models.Model):
    """A host that workers run on, and when they were last heard of: what Ironic calls a conductor."""

    hostname = models.CharField(max_length=255, unique=True)
    conductor_group = models.CharField(max_length=255, default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    heard_at = models.DateTimeField()

    class Meta:
        db_table = "koguma_worker"
