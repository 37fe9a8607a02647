"""What heartbeats say of the mirror below a node's root."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("koguma", "0010_roots"),
    ]

    operations = [
        migrations.AddField(model_name="pulserow", name="mirror", field=models.JSONField(null=True)),
    ]
