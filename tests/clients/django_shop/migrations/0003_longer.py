"""Changes the type of a column that somebody else has protected."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_shop", "0002_tidy")]

    operations = [migrations.AlterField("Customer", "ssn", models.CharField(max_length=40, null=True, blank=True))]
