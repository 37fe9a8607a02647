"""What is known of a node's own disks and of its root volume."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("koguma", "0009_engine"),
    ]

    operations = [
        migrations.AddField(model_name="noderow", name="disk_wish", field=models.CharField(max_length=32, null=True)),
        migrations.AddField(model_name="noderow", name="disk_image", field=models.JSONField(null=True)),
        migrations.AddField(model_name="noderow", name="disk_used", field=models.BooleanField(default=False)),
        migrations.AddField(
            model_name="volumetargetrow", name="sealed", field=models.TextField(blank=True, default="")
        ),
    ]
