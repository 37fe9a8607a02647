"""The hash of the rescue password, while a node is in rescue."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("koguma", "0004_ironic")]

    operations = [
        migrations.AddField("noderow", "rescue_password_hash", models.TextField(blank=True, default="")),
    ]
