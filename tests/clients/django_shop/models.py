from django.db import models


class Tenant(models.Model):
    name = models.CharField(primary_key=True, max_length=40)
    city = models.CharField(max_length=40)

    class Meta:
        db_table = "tenant"

    def __str__(self):
        return self.name


class Customer(models.Model):
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    number = models.IntegerField()
    name = models.CharField(max_length=80)
    ssn = models.CharField(max_length=20, null=True, blank=True)
    note = models.TextField(default="", blank=True)
    visits = models.IntegerField(default=0)

    class Meta:
        db_table = "customer"
        constraints = [models.UniqueConstraint(fields=["tenant", "number"], name="customer_number")]
        indexes = [models.Index(fields=["name"], name="customer_by_name")]

    def __str__(self):
        return f"{self.name} ({self.ssn})"


class Purchase(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="purchases")
    item = models.CharField(max_length=40)
    price = models.IntegerField()

    class Meta:
        db_table = "purchase"
