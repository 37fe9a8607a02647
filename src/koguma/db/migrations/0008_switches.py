"""Switches on record, and what their ports were put into."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

TRIGGER = """
CREATE TRIGGER koguma_switch_version BEFORE UPDATE ON koguma_switch FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION koguma_raise_version();
"""


class Migration(migrations.Migration):
    dependencies = [("koguma", "0007_address_manager")]

    operations = [
        migrations.CreateModel(
            "SwitchRow",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=63, unique=True)),
                ("driver", models.CharField(max_length=32)),
                ("address", models.CharField(max_length=1000)),
                ("username", models.CharField(blank=True, default="", max_length=64)),
                ("password", models.TextField(blank=True, default="")),
                ("private_key", models.TextField(blank=True, default="")),
                ("host_key", models.TextField(blank=True, default="")),
                ("port", models.IntegerField(null=True)),
                ("chassis", models.CharField(blank=True, default="", max_length=255)),
                ("parking_vlan", models.IntegerField(default=999)),
                ("version", models.BigIntegerField(default=1)),
            ],
            options={"db_table": "koguma_switch"},
        ),
        migrations.CreateModel(
            "PlacementRow",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("port", models.CharField(max_length=255)),
                ("network", models.CharField(max_length=1000)),
                ("untagged", models.IntegerField(null=True)),
                ("tagged", models.JSONField(default=list)),
                ("bond", models.IntegerField(null=True)),
                ("written_at", models.DateTimeField(null=True)),
                (
                    "switch",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="placements", to="koguma.switchrow"
                    ),
                ),
                (
                    "node",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="placements",
                        to="koguma.noderow",
                    ),
                ),
            ],
            options={
                "db_table": "koguma_placement",
                "constraints": [
                    models.UniqueConstraint(fields=("switch", "port"), name="koguma_placement_unique"),
                ],
            },
        ),
        migrations.RunSQL(TRIGGER, "DROP TRIGGER koguma_switch_version ON koguma_switch;"),
    ]
