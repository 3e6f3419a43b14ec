"""An application on psycopg 3 alone. "text" or "binary" before the step says how results arrive."""

import sys

import psycopg
from psycopg.rows import dict_row

from checks import check, refused

BINARY = sys.argv[1] == "binary"


def connect(**options):
    return psycopg.connect(autocommit=True, **options)


def create():
    with connect() as connection:
        connection.execute(
            "CREATE TABLE customer (id bigserial PRIMARY KEY, tenant_id text NOT NULL, number int NOT NULL,"
            " ssn varchar(20), note text NOT NULL DEFAULT 'nothing', UNIQUE (tenant_id, number))"
        )
        connection.cursor().executemany(
            "INSERT INTO customer (tenant_id, number, ssn, note) VALUES (%s, %s, %s, %s)",
            [
                ("acme", 1, "536-90-4399", "pays in cash"), ("acme", 2, None, "Łódź 東京 🗝"), ("acme", 3, "", ""),
                ("globex", 1, "536-90-4399", "line\nbreak\ttab\\"), ("globex", 2, "078-05-1120", "x" * 5000),
            ],
        )  # fmt: skip
        check("created", connection.execute("SELECT count(*) FROM customer").fetchall())


def work():
    with connect() as connection:
        writes(connection)
        reads(connection)
        copies(connection)


def writes(connection):
    def run(sql, *parameters):
        return connection.execute(sql, parameters, binary=BINARY).fetchall()

    insert = "INSERT INTO customer (tenant_id, number, ssn, note) VALUES (%s, %s, %s, %s) RETURNING ssn, note"
    check("insert", run(insert, "acme", 4, "1", "one"))
    check("insert, typed", run(insert.replace("%s", "%t"), "acme", 5, "2", "two"))
    check("insert, binary", run(insert.replace("%s", "%b"), "acme", 6, "3", "three"))
    check("insert NULL", run(insert, "acme", 7, None, ""))
    with connection.pipeline():
        cursors = [connection.execute(insert, ("globex", n, f"p{n}", "piped"), binary=BINARY) for n in range(3, 6)]
    check("pipeline", [cursor.fetchall() for cursor in cursors])
    check("upsert", run(insert.replace(
        " RETURNING", " ON CONFLICT (tenant_id, number) DO UPDATE"
        " SET ssn = excluded.ssn, note = excluded.note || '!' RETURNING"
    ), "acme", 4, "1b", "one b"))  # fmt: skip
    check("update", run("UPDATE customer SET note = %s || ssn WHERE ssn = %s RETURNING note", "was ", "2"))
    check(
        "update of the tenant",
        run("UPDATE customer SET tenant_id = 'globex', number = 9 WHERE ssn = '3' RETURNING ssn"),
    )
    check("delete", run("DELETE FROM customer WHERE ssn = %s RETURNING ssn, note", "1b"))
    check(
        "merge-like", run("WITH gone AS (DELETE FROM customer WHERE ssn = 'p5' RETURNING *) SELECT ssn, note FROM gone")
    )
    refused("too long", lambda: run(insert, "acme", 8, "x" * 21, ""), psycopg.Error)
    refused("not unique", lambda: run(insert, "acme", 1, "x", ""), psycopg.Error)
    refused("NULL in NOT NULL", lambda: run(insert, "acme", 8, "x", None), psycopg.Error)


def reads(connection):
    def run(sql, *parameters, **options):
        return connection.execute(sql, parameters, binary=BINARY, **options).fetchall()

    check("all", run("SELECT ssn, note FROM customer ORDER BY tenant_id, number"))
    check("star", run("SELECT * FROM customer ORDER BY tenant_id, number"))
    for place in ("%s", "%t", "%b"):
        check(
            f"equal {place}", run(f"SELECT number, note FROM customer WHERE ssn = {place} ORDER BY id", "536-90-4399")
        )
        check(f"like {place}", run(f"SELECT ssn FROM customer WHERE ssn LIKE {place} ORDER BY id", "%-%"))
        check(f"any {place}", run(f"SELECT ssn FROM customer WHERE ssn = ANY({place}) ORDER BY id", ["2", "p3", ""]))
    for turn in range(8):
        check(
            f"prepared {turn}",
            run("SELECT ssn, note FROM customer WHERE ssn = %s", ["2", "p3"][turn % 2], prepare=True),
        )
    check("in", run("SELECT ssn FROM customer WHERE ssn IN (%s, %s) ORDER BY ssn", "2", "p3"))
    check("order", run("SELECT ssn FROM customer ORDER BY ssn DESC NULLS LAST"))
    check("group", run("SELECT ssn, count(*) FROM customer GROUP BY ssn ORDER BY ssn"))
    check("lower", run("SELECT lower(note), upper(ssn) FROM customer ORDER BY id"))
    check("json", run("SELECT jsonb_build_object('ssn', ssn) FROM customer ORDER BY id"))
    check("cast", run("SELECT ssn::text, note::varchar(3) FROM customer ORDER BY id"))
    check("bytes", run("SELECT convert_to(ssn, 'UTF8') FROM customer ORDER BY id"))
    with connection.transaction(), connection.cursor("named", binary=BINARY) as cursor:
        cursor.itersize = 2
        check("named cursor", list(cursor.execute("SELECT ssn, note FROM customer ORDER BY id")))
    with connection.cursor(row_factory=dict_row, binary=BINARY) as cursor:
        check("dict rows", cursor.execute("SELECT ssn, note FROM customer ORDER BY id").fetchall())
    check("stream", list(connection.cursor(binary=BINARY).stream("SELECT ssn FROM customer ORDER BY id")))
    with psycopg.ClientCursor(connection) as cursor:
        check(
            "client cursor", cursor.execute("SELECT number FROM customer WHERE ssn = %s ORDER BY id", ["p3"]).fetchall()
        )
    with connect(cursor_factory=psycopg.RawCursor) as raw:
        check("raw cursor", raw.execute("SELECT number FROM customer WHERE ssn = $1", ["p3"]).fetchall())
    connection.execute("DEALLOCATE ALL")


