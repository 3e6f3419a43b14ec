#!/usr/bin/env python3
"""Keeps the customers of several tenants. Knows nothing of encryption.

customers.py migrate                    make the tables, or what is new of them
customers.py add TENANT NAME SSN [NOTE]
customers.py list TENANT
customers.py find TEXT                  by a part of the name, the number or the note
customers.py who TENANT SSN             by the exact number
customers.py note ID TEXT               replace the note
customers.py renumber ID SSN
customers.py move ID TENANT
customers.py visit ID DAY
customers.py delete ID
customers.py report                     what several customers have in common

The database is found by libpq's environment variables: PGHOST, PGDATABASE, PGUSER and so on.
"""

import sys
from pathlib import Path

import psycopg

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(db):
    db.execute("CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY)")
    done = {name for (name,) in db.execute("SELECT name FROM migration")}
    for path in sorted(MIGRATIONS.glob("*.sql")):
        if path.name not in done:
            db.execute(path.read_text())
            db.execute("INSERT INTO migration VALUES (%s)", [path.name])
            yield [path.name]


def add(db, tenant, name, ssn, note=""):
    return db.execute(
        "INSERT INTO customer (tenant, name, ssn, note) VALUES (%s, %s, %s, %s) RETURNING id, name, ssn",
        [tenant, name, ssn, note],
    )


def list_(db, tenant):
    return db.execute("SELECT id, name, ssn, note FROM customer WHERE tenant = %s ORDER BY name", [tenant])


def find(db, text):
    return db.execute(
        "SELECT id, tenant, name, ssn, note FROM customer"
        " WHERE name ILIKE %(like)s OR ssn = %(text)s OR note ILIKE %(like)s ORDER BY ssn, id",
        {"text": text, "like": f"%{text}%"},
    )


def who(db, tenant, ssn):
    return db.execute("SELECT id, name, note FROM customer WHERE tenant = %s AND ssn = %s", [tenant, ssn])


def note(db, id, text):
    return db.execute("UPDATE customer SET note = %s WHERE id = %s RETURNING id, name, note", [text, id])


def renumber(db, id, ssn):
    return db.execute("UPDATE customer SET ssn = %s WHERE id = %s RETURNING id, name, ssn", [ssn, id])


def move(db, id, tenant):
    return db.execute("UPDATE customer SET tenant = %s WHERE id = %s RETURNING id, tenant, name, ssn", [tenant, id])


def visit(db, id, day):
    return db.execute(
        "WITH made AS (INSERT INTO visit VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING customer)"
        " SELECT id, name, ssn FROM customer JOIN made ON customer = id",
        [id, day],
    )


def delete(db, id):
    return db.execute("DELETE FROM customer WHERE id = %s RETURNING id, name, ssn", [id])


def report(db):
    """Persons who are customers of several tenants, by their number."""
    return db.execute(
        "SELECT ssn, count(*), string_agg(DISTINCT tenant, ', ' ORDER BY tenant), max(day)"
        " FROM customer LEFT JOIN visit ON customer = id"
        " GROUP BY ssn HAVING count(DISTINCT tenant) > 1 ORDER BY ssn"
    )


COMMANDS = {
    "migrate": migrate, "add": add, "list": list_, "find": find, "who": who, "note": note, "renumber": renumber,
    "move": move, "visit": visit, "delete": delete, "report": report,
}  # fmt: skip


def main(arguments):
    command, *rest = arguments or ["help"]
    if command not in COMMANDS:
        sys.exit(__doc__)
    try:
        with psycopg.connect() as db:
            for row in COMMANDS[command](db, *rest):
                print(*row, sep=" | ")
    except psycopg.errors.StringDataRightTruncation:
        sys.exit("refused: that is too long")


if __name__ == "__main__":
    main(sys.argv[1:])
