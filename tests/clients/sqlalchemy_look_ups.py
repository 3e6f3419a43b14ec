"""Customers by the exact number."""

from sqlalchemy import (
    String, and_, any_, cast, column, delete, func, literal, or_, select, text, tuple_, update, values,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import joinedload

from checks import check, refused
from sqlalchemy_shop import PLACE, Customer, note, ssn

acme, globex = Customer.tenant_id == "acme", Customer.tenant_id == "globex"
SOME = ["900-00-1002", "900-00-1004", "900-00-1005", "nobody"]


def upsert(*rows):
    made = pg_insert(Customer).values(
        [{"tenant_id": t, "number": n, "name": "new", "ssn": s, "note": "upserted"} for t, n, s in rows]
    )
    changed = made.on_conflict_do_update(index_elements=["tenant_id", "ssn"], set_={"note": made.excluded.note})
    return changed.returning(Customer.number, ssn, note)


def statements():
    given = values(column("t", String), column("s", String), name="given").data(
        [("acme", "900-00-1010"), ("globex", "900-00-1011"), ("acme", "900-00-1011")]
    )
    return {
        "where": select(note).where(acme, ssn == "900-00-1000"),
        "without the tenant": select(*PLACE).where(ssn == "900-00-1001"),
        "reversed": select(note).where(acme, literal("900-00-1000") == ssn),
        "in": select(*PLACE).where(acme, ssn.in_(SOME)).order_by(*PLACE),
        "in, without the tenant": select(*PLACE).where(ssn.in_(SOME)).order_by(*PLACE),
        "any": select(*PLACE).where(acme, ssn == any_(cast(SOME, ARRAY(String)))).order_by(*PLACE),
        "or": select(*PLACE).where(globex, or_(ssn == "900-00-1003", ssn == "900-00-1007")).order_by(*PLACE),
        "join with values": select(*PLACE)
        .join_from(given, Customer, and_(Customer.tenant_id == given.c.t, ssn == given.c.s))
        .order_by(*PLACE),
        "a scalar subquery": select(select(note).where(acme, ssn == "900-00-1002").scalar_subquery()),
        "a cte": select(select(note).where(acme, ssn == "900-00-1002").cte("found")),
        "for update": select(note).where(acme, ssn == "900-00-1002").with_for_update(),
        "upsert": upsert(("acme", 5000, "900-00-1012")),
        "upsert of several": upsert(("acme", 5001, "900-00-1014"), ("globex", 5002, "900-00-1014")),
        "update": update(Customer).where(acme, ssn == "900-00-1016").values(note="changed").returning(ssn, note),
        "delete": delete(Customer).where(acme, ssn == "900-00-1018").returning(ssn, note),
        "also: pairs": select(*PLACE)
        .where(tuple_(Customer.tenant_id, ssn).in_([("acme", "900-00-1000"), ("globex", "900-00-1001")]))
        .order_by(*PLACE),
        "also: lower": select(*PLACE).where(acme, func.lower(ssn) == "900-00-1000"),
        "also: without parameters": select(*PLACE).where(text("ssn <= '078-05-1120'")).order_by(*PLACE),
    }


def look_ups(session):
    def named(name):
        session.execute(text(f"SELECT 'look-up: {name}'"))

    for name, statement in statements().items():
        named(name)
        check(name, [list(row) for row in session.execute(statement)])
    for turn in range(8):  # the driver prepares a statement after five executions
        named(f"again {turn}")
        found = session.scalars(select(Customer).where(acme, ssn == f"900-00-{1020 + 2 * turn}"))
        check(f"again {turn}", repr(found.one()))
    named("with its purchases")
    found = select(Customer).where(acme, ssn == "536-90-4399").options(joinedload(Customer.purchases))
    check("with its purchases", [bought.item for bought in session.scalars(found).unique().one().purchases])
    session.commit()
    named("also: not unique")

    def twice():
        with session.begin_nested():
            session.add(Customer(tenant_id="acme", number=5500, name="twice", ssn="900-00-1000"))

    refused("also: not unique", twice, DBAPIError)
