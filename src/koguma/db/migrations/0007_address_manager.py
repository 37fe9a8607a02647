"""Networks have IPv6 subnets, several of them, and ranges; a flavor says which network its nodes are handed over to."""

from __future__ import annotations

from django.db import migrations, models

NORMAL_FORM = "host(address::inet) = address AND family(address::inet) = family"
"""PostgreSQL writes addresses as Python does, so one address has one text and the unique constraint sees it."""


class Migration(migrations.Migration):
    dependencies = [("koguma", "0006_inspection")]

    operations = [
        migrations.AddField("flavorrow", "networks", models.JSONField(default=list)),
        migrations.AlterField("networkrow", "subnet", models.CharField(max_length=43)),
        migrations.AlterField("networkrow", "gateway", models.CharField(max_length=39, null=True)),
        migrations.AddField("networkrow", "ranges", models.JSONField(default=list)),
        migrations.AddField("networkrow", "more_subnets", models.JSONField(default=list)),
        migrations.AlterField("addressrow", "address", models.CharField(max_length=39)),
        migrations.AddField("addressrow", "family", models.SmallIntegerField(db_default=4)),
        migrations.RemoveConstraint("addressrow", "koguma_address_of_vlan_unique"),
        migrations.AddConstraint(
            "addressrow",
            models.UniqueConstraint(fields=("node", "network", "family"), name="koguma_address_of_vlan_unique"),
        ),
        migrations.RunSQL(
            f"ALTER TABLE koguma_address ADD CONSTRAINT koguma_address_normal CHECK ({NORMAL_FORM});",
            "ALTER TABLE koguma_address DROP CONSTRAINT koguma_address_normal;",
        ),
    ]
