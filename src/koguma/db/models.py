"""The tables. Rows only: `koguma.db.rows` maps them to the model, the stores read and write them.

`version` of nodes, ports, flavors and networks is raised by a trigger on every change of a row (migration 0001),
whoever makes it: it is the ETag of the API, and the sum of all versions tells whether the snapshot may have changed.
"""

from __future__ import annotations

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from koguma.db.event_tables import EventRow, PaceRow, WebhookRow
from koguma.db.switch_tables import PlacementRow, SwitchRow
from koguma.db.tables import (
    AllocationRow,
    ChassisRow,
    DeployTemplateRow,
    InspectionRuleRow,
    PortgroupRow,
    RunbookRow,
    VolumeConnectorRow,
    VolumeTargetRow,
    WorkerRow,
)

__all__ = [
    "AddressRow",
    "AllocationRow",
    "BootRow",
    "ChassisRow",
    "DeployTemplateRow",
    "EventRow",
    "FlavorRow",
    "InspectionRuleRow",
    "NetworkRow",
    "NodeRow",
    "PaceRow",
    "PlacementRow",
    "PortRow",
    "PortgroupRow",
    "PowerOnRow",
    "PulseRow",
    "RunbookRow",
    "StepRow",
    "SwitchRow",
    "VolumeConnectorRow",
    "VolumeTargetRow",
    "WebhookRow",
    "WorkRow",
    "WorkerRow",
]


class FlavorRow(models.Model):
    """What machines of a role boot."""

    name = models.CharField(max_length=63, unique=True)
    label = models.CharField(max_length=200)
    root_method = models.CharField(max_length=16, default="ram")
    kernel_args = models.TextField(default="", blank=True)
    overlay_size_bytes = models.BigIntegerField(default=0)
    templates = models.JSONField(default=list)
    variables = models.JSONField(default=dict)
    requirements = models.JSONField(default=dict)
    bonds = models.JSONField(default=list)
    vlans = models.JSONField(default=list)
    networks = models.JSONField(default=list)  # after hand-over
    version = models.BigIntegerField(default=1)

    class Meta:
        db_table = "koguma_flavor"


class NetworkRow(models.Model):
    """A VLAN with its subnets; the first is in columns of its own."""

    name = models.CharField(max_length=63, unique=True)
    purpose = models.CharField(max_length=16)
    vlan = models.IntegerField()
    subnet = models.CharField(max_length=43)
    gateway = models.CharField(max_length=39, null=True)
    ranges = models.JSONField(default=list)
    more_subnets = models.JSONField(default=list)
    discovery_start = models.CharField(max_length=15, null=True)
    discovery_end = models.CharField(max_length=15, null=True)
    reserved = models.JSONField(default=list)  # spans as text, or with reason and node
    dns_servers = models.JSONField(default=list)
    ntp_servers = models.JSONField(default=list)
    domain = models.CharField(max_length=253, default="", blank=True)
    mtu = models.IntegerField(default=1500)
    version = models.BigIntegerField(default=1)

    class Meta:
        db_table = "koguma_network"