def copies(connection):
    with connection.cursor() as cursor:
        with cursor.copy("COPY customer (tenant_id, number, ssn, note) FROM STDIN") as copy:
            for number in range(100, 110):
                copy.write_row(("acme", number, f"copied {number}", "by\tCOPY\n"))
        with cursor.copy("COPY customer (tenant_id, number, ssn, note) FROM STDIN (FORMAT csv)") as copy:
            copy.write('globex,100,csv,"in ""quotes"""\n')
        check(
            "copied",
            cursor.execute("SELECT ssn, note FROM customer WHERE number >= 100 ORDER BY number, ssn").fetchall(),
        )


def look_ups():
    """Customers by the exact number, in all the ways that such a query is sent."""
    with connect() as connection:

        def look_up(name, sql, *parameters, **options):
            connection.execute(f"SELECT 'look-up: {name}'")
            check(name, connection.execute(sql, parameters, binary=BINARY, **options).fetchall())

        one = "SELECT number, note FROM customer WHERE tenant_id = %s AND ssn = %s"
        alone = "SELECT number, note FROM customer WHERE ssn = %s"
        numbers = ["900-00-1002", "900-00-1004", "900-00-1005", "nobody"]
        for place in ("%s", "%t", "%b"):
            look_up(f"one {place[1]}", one.replace("%s", place), "acme", "900-00-1000")
            look_up(f"without the tenant {place[1]}", alone.replace("%s", place), "900-00-1001")
            look_up(f"any {place[1]}", one.replace("= %s", "= 'acme'", 1).replace("%s", f"ANY({place})"), numbers)
        look_up("of the other tenant", one, "globex", "900-00-1000")
        look_up("reversed", "SELECT note FROM customer WHERE %s = ssn AND tenant_id = %s", "900-00-1000", "acme")
        look_up("in", one.replace("ssn = %s", "ssn IN (%s, %s, %s, %s)"), "acme", *numbers)
        for turn in range(8):
            tenant, number = [("acme", "900-00-1006"), ("globex", "900-00-1007")][turn % 2]
            look_up(f"prepared {turn}", one, tenant, number, prepare=True)
        upsert = (
            "INSERT INTO customer (tenant_id, number, ssn, note) VALUES (%s, %s, %s, 'new')"
            " ON CONFLICT (tenant_id, ssn) DO UPDATE SET note = 'upserted' RETURNING number, note"
        )
        look_up("upsert of an old one", upsert, "acme", 5000, "900-00-1008")
        look_up("upsert of a new one", upsert, "globex", 5000, "900-00-1008")
        look_up("update", "UPDATE customer SET note = ssn WHERE tenant_id = %s AND ssn = %s RETURNING note", "acme",
                "900-00-1010")  # fmt: skip
        look_up("delete", "DELETE FROM customer WHERE tenant_id = %s AND ssn = %s RETURNING note", "acme",
                "900-00-1012")  # fmt: skip
        look_up("also: by its end", "SELECT number FROM customer WHERE tenant_id = %s AND ssn LIKE %s ORDER BY number",
                "acme", "%-100_")  # fmt: skip
        with psycopg.ClientCursor(connection) as cursor:
            connection.execute("SELECT 'look-up: client cursor'")
            check("client cursor", cursor.execute(one, ["globex", "900-00-1003"]).fetchall())
        with connection.transaction(), connection.cursor("named", binary=BINARY) as cursor:
            connection.execute("SELECT 'look-up: named cursor'")
            check("named cursor", cursor.execute(one, ["globex", "900-00-1003"]).fetchall())


{"create": create, "work": work, "look-ups": look_ups}[sys.argv[-1]]()
