"""Written after the columns were protected, by somebody who does not know it."""

from django.db import migrations, models
from django.db.models import F, Value
from django.db.models.functions import Concat, Upper


def tidy(apps, schema_editor):
    customers = apps.get_model("django_shop", "Customer").objects
    customers.filter(ssn__startswith="536-").update(note=Concat(Upper("note"), Value(" / "), "ssn"))
    customers.filter(ssn=None).update(visits=F("visits") + 1, nickname=F("note"))


class Migration(migrations.Migration):
    dependencies = [("django_shop", "0001_initial")]

    operations = [
        migrations.AddField("Customer", "nickname", models.CharField(max_length=80, null=True)),
        migrations.RenameField("Customer", "ssn", "social"),
        migrations.RenameField("Customer", "social", "ssn"),
        migrations.AlterModelTable("Customer", "client"),
        migrations.AlterModelTable("Customer", "customer"),
        migrations.AlterField("Customer", "name", models.CharField(max_length=90)),
        migrations.AlterField("Customer", "name", models.CharField(max_length=80)),
        migrations.AlterField("Customer", "note", models.TextField(null=True)),
        migrations.AlterField("Customer", "note", models.TextField(default="", blank=True)),
        migrations.RunPython(tidy, migrations.RunPython.noop),
        migrations.RemoveField("Customer", "nickname"),
        migrations.AddIndex("Customer", models.Index(fields=["name"], name="customer_by_name")),
    ]
