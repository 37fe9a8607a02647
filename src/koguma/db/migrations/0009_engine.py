"""Events of nodes, written by a trigger; webhooks; slots of limited operations; the pace of power actions."""

from __future__ import annotations

from uuid import uuid4

from django.db import migrations, models
from django.db.models import Q
from django.db.models.functions import Now

NOTE = """
CREATE FUNCTION koguma_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    happened text;
    previous text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO koguma_event (tx, kind, node, name, provision_state, previous_provision_state,
            target_provision_state, power_state, status_code, status, last_error, maintenance, version)
        VALUES (pg_current_xact_id()::text::bigint, 'deleted', OLD.uuid, OLD.name, OLD.provision_state,
            OLD.provision_state, NULL, OLD.power_state, OLD.status_code, OLD.status, OLD.last_error, OLD.maintenance,
            OLD.version);
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        happened := 'created';
    ELSE
        previous := OLD.provision_state;
        happened := CASE
            WHEN NEW.provision_state IS DISTINCT FROM OLD.provision_state THEN 'provision'
            WHEN NEW.power_state IS DISTINCT FROM OLD.power_state THEN 'power'
            WHEN NEW.maintenance IS DISTINCT FROM OLD.maintenance THEN 'maintenance'
            ELSE 'status' END;
    END IF;
    INSERT INTO koguma_event (tx, kind, node, name, provision_state, previous_provision_state,
        target_provision_state, power_state, status_code, status, last_error, maintenance, version)
    VALUES (pg_current_xact_id()::text::bigint, happened, NEW.uuid, NEW.name, NEW.provision_state, previous,
        NEW.target_provision_state, NEW.power_state, NEW.status_code, NEW.status, NEW.last_error, NEW.maintenance,
        NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER koguma_node_comes_and_goes AFTER INSERT OR DELETE ON koguma_node FOR EACH ROW
    EXECUTE FUNCTION koguma_note_event();
CREATE TRIGGER koguma_node_moves AFTER UPDATE ON koguma_node FOR EACH ROW
    WHEN (OLD.provision_state IS DISTINCT FROM NEW.provision_state
        OR OLD.power_state IS DISTINCT FROM NEW.power_state
        OR OLD.maintenance IS DISTINCT FROM NEW.maintenance
        OR OLD.status_code IS DISTINCT FROM NEW.status_code)
    EXECUTE FUNCTION koguma_note_event();
"""
FORGET = """
DROP TRIGGER koguma_node_moves ON koguma_node;
DROP TRIGGER koguma_node_comes_and_goes ON koguma_node;
DROP FUNCTION koguma_note_event();
"""


class Migration(migrations.Migration):
    dependencies = [("koguma", "0008_switches")]

    operations = [
        migrations.CreateModel(
            name="EventRow",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tx", models.BigIntegerField()),
                ("at", models.DateTimeField(db_default=Now())),
                ("kind", models.CharField(max_length=16)),
                ("node", models.UUIDField()),
                ("name", models.CharField(max_length=255)),
                ("provision_state", models.CharField(max_length=24)),
                ("previous_provision_state", models.CharField(max_length=24, null=True)),
                ("target_provision_state", models.CharField(max_length=24, null=True)),
                ("power_state", models.CharField(max_length=16)),
                ("status_code", models.CharField(max_length=40)),
                ("status", models.TextField()),
                ("last_error", models.TextField(null=True)),
                ("maintenance", models.BooleanField()),
                ("version", models.BigIntegerField()),
            ],
            options={
                "db_table": "koguma_event",
                "indexes": [models.Index(fields=["tx", "id"], name="koguma_event_order")],
            },
        ),
        migrations.CreateModel(
            name="WebhookRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid4, unique=True)),
                ("name", models.CharField(max_length=63, unique=True)),
                ("url", models.CharField(max_length=2000)),
                ("secret", models.TextField()),
                ("kinds", models.JSONField(default=list)),
                ("enabled", models.BooleanField(default=True)),
                ("tx", models.BigIntegerField()),
                ("event_id", models.BigIntegerField()),
                ("tries", models.IntegerField(default=0)),
                ("next_at", models.DateTimeField(db_default=Now())),
                ("delivered_at", models.DateTimeField(null=True)),
                ("last_error", models.TextField(blank=True, default="")),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={"db_table": "koguma_webhook"},
        ),
        migrations.CreateModel(
            name="PaceRow",
            fields=[
                ("scope", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("next_at", models.DateTimeField()),
            ],
            options={"db_table": "koguma_pace"},
        ),
        migrations.AddField("workrow", "slot", models.CharField(blank=True, default="", max_length=16)),
        migrations.AddIndex(
            "workrow",
            models.Index(fields=["flow", "slot"], name="koguma_work_busy", condition=Q(operation_id__isnull=False)),
        ),
        migrations.RunSQL(NOTE, FORGET),
    ]
