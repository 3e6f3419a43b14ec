"""Queries of every kind."""

from django.db import connection
from django.db.models import (
    Case, Count, Exists, F, Max, Min, OuterRef, Q, Subquery, Sum, TextField, Value, When, Window,
)  # fmt: skip
from django.db.models.functions import (
    Cast, Coalesce, Concat, Greatest, Left, Length, Lower, NullIf, Rank, Replace, Reverse, RowNumber, StrIndex, Substr,
    Trim, Upper,
)  # fmt: skip

from checks import check
from django_shop.models import Customer, Purchase
from django_shop.rows import customers, numbers

LOOKUPS = {
    "exact": "536-90-4399", "iexact": "536-90-4399", "contains": "90-4", "icontains": "00-", "startswith": "536",
    "istartswith": "536", "endswith": "9", "iendswith": "99", "in": ["536-90-4399", "", "nobody"], "gt": "3",
    "gte": "219-09-9999",
    "lt": "3", "lte": "078-05-1120", "range": ("1", "5"), "isnull": True, "regex": r"^\d{3}-0", "iregex": "A?5",
}  # fmt: skip
NOTES = {
    "exact": "pays in cash", "iexact": "PAYS in CASH", "contains": "% _", "icontains": "łÓDŹ", "startswith": "Ün",
    "istartswith": "ün", "endswith": "🗝", "in": ["", "pays in cash"], "gt": "p", "regex": "[ns]", "iregex": "^PAYS",
}  # fmt: skip


def reads():
    for lookup, value in LOOKUPS.items():
        check(f"ssn__{lookup}", numbers(customers.filter(**{f"ssn__{lookup}": value})))
        check(f"not ssn__{lookup}", numbers(customers.exclude(**{f"ssn__{lookup}": value})))
    for lookup, value in NOTES.items():
        check(f"note__{lookup}", numbers(customers.filter(**{f"note__{lookup}": value})))
    check("get", Customer.objects.get(tenant="globex", ssn="536-90-4399").note)
    check("Q or", numbers(customers.filter(Q(ssn="536-90-4399") | Q(note__contains="cash"))))
    check("Q and not", numbers(customers.filter(Q(ssn__startswith="5") & ~Q(note="pays in cash"))))
    check("F", numbers(customers.filter(ssn=F("ssn")).exclude(note=F("ssn"))))
    check("F of another column", numbers(customers.filter(note__contains=F("ssn"))))
    check("F against the name", numbers(customers.filter(ssn__lt=F("name"))))
    check("values_list", list(customers.values_list("ssn", flat=True)))
    check("values", list(customers.values("ssn", "note")[:3]))
    check("order_by", list(Customer.objects.order_by("ssn", "note", "pk").values_list("ssn", "note")))
    check("order_by desc", list(Customer.objects.order_by(F("ssn").desc(nulls_last=True), "pk").values_list("ssn")))
    check("order_by lower", list(Customer.objects.order_by(Lower("note"), "pk").values_list("note")))
    check("slice", list(Customer.objects.order_by("ssn", "pk").values_list("ssn", flat=True)[2:5]))
    check(
        "first, last", (Customer.objects.order_by("note").first().note, Customer.objects.order_by("note").last().note)
    )
    check("distinct", list(Customer.objects.order_by("ssn").values_list("ssn", flat=True).distinct()))
    check("distinct on", list(Customer.objects.order_by("ssn", "pk").distinct("ssn").values_list("ssn", "name")))
    check("count", Customer.objects.filter(ssn="536-90-4399").count())
    check("exists", Customer.objects.filter(note__contains="東京").exists())
    check("in_bulk", {key: found.ssn for key, found in Customer.objects.in_bulk([1, 2]).items()})
    check("iterator", [found.ssn for found in customers.iterator(chunk_size=2)])
    check("only", [found.ssn for found in customers.only("ssn")])
    check("defer", [found.note for found in customers.defer("note")[:3]])
    check("select_related", [p.customer.ssn for p in Purchase.objects.select_related("customer").order_by("pk")])
    check("prefetch_related", [
        (found.ssn, [p.price for p in found.purchases.all()]) for found in customers.prefetch_related("purchases")
    ])  # fmt: skip
    check(
        "across a join", list(Purchase.objects.filter(customer__ssn="536-90-4399").order_by("pk").values_list("item"))
    )
    check("aggregates", Customer.objects.aggregate(
        Count("ssn"), Min("ssn"), Max("note"), different=Count("ssn", distinct=True),
        cash=Count("pk", filter=Q(note__contains="cash")),
    ))  # fmt: skip
    check("group by", list(Customer.objects.values("ssn").annotate(n=Count("pk"), v=Sum("visits")).order_by("ssn")))
    check(
        "having", list(Customer.objects.values("ssn").annotate(n=Count("pk")).filter(n__gt=1).values_list("ssn", "n"))
    )
    check("group by lower", list(
        Customer.objects.annotate(low=Lower("note")).values("low").annotate(n=Count("pk")).order_by("low")
    ))  # fmt: skip
    check("spent by number", list(
        Purchase.objects.values("customer__ssn").annotate(spent=Sum("price")).order_by("customer__ssn")
    ))  # fmt: skip
    functions()
    subqueries()