class NodeRow(models.Model):
    """One machine, as operators see it."""

    uuid = models.UUIDField(unique=True)
    name = models.CharField(max_length=255, unique=True)
    serial = models.CharField(max_length=128, default="", blank=True)
    manufacturer = models.CharField(max_length=200, default="", blank=True)
    product = models.CharField(max_length=200, default="", blank=True)
    architecture = models.CharField(max_length=16, default="x86_64")
    firmware = models.CharField(max_length=8, default="bios")
    provision_state = models.CharField(max_length=24, default="enroll", db_index=True)
    target_provision_state = models.CharField(max_length=24, null=True)
    goal = models.CharField(max_length=24, null=True)
    power_state = models.CharField(max_length=16, default="unknown")
    target_power_state = models.CharField(max_length=16, null=True)
    status_code = models.CharField(max_length=40, default="REGISTERED")
    status = models.TextField(default="", blank=True)
    last_error = models.TextField(null=True)
    maintenance = models.BooleanField(default=False)
    maintenance_reason = models.TextField(default="", blank=True)
    flavor = models.ForeignKey(FlavorRow, models.PROTECT, null=True, related_name="nodes")
    label = models.CharField(max_length=200, null=True)
    once_id = models.CharField(max_length=32, null=True)
    once_label = models.CharField(max_length=200, null=True)
    kexec = models.BooleanField(default=True)
    known_by_mac = models.BooleanField(default=False)  # made by hand: its UUID need not be the machine's own
    bmc_driver = models.CharField(max_length=32, default="", blank=True)
    bmc_address = models.CharField(max_length=255, default="", blank=True)
    bmc_mac = models.CharField(max_length=17, null=True)
    bmc_username = models.CharField(max_length=64, default="", blank=True)
    bmc_password = models.TextField(default="", blank=True)  # sealed
    inventory = models.JSONField(default=dict)
    variables = models.JSONField(default=dict)
    ssh_host_key = models.TextField(default="", blank=True)  # sealed
    ssh_host_public_key = models.TextField(default="", blank=True)
    inspection_error = models.TextField(null=True)  # why a rule ended the inspection under way
    rescue_password_hash = models.TextField(default="", blank=True)  # sealed; set while in rescue
    installed_label = models.CharField(max_length=200, null=True)
    installed_commit = models.CharField(max_length=64, null=True)
    installed_at = models.DateTimeField(null=True)
    registered_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    version = models.BigIntegerField(default=1)
    driver_info = models.JSONField(default=dict)  # without secrets
    driver_secrets = models.TextField(default="", blank=True)  # sealed JSON
    driver_internal_info = models.JSONField(default=dict)
    interfaces = models.JSONField(default=dict)  # those chosen, by kind
    properties = models.JSONField(default=dict)
    extra = models.JSONField(default=dict)
    instance_info = models.JSONField(default=dict)
    instance_uuid = models.UUIDField(null=True, unique=True)
    instance_name = models.CharField(max_length=255, null=True)
    resource_class = models.CharField(max_length=80, null=True, db_index=True)
    traits = models.JSONField(default=list)
    chassis = models.ForeignKey(ChassisRow, models.PROTECT, null=True, related_name="nodes")
    parent = models.ForeignKey("self", models.PROTECT, null=True, related_name="children")
    conductor_group = models.CharField(max_length=255, default="", blank=True)
    owner = models.CharField(max_length=255, null=True)
    lessee = models.CharField(max_length=255, null=True)
    shard = models.CharField(max_length=255, null=True)
    description = models.TextField(null=True)
    protected = models.BooleanField(default=False)
    protected_reason = models.TextField(null=True)
    retired = models.BooleanField(default=False)
    retired_reason = models.TextField(null=True)
    automated_clean = models.BooleanField(null=True)
    disable_power_off = models.BooleanField(default=False)
    disk_wish = models.CharField(max_length=32, null=True)  # to write or empty its disks: `koguma.lifecycle.disks`
    disk_image = models.JSONField(null=True)
    disk_used = models.BooleanField(default=False)
    console_enabled = models.BooleanField(default=False)
    fault = models.CharField(max_length=255, null=True)
    boot_mode = models.CharField(max_length=16, null=True)
    secure_boot = models.BooleanField(null=True)
    boot_device = models.JSONField(default=dict)
    network_data = models.JSONField(default=dict)
    raid_config = models.JSONField(default=dict)
    target_raid_config = models.JSONField(default=dict)
    bios_settings = models.JSONField(default=list)
    firmware_components = models.JSONField(default=list)
    vifs = models.JSONField(default=list)
    virtual_media = models.JSONField(default=list)
    asked_step = models.JSONField(default=dict)  # the step somebody asked for that runs now
    inspection_data = models.JSONField(null=True)
    inspection_started_at = models.DateTimeField(null=True)
    inspection_finished_at = models.DateTimeField(null=True)
    provision_updated_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "koguma_node"
        constraints = [
            models.UniqueConstraint(fields=["serial"], condition=~Q(serial=""), name="koguma_node_serial_unique")
        ]


class PulseRow(models.Model):
    """What changes with every heartbeat, apart from the node, so that a fleet's heartbeats rewrite narrow rows only."""

    node = models.OneToOneField(NodeRow, models.CASCADE, primary_key=True, related_name="pulse")
    last_seen = models.DateTimeField(null=True)
    memory = models.JSONField(null=True)
    mirror = models.JSONField(null=True)  # how many "disks" it is made for, how many are "working"

    class Meta:
        db_table = "koguma_pulse"


class PortRow(models.Model):
    """A NIC. `name` is the machine's own for it, `alias` the site's, which no two ports share."""

    node = models.ForeignKey(NodeRow, models.CASCADE, related_name="ports")
    mac = models.CharField(max_length=17, unique=True)
    name = models.CharField(max_length=64, default="", blank=True)
    driver = models.CharField(max_length=200, default="", blank=True)
    boot = models.BooleanField(default=False)
    link = models.BooleanField(null=True)
    speed_mbps = models.IntegerField(null=True)
    lldp = models.JSONField(null=True)
    version = models.BigIntegerField(default=1)
    uuid = models.UUIDField(unique=True, db_default=RandomUUID())
    alias = models.CharField(max_length=255, null=True, unique=True)
    extra = models.JSONField(default=dict)
    internal_info = models.JSONField(default=dict)
    local_link_connection = models.JSONField(default=dict)
    pxe_enabled = models.BooleanField(default=True)
    portgroup = models.ForeignKey(PortgroupRow, models.RESTRICT, null=True, related_name="ports")
    physical_network = models.CharField(max_length=64, null=True)
    is_smartnic = models.BooleanField(default=False)
    description = models.CharField(max_length=255, null=True)
    vendor = models.CharField(max_length=32, null=True)
    category = models.CharField(max_length=80, null=True)
    available_for_dynamic_portgroup = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "koguma_port"


