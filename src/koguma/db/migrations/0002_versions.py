"""A trigger raises `version` (and `updated_at` where there is one) on every change of a row, whoever makes it."""

from __future__ import annotations

from django.db import migrations

TABLES = ("koguma_node", "koguma_port", "koguma_flavor", "koguma_network")

FUNCTIONS = """
CREATE FUNCTION koguma_raise_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    IF TG_TABLE_NAME = 'koguma_node' THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
"""


def _trigger(table: str) -> str:
    return f"""
CREATE TRIGGER {table}_version BEFORE UPDATE ON {table} FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION koguma_raise_version();
"""


class Migration(migrations.Migration):
    dependencies = [("koguma", "0001_tables")]

    operations = [
        migrations.RunSQL(FUNCTIONS, "DROP FUNCTION koguma_raise_version();"),
        *(migrations.RunSQL(_trigger(table), f"DROP TRIGGER {table}_version ON {table};") for table in TABLES),
    ]
