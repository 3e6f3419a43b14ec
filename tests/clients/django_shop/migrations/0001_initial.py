from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        migrations.CreateModel(
            "Tenant",
            [
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("city", models.CharField(max_length=40)),
            ],
            options={"db_table": "tenant"},
        ),
        migrations.CreateModel(
            "Customer",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", models.ForeignKey("Tenant", on_delete=models.CASCADE)),
                ("number", models.IntegerField()),
                ("name", models.CharField(max_length=80)),
                ("ssn", models.CharField(max_length=20, null=True, blank=True)),
                ("note", models.TextField(default="", blank=True)),
                ("visits", models.IntegerField(default=0)),
            ],
            options={"db_table": "customer"},
        ),
        migrations.CreateModel(
            "Purchase",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("customer", models.ForeignKey("Customer", on_delete=models.CASCADE, related_name="purchases")),
                ("item", models.CharField(max_length=40)),
                ("price", models.IntegerField()),
            ],
            options={"db_table": "purchase"},
        ),
        migrations.AddConstraint(
            "Customer", models.UniqueConstraint(fields=["tenant", "number"], name="customer_number")
        ),
    ]
