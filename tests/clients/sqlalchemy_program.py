"""An SQLAlchemy application's life: its tables, units of work, and queries of every kind."""

import sys
import warnings

from sqlalchemy import MetaData, Table, bindparam, case, delete, func, insert, literal, null, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from checks import check, refused
from sqlalchemy_look_ups import look_ups
from sqlalchemy_queries import queries
from sqlalchemy_shop import Base, Customer, Purchase, engine, everything, note, ssn


def create():
    Base.metadata.create_all(engine)
    people = [
        ("acme", 1, "Ada", "536-90-4399", "pays in cash"),
        ("acme", 2, "Bo", "078-05-1120", "Ünïcode: Łódź 東京 🗝"),
        ("acme", 3, "Cy", None, ""),
        ("globex", 1, "Di", "536-90-4399", "the same number as Ada's"),
        ("globex", 2, "Ed", "", "100% _sure_ \\ 'quoted' \"twice\""),
        ("globex", 3, "Flo", "219-09-9999", "pays in cash"),
    ]
    with Session(engine) as session:
        for tenant, number, name, ssn, note in people:
            made = Customer(tenant_id=tenant, number=number, name=name, ssn=ssn, note=note)
            made.purchases = [Purchase(item=f"item {n}", price=10 * number + n) for n in range(2)]
            session.add(made)
        session.commit()
        check("created", everything(session))


def units_of_work(session):
    made = Customer(tenant_id="acme", number=4, name="Gus", ssn="457-55-5462")
    session.add(made)
    session.flush()
    check("added", repr(made))
    session.refresh(made)
    check("refreshed", repr(made))
    made.note, made.ssn = "edited", "457-55-0000"
    session.commit()
    check("loaded after the commit", repr(made))
    made.visits += 1
    session.commit()
    check("another column changed", (made.visits, repr(made)))
    made.tenant_id, made.number = "globex", 40
    session.commit()
    check("moved to another tenant", repr(made))
    made.note = func.upper(Customer.note) + " / " + Customer.ssn
    session.commit()
    check("an expression for a value", repr(made))
    many = [Customer(tenant_id="acme", number=n, name=f"n{n}", ssn=f"100-00-{n:04}", note=str(n)) for n in range(5, 30)]
    session.add_all(many)
    session.commit()
    check("many added", [repr(one) for one in many])
    for one in many[::2]:
        one.note = f"changed {one.number}"
    session.commit()
    check("many changed", [repr(one) for one in many])
    session.delete(many.pop())
    session.commit()
    with session.begin_nested() as savepoint:
        many[0].note = "rolled back"
        session.flush()
        savepoint.rollback()
    check("rolled back", repr(many[0]))
    merged = session.merge(Customer(id=many[1].id, tenant_id="acme", number=6, name="merged", ssn="1", note="merged"))
    session.commit()
    check("merged", repr(merged))
    check("after the units of work", everything(session))


def statements(session):
    run = session.execute
    rows = [
        {"tenant_id": "acme", "number": n, "name": "x", "ssn": f"300-00-{n:04}", "note": f"note {n}"}
        for n in range(60, 64)
    ]
    check("insert, returning", run(insert(Customer).returning(ssn, note, func.lower(note)), rows[:1]).all())
    check(
        "insert many, returning",
        run(insert(Customer).returning(ssn, note, sort_by_parameter_order=True), rows[1:]).all(),
    )
    check("insert, the server's default", run(text(
        "INSERT INTO customer (tenant_id, number, name, ssn) VALUES ('acme', 64, 'y', '5') RETURNING ssn, note"
    )).all())  # fmt: skip
    for row in rows:
        row["note"] = "upserted"
    upsert = pg_insert(Customer)
    check("on conflict do nothing", run(upsert.on_conflict_do_nothing().returning(ssn), rows).all())
    check("on conflict do update", run(
        upsert.values(rows).on_conflict_do_update(
            index_elements=["tenant_id", "number"],
            set_={"note": upsert.excluded.note + " " + Customer.ssn, "ssn": upsert.excluded.ssn},
            where=Customer.ssn != "300-00-0061",
        ).returning(Customer.number, ssn, note)
    ).all())  # fmt: skip
    check("on conflict by a constraint", run(
        upsert.values(rows[0]).on_conflict_do_update(constraint="customer_number", set_={"ssn": "1-2"}).returning(ssn)
    ).all())  # fmt: skip
    source = select(literal("globex"), Customer.number + 100, Customer.name, ssn, func.upper(note)).where(
        Customer.number >= 60
    )
    check("insert from select", run(
        insert(Customer).from_select(["tenant_id", "number", "name", "ssn", "note"], source.order_by(ssn))
        .returning(ssn, note)
    ).all())  # fmt: skip
    check("update, returning", sorted(run(
        update(Customer).where(ssn.like("300-%")).values(note=note + ssn, visits=Customer.visits + 1)
        .returning(ssn, note)
    ).all()))  # fmt: skip
    check("update with case", run(
        update(Customer).where(Customer.number.between(60, 70)).values(
            note=case((ssn == "1-2", "one"), (ssn.in_(["5", "300-00-0062"]), ssn), else_=func.left(note, 3))
        )
    ).rowcount)  # fmt: skip
    twin = aliased(Customer)
    check("update from", run(
        update(Customer).where(Customer.number == 61, twin.ssn == ssn, twin.number == 161)
        .values(note=twin.note + twin.ssn)
    ).rowcount)  # fmt: skip
    run(update(Customer), [{"id": 3, "note": "by key"}, {"id": 4, "note": "Ada's, by key"}])
    connection = session.connection()
    connection.execute(
        update(Customer.__table__).where(Customer.__table__.c.number == bindparam("n")).values(ssn=bindparam("s")),
        [{"n": 62, "s": "executemany 62"}, {"n": 63, "s": None}],
    )
    check("delete, returning", sorted(run(delete(Customer).where(ssn == "1-2").returning(Customer.number, ssn)).all()))
    session.commit()
    check("after the statements", everything(session))

    def try_to(**changed):
        given = {"tenant_id": "acme", "number": 90, "name": "z", "ssn": "1", "note": "", **changed}
        with session.begin_nested():
            session.execute(insert(Customer).values(given))

    refused("too long", lambda: try_to(ssn="x" * 21), DBAPIError)
    refused("not unique", lambda: try_to(number=1), DBAPIError)
    refused("NULL in NOT NULL", lambda: try_to(note=null()), DBAPIError)


def work():
    with Session(engine) as session:
        units_of_work(session)
        statements(session)
    with Session(engine) as session:
        queries(session)


def reflect():
    """A program that takes its tables from the catalogs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = Table("customer", MetaData(), autoload_with=engine)
    check("warnings", [str(warning.message) for warning in caught])
    check("types", [str(repr(table.c[name].type)) for name in ("name", "ssn", "note")])
    with engine.begin() as connection:
        row = {"tenant_id": "acme", "number": 500, "name": "reflected", "ssn": "5-0-0", "note": "by reflection"}
        check("insert", connection.execute(insert(table).returning(table.c.ssn, table.c.note), row).all())
        query = select(table.c.ssn, table.c.note).where(table.c.ssn == "5-0-0", func.lower(table.c.note).contains("by"))
        check("select", connection.execute(query).all())


def find():
    with Session(engine) as session:
        look_ups(session)


{"create": create, "work": work, "reflect": reflect, "look-ups": find}[sys.argv[-1]]()
