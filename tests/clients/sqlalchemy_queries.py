"""Queries of every kind."""

from sqlalchemy import (
    String, Text, and_, any_, case, cast, column, exists, func, literal, not_, nulls_last, or_, select, text, tuple_,
    union, union_all, values,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, distinct_on
from sqlalchemy.orm import aliased, contains_eager, joinedload, selectinload, subqueryload

from checks import check
from sqlalchemy_shop import PLACE, Customer, Purchase, note, ssn


def conditions():
    other = aliased(Customer)
    return {
        "exact": ssn == "536-90-4399", "not equal": ssn != "536-90-4399", "reversed": literal("536-90-4399") == ssn,
        "distinct from": ssn.is_distinct_from(None), "is null": ssn.is_(None), "less": ssn < "3",
        "at least": ssn >= "219-09-9999",
        "between": ssn.between("1", "5"), "in": ssn.in_(["536-90-4399", "", "nobody"]),
        "in one": ssn.in_(["536-90-4399"]),
        "in none": ssn.in_([]), "not in": ssn.not_in(["536-90-4399", ""]),
        "any": ssn == any_(cast(["", "5"], ARRAY(String))),
        "like": note.like("%cash"), "not like": note.not_like("%cash"), "ilike": note.ilike("PAYS%"),
        "startswith": ssn.startswith("536"), "endswith": ssn.endswith("9"),
        "contains": note.contains("% _", autoescape=True),
        "icontains": note.icontains("łÓDŹ"), "regexp": ssn.regexp_match(r"^\d{3}-0"),
        "lower": func.lower(note) == "pays in cash",
        "length": func.length(ssn) > 10, "two columns": ssn == note, "a text column": ssn < Customer.name,
        "and, or, not": or_(and_(ssn.startswith("5"), not_(note.like("%cash%"))), ssn == ""),
        "concat": (ssn + note).contains("99pays"), "coalesce": func.coalesce(ssn, "none") == "none",
        "cast": cast(ssn, Text) == "",
        "tuple": tuple_(ssn, note).in_([("219-09-9999", "pays in cash"), ("", "")]),
        "row": tuple_(ssn, note) > tuple_("3", ""),
        "exists": exists().where(other.ssn == ssn, other.id != Customer.id),
        "not exists": ~exists().where(other.ssn == ssn, other.id != Customer.id),
        "in a subquery": ssn.in_(select(other.ssn).where(other.tenant_id == "globex")),
        "a scalar subquery": ssn == select(func.max(other.ssn)).where(other.tenant_id == "acme").scalar_subquery(),
    }  # fmt: skip


def expressions():
    return {
        "lower": func.lower(note), "concat": ssn + ": " + note, "concat()": func.concat(ssn, "/", note),
        "coalesce": func.coalesce(ssn, "unknown"), "coalesce of columns": func.coalesce(ssn, note, Customer.name),
        "nullif": func.nullif(ssn, ""), "greatest": func.greatest(ssn, note, "5"),
        "substring": func.substring(ssn, 1, 3),
        "replace": func.replace(ssn, "-", ""), "regexp": func.regexp_replace(ssn, r"\d", "#", "g"),
        "length": func.length(note),
        "cast": cast(ssn, String(3)), "typed": literal("x") + ssn, "format": func.format("%s|%s", ssn, note),
        "case": case((ssn == "536-90-4399", note), (note == "pays in cash", "cash"), else_=ssn),
        "simple case": case({"536-90-4399": "Ada or Di", "": "Ed"}, value=ssn, else_="somebody"),
        "comparison": ssn == "536-90-4399", "row number": func.row_number().over(order_by=(ssn, Customer.id)),
        "rank": func.rank().over(partition_by=Customer.tenant_id, order_by=ssn.desc()),
        "lag": func.lag(ssn).over(order_by=Customer.id),
        "count over": func.count().over(partition_by=ssn), "position": func.strpos(note, "cash"), "md5": func.md5(ssn),
    }  # fmt: skip


def queries(session):
    def all_of(query):
        return [list(row) for row in session.execute(query)]

    everybody = select(Customer).order_by(*PLACE)
    for name, condition in conditions().items():
        check(f"where {name}", all_of(select(*PLACE).where(condition).order_by(*PLACE)))
    for name, expression in expressions().items():
        check(f"select {name}", all_of(select(*PLACE, expression).order_by(*PLACE)))
    check("entities", [repr(found) for found in session.scalars(everybody)])
    check(
        "one", repr(session.scalars(select(Customer).where(ssn == "219-09-9999", Customer.tenant_id == "globex")).one())
    )
    check("get", repr(session.get(Customer, 3, populate_existing=True)))
    check("order by", all_of(select(ssn, note).order_by(ssn, note)))
    check("order by desc, nulls last", all_of(select(ssn).order_by(nulls_last(ssn.desc()))))
    check("order by an expression", all_of(select(note).order_by(func.lower(note), Customer.id)))
    check("order by collate", all_of(select(note).order_by(note.collate("C"), Customer.id)))
    check("limit", all_of(select(ssn).order_by(ssn, Customer.id).limit(3).offset(2)))
    check("distinct", all_of(select(ssn).distinct().order_by(ssn)))
    check("distinct on", all_of(select(ssn, Customer.name).ext(distinct_on(ssn)).order_by(ssn, Customer.id)))
    check("aggregates", all_of(select(func.count(ssn), func.count(ssn.distinct()), func.min(ssn), func.max(note))))
    check("string_agg", all_of(select(func.string_agg(ssn, aggregate_order_by(literal(","), ssn)))))
    check("array_agg", all_of(select(func.array_agg(aggregate_order_by(cast(ssn, Text), Customer.id)))))
    check("group by, having", all_of(select(ssn, func.count()).group_by(ssn).having(func.count() > 1).order_by(ssn)))
    first = func.left(ssn, 1).label("first")
    check("group by an expression", all_of(select(first, func.count()).group_by("first").order_by("first")))
    check("grouping sets", sorted(all_of(select(ssn, note, func.count()).group_by(func.cube(ssn, note))), key=str))
    check("filter", all_of(select(func.count().filter(ssn.startswith("5")), func.max(ssn).filter(note != ""))))
    for name, set_of in {
        "union": union(select(ssn), select(note)), "union all": union_all(select(ssn), select(Customer.name)),
        "intersect": select(ssn).intersect(select(ssn).where(Customer.tenant_id == "globex")),
        "except": select(ssn).except_(select(ssn).where(Customer.tenant_id == "globex")),
        "union with a literal": union(select(ssn), select(literal("a literal"))),
    }.items():  # fmt: skip
        check(name, sorted(all_of(set_of), key=str))
    named = select(ssn, func.count().label("n")).group_by(ssn).cte("named")
    check("cte", all_of(select(named.c.ssn, named.c.n).order_by(named.c.ssn)))
    other = aliased(Customer)
    pairs = select(Customer.name, other.name).join(other, and_(other.ssn == ssn, other.id > Customer.id))
    check("self join", all_of(pairs.order_by(Customer.id)))
    given = values(column("wanted", String), name="given").data([("536-90-4399",), ("219-09-9999",)])
    check(
        "join with values",
        all_of(select(given.c.wanted, Customer.name).join(Customer, ssn == given.c.wanted).order_by(Customer.id)),
    )
    near = select(other.note).where(other.ssn == ssn).order_by(other.note).limit(1).lateral("near")
    check("lateral", all_of(select(Customer.name, near.c.note).join(near, text("true")).order_by(Customer.id)))
    for name, option in {"joined": joinedload, "selectin": selectinload, "subquery": subqueryload}.items():
        found = session.scalars(everybody.options(option(Customer.purchases))).unique()
        check(f"{name} load", [(one.ssn, [bought.price for bought in one.purchases]) for one in found])
        session.expunge_all()
    query = (
        select(Purchase).join(Purchase.customer).options(contains_eager(Purchase.customer)).where(note.contains("cash"))
    )
    check(
        "contains_eager",
        [(bought.item, bought.customer.note) for bought in session.scalars(query.order_by(Purchase.id))],
    )
    check(
        "for update",
        [one.ssn for one in session.scalars(everybody.where(ssn == "536-90-4399").with_for_update(skip_locked=True))],
    )
    check("yield_per", [one.note for one in session.scalars(everybody.execution_options(yield_per=2))])
    for turn in range(8):  # the driver prepares a statement after five executions
        check(f"again {turn}", all_of(select(ssn, note).where(ssn == f"100-00-{turn:04}")))
    check(
        "text",
        all_of(text("SELECT ssn, note FROM customer WHERE ssn = :ssn ORDER BY id").bindparams(ssn="536-90-4399")),
    )
    check(
        "text with a cast",
        all_of(text("SELECT ssn::varchar FROM customer WHERE ssn = CAST(:s AS varchar)").bindparams(s="5")),
    )
    check("star", all_of(text("SELECT * FROM customer ORDER BY id")))