class AddressRow(models.Model):
    """An address that is given away, to a port or to a node's VLAN of the network. The unique constraint is what rules
    out giving it twice; that the text is in normal form is what makes it one address.
    """

    network = models.ForeignKey(NetworkRow, models.PROTECT, related_name="addresses")
    address = models.CharField(max_length=39)
    family = models.SmallIntegerField(db_default=4)
    port = models.OneToOneField(PortRow, models.CASCADE, null=True, related_name="address")
    node = models.ForeignKey(NodeRow, models.CASCADE, null=True, related_name="vlan_addresses")
    released_at = models.DateTimeField(null=True)  # no longer the node's, but what runs on it may still use it
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "koguma_address"
        constraints = [
            models.UniqueConstraint(fields=["network", "address"], name="koguma_address_unique"),
            models.UniqueConstraint(fields=["node", "network", "family"], name="koguma_address_of_vlan_unique"),
            models.CheckConstraint(
                condition=Q(port__isnull=False, node__isnull=True) | Q(port__isnull=True, node__isnull=False),
                name="koguma_address_has_one_owner",
            ),
        ]


class WorkRow(models.Model):
    """What a node's worker needs: when the node is due, and the operation under way."""

    node = models.OneToOneField(NodeRow, models.CASCADE, primary_key=True, related_name="work")
    wake_at = models.DateTimeField(null=True)
    woken = models.BooleanField(default=False)
    operation_id = models.CharField(max_length=32, null=True)
    flow = models.CharField(max_length=32, default="", blank=True)
    step = models.CharField(max_length=80, default="", blank=True)
    started_at = models.DateTimeField(null=True)
    step_started_at = models.DateTimeField(null=True)
    tries = models.IntegerField(default=0)
    attempt = models.IntegerField(default=1)
    data = models.JSONField(default=dict)
    slot = models.CharField(max_length=16, default="", blank=True)  # what the operation counts as, once admitted
    power_poll_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "koguma_work"
        indexes = [
            models.Index(fields=["wake_at"], name="koguma_work_due", condition=Q(wake_at__isnull=False)),
            models.Index(fields=["power_poll_at"], name="koguma_work_poll"),
            models.Index(fields=["flow", "slot"], name="koguma_work_busy", condition=Q(operation_id__isnull=False)),
        ]


class StepRow(models.Model):
    """One step of a node's history."""

    node = models.ForeignKey(NodeRow, models.CASCADE, related_name="steps")
    operation = models.CharField(max_length=32)
    flow = models.CharField(max_length=32)
    step = models.CharField(max_length=80)
    attempt = models.IntegerField(default=1)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=16)
    reason = models.TextField(null=True)

    class Meta:
        db_table = "koguma_step"
        indexes = [models.Index(fields=["node", "-id"], name="koguma_step_newest")]


class PowerOnRow(models.Model):
    """When a worker told a machine to power on: where the firmware phase of the boot that follows begins."""

    node = models.ForeignKey(NodeRow, models.CASCADE, related_name="power_ons")
    at = models.DateTimeField()

    class Meta:
        db_table = "koguma_power_on"
        indexes = [models.Index(fields=["node", "-at"], name="koguma_power_on_newest")]


class BootRow(models.Model):
    """One boot: the reports it is made of, and the record made from them."""

    node = models.ForeignKey(NodeRow, models.CASCADE, related_name="boots")
    boot_id = models.CharField(max_length=32)
    events = models.JSONField(default=list)
    powered_on_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField()
    began_at = models.DateTimeField()  # the script, by which boots are ordered
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    mode = models.CharField(max_length=16)
    outcome = models.CharField(max_length=16)
    label = models.CharField(max_length=200, null=True)
    commit = models.CharField(max_length=64, null=True)
    reason = models.TextField(null=True)
    duration_s = models.FloatField(null=True)
    phases = models.JSONField(default=list)
    memory = models.JSONField(null=True)

    class Meta:
        db_table = "koguma_boot"
        constraints = [models.UniqueConstraint(fields=["node", "boot_id"], name="koguma_boot_unique")]
        indexes = [
            models.Index(fields=["node", "-began_at"], name="koguma_boot_newest"),
            models.Index(fields=["began_at"], name="koguma_boot_running", condition=Q(outcome="running")),
        ]
