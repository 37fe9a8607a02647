"""Flavors have bonds and VLANs; an address belongs to a port, or to a node's VLAN."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("koguma", "0002_versions"),
    ]

    operations = [
        migrations.AddField(
            model_name="addressrow",
            name="node",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="vlan_addresses",
                to="koguma.noderow",
            ),
        ),
        migrations.AddField(
            model_name="addressrow",
            name="released_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="flavorrow",
            name="bonds",
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name="flavorrow",
            name="vlans",
            field=models.JSONField(default=list),
        ),
        migrations.AlterField(
            model_name="addressrow",
            name="port",
            field=models.OneToOneField(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="address", to="koguma.portrow"
            ),
        ),
        migrations.AddConstraint(
            model_name="addressrow",
            constraint=models.UniqueConstraint(fields=("node", "network"), name="koguma_address_of_vlan_unique"),
        ),
        migrations.AddConstraint(
            model_name="addressrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("node__isnull", True), ("port__isnull", False)),
                    models.Q(("node__isnull", False), ("port__isnull", True)),
                    _connector="OR",
                ),
                name="koguma_address_has_one_owner",
            ),
        ),
    ]
