"""Nodes whose machines are known by their MACs; why a rule ended an inspection."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("koguma", "0005_rescue")]

    operations = [
        migrations.AddField("noderow", "inspection_error", models.TextField(null=True)),
        migrations.AddField("noderow", "known_by_mac", models.BooleanField(default=False)),
    ]
