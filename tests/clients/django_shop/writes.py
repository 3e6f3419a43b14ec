"""A day of changes."""

from django.db import DatabaseError, transaction
from django.db.models import Case, F, Subquery, TextField, Value, When
from django.db.models.functions import Concat, Upper

from checks import check, refused
from django_shop.models import Customer, Tenant
from django_shop.rows import customers, everything


def writes():
    acme, globex = Tenant.objects.order_by("name")
    made = Customer.objects.create(tenant=acme, number=4, name="Gus", ssn="457-55-5462", note="new")
    check("create", (made.ssn, made.note))
    made.refresh_from_db()
    check("refresh_from_db", (made.ssn, made.note))
    made.note += ", edited"
    made.save()
    made.name = "Gustav"
    made.save(update_fields=["name"])
    made.refresh_from_db()
    check("save", (made.name, made.ssn, made.note))
    found, new = Customer.objects.get_or_create(ssn="457-55-5462", defaults={"tenant": globex, "number": 99})
    check("get_or_create finds", (found.pk == made.pk, new))
    found, new = Customer.objects.get_or_create(
        tenant=globex, ssn="987-65-4320", note="first", defaults={"number": 5, "name": "Hal"}
    )
    check("get_or_create makes", (found.number, found.ssn, new))
    for note in ("second", "third"):
        found, new = Customer.objects.update_or_create(
            ssn="987-65-4320", tenant=globex, defaults={"note": note}, create_defaults={"number": 98}
        )
        check(f"update_or_create {note}", (found.number, found.note, new))
    found, new = Customer.objects.update_or_create(
        ssn="987-65-4321", tenant=globex, defaults={"number": 6, "name": "Ida", "note": "made"}
    )
    check("update_or_create makes", (found.number, found.note, new))
    bulk = [Customer(tenant=acme, number=n, name=f"bulk {n}", ssn=f"100-00-{n:04}", note=str(n)) for n in range(3, 9)]
    check("bulk_create", [c.ssn for c in Customer.objects.bulk_create(bulk[2:])])
    Customer.objects.bulk_create(bulk, ignore_conflicts=True)
    check("bulk_create ignoring conflicts", everything())
    for customer in bulk:
        customer.ssn, customer.note = f"200-00-{customer.number:04}", "upserted"
    Customer.objects.bulk_create(
        bulk, update_conflicts=True, unique_fields=["tenant", "number"], update_fields=["ssn", "note"]
    )
    check("bulk_create updating conflicts", everything())
    some = list(customers.filter(number__gt=6))
    for customer in some:
        customer.note = f"updated {customer.number}"
    check("bulk_update", (Customer.objects.bulk_update(some, ["note"]), everything()))
    check("update", customers.filter(number=7).update(note=Concat("note", Value(" / "), "ssn")))
    check("update with F", customers.filter(number=7).update(visits=F("visits") + 1, ssn=F("name")))
    check("update with Case", customers.filter(number__gte=7).update(
        note=Case(When(ssn__startswith="2", then=Upper("note")), When(ssn=None, then=Value("none")),
                  default="ssn", output_field=TextField())
    ))  # fmt: skip
    check("update with a subquery", customers.filter(number=8).update(
        note=Subquery(Customer.objects.filter(tenant="globex", number=1).values("note")[:1])
    ))  # fmt: skip
    moved = Customer.objects.get(tenant="acme", number=8)
    moved.tenant = globex
    moved.save()
    check("a row of another tenant", Customer.objects.get(tenant="globex", number=8).note)
    check("set to NULL", customers.filter(number=8).update(ssn=None))
    check("after all writes", everything())
    too_long = Customer(tenant=acme, number=50, name="Jo", ssn="x" * 21)
    refused("too long", lambda: transaction.atomic()(too_long.save)(), DatabaseError)
    twice = Customer(tenant=acme, number=1, name="Kim", ssn="1")
    refused("not unique", lambda: transaction.atomic()(twice.save)(), DatabaseError)
    empty = Customer(tenant=acme, number=51, name="Lee", note=None)
    refused("NULL in NOT NULL", lambda: transaction.atomic()(empty.save)(), DatabaseError)
    check("delete", customers.filter(ssn="987-65-4321").delete())
    with transaction.atomic():
        locked = customers.select_for_update(of=("self",)).filter(ssn="536-90-4399")
        check("select_for_update", [(c.number, c.note) for c in locked])
        skipping = customers.select_for_update(skip_locked=True).get(ssn="987-65-4320")
        skipping.note = "locked"
        skipping.save()
    check("saved under the lock", Customer.objects.get(ssn="987-65-4320").note)