def functions():
    made = {
        "Lower": Lower("note"), "Upper": Upper("note"), "Length": Length("ssn"), "Trim": Trim("note"),
        "Left": Left("ssn", 3), "Substr": Substr("ssn", 5, 2), "Replace": Replace("ssn", Value("-"), Value("")),
        "Reverse": Reverse("ssn"), "StrIndex": StrIndex("note", Value("cash")),
        "Concat": Concat("ssn", Value(": "), "note", output_field=TextField()),
        "Concat of one type": Concat("ssn", "ssn"), "Coalesce": Coalesce("ssn", Value("unknown")),
        "Coalesce of columns": Coalesce("ssn", "note", "name", output_field=TextField()),
        "NullIf": NullIf("ssn", Value("")),
        "Greatest": Greatest("ssn", "note", output_field=TextField()), "Cast": Cast("ssn", TextField()),
        "Case": Case(When(ssn="536-90-4399", then="note"), When(note="pays in cash", then=Value("cash")),
                     default="ssn", output_field=TextField()),
        "Case with a text": Case(When(ssn__startswith="5", then="ssn"), default=Value("other")),
        "is true": Q(ssn="536-90-4399"),
        "RowNumber": Window(RowNumber(), order_by=["ssn", "pk"]),
        "Rank": Window(Rank(), partition_by="tenant", order_by="ssn"),
        "Max over": Window(Max("note"), partition_by="ssn"),
    }  # fmt: skip
    for name, function in made.items():
        check(name, list(customers.annotate(made=function).values_list("number", "made")))
    check("filter on an annotation", numbers(customers.annotate(made=Lower("note")).filter(made="pays in cash")))
    check(
        "filter on Concat",
        numbers(
            customers.annotate(made=Concat("ssn", "note", output_field=TextField())).filter(made__contains="99pays")
        ),
    )


def subqueries():
    same = Customer.objects.filter(ssn=OuterRef("ssn")).exclude(pk=OuterRef("pk"))
    check("Exists", numbers(customers.filter(Exists(same))))
    check("not Exists", numbers(customers.filter(~Exists(same))))
    check("Subquery", list(customers.annotate(twin=Subquery(same.values("note")[:1])).values_list("ssn", "twin")))
    check("in a subquery", numbers(customers.filter(ssn__in=Customer.objects.filter(tenant="globex").values("ssn"))))
    check("not in a subquery", numbers(
        customers.exclude(ssn__in=Customer.objects.filter(tenant="globex", ssn__isnull=False).values("ssn"))
    ))  # fmt: skip
    ssns, notes = Customer.objects.values_list("ssn"), Customer.objects.values_list("note")
    names = Customer.objects.values_list("name")
    for name, queryset in {
        "union": ssns.union(ssns), "union of columns": ssns.union(notes), "union with text": notes.union(names),
        "union all": ssns.union(ssns, all=True), "intersection": ssns.intersection(ssns.filter(tenant="globex")),
        "difference": ssns.difference(ssns.filter(tenant="globex")),
    }.items():  # fmt: skip
        check(name, sorted(queryset, key=str))
    check("union, ordered", list(ssns.union(notes).order_by("ssn")))
    raw = Customer.objects.raw("SELECT * FROM customer WHERE ssn = %s ORDER BY id", ["536-90-4399"])
    check("raw", [(found.name, found.ssn, found.note) for found in raw])
    with connection.cursor() as cursor:
        for name, sql, parameters in [
            ("cursor", "SELECT ssn, note FROM customer WHERE ssn LIKE %s ORDER BY ssn, id", ["%9"]),
            ("cursor, any", "SELECT number FROM customer WHERE ssn = ANY(%s) ORDER BY id", [["536-90-4399", ""]]),
            ("cursor, json", "SELECT row_to_json(c)->>'ssn' FROM customer c ORDER BY id", []),
            ("cursor, aggregated", "SELECT string_agg(ssn, ',' ORDER BY id) FROM customer", []),
        ]:
            cursor.execute(sql, parameters)
            check(name, cursor.fetchall())
