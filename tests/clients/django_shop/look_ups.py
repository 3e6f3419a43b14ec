"""Customers by the exact number."""

from django.db import DatabaseError, connection, transaction
from django.db.models import Q

from checks import check, refused
from django_shop.models import Customer, Purchase, Tenant
from django_shop.rows import customers, numbers

objects = Customer.objects


def look_ups():
    acme, globex = Tenant.objects.order_by("name")
    new = {"number": 5000, "name": "new", "note": "made"}
    found = {
        "get": lambda: objects.get(tenant=acme, ssn="900-00-1000").note,
        "get without the tenant": lambda: objects.get(ssn="900-00-1001").tenant_id,
        "filter": lambda: numbers(customers.filter(tenant="acme", ssn="900-00-1002")),
        "in": lambda: numbers(customers.filter(tenant="acme", ssn__in=["900-00-1002", "900-00-1003", "nobody"])),
        "in, without the tenant": lambda: numbers(customers.filter(ssn__in=["900-00-1004", "900-00-1005"])),
        "Q or": lambda: numbers(customers.filter(Q(ssn="900-00-1004") | Q(ssn="900-00-1006"), tenant="acme")),
        "nobody": lambda: objects.filter(tenant=acme, ssn="900-00-0000").exists(),
        "count": lambda: objects.filter(tenant=acme, ssn="900-00-1004").count(),
        "first": lambda: objects.filter(tenant=acme, ssn="900-00-1004").first().note,
        "across a join": lambda: list(
            Purchase.objects.filter(customer__tenant="acme", customer__ssn="536-90-4399").values_list("item")
        ),
        "get_or_create finds": lambda: made(objects.get_or_create(tenant=acme, ssn="900-00-1006", defaults=new)),
        "get_or_create makes": lambda: made(objects.get_or_create(tenant=globex, ssn="900-00-1006", defaults=new)),
        "update_or_create": lambda: made(
            objects.update_or_create(tenant=acme, ssn="900-00-1008", defaults={"note": "updated"}, create_defaults=new)
        ),
        "bulk_create updating conflicts": lambda: upsert(acme),
        "update": lambda: objects.filter(tenant=acme, ssn="900-00-1012").update(note="changed"),
        "select_for_update": locked,
        "delete": lambda: objects.filter(tenant=acme, ssn="900-00-1014").delete(),
        "also: after them": lambda: list(
            customers.filter(Q(number__gte=5000) | Q(number__range=(1000, 1020))).values_list("number", "ssn", "note")
        ),
        "also: iexact": lambda: numbers(customers.filter(tenant="acme", ssn__iexact="900-00-1016")),
        "also: endswith": lambda: numbers(customers.filter(tenant="acme", ssn__endswith="-1016")),
        "also: in a subquery": lambda: objects.filter(ssn__in=objects.filter(tenant="globex").values("ssn")).count(),
    }
    for name, look_up in found.items():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 'look-up: {name}'")
        check(name, look_up())
    twice = Customer(tenant=acme, ssn="900-00-1000", **{**new, "number": 5500})
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'look-up: also: not unique'")
    refused("also: not unique", lambda: transaction.atomic()(twice.save)(), DatabaseError)


def made(outcome):
    customer, new = outcome
    return customer.number, customer.ssn, customer.note, new


def upsert(tenant):
    """Two that there are and one that is new; their numbers are no conflict, but their ssn is."""
    rows = [
        Customer(tenant=tenant, number=n, name="bulk", ssn=ssn, note="upserted")
        for n, ssn in [(5001, "900-00-1010"), (5002, "900-00-1020"), (5003, "901-00-0000")]
    ]
    objects.bulk_create(rows, update_conflicts=True, unique_fields=["tenant", "ssn"], update_fields=["note"])
    return list(customers.filter(tenant=tenant, ssn__in=[row.ssn for row in rows]).values_list("number", "note"))


@transaction.atomic
def locked():
    customer = objects.select_for_update().get(tenant="acme", ssn="900-00-1012")
    customer.note += ", locked"
    customer.save()
    return objects.get(tenant="acme", ssn="900-00-1012").note
