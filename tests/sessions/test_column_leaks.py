"""No failing write prints the plaintext: not to the client, and where the error is ours not to the log either."""

import secrets

import psycopg
import pytest

from columns import TRIGGER, Text, dba, opened, reader, world  # noqa: F401 (fixtures)
from support import check_failure, unique

# Too long for varchar(20), and of no tenant.
CANARY = f"canary-{secrets.token_hex(12)}"
LENGTH = "id int PRIMARY KEY, tenant_id text, ssn text, note varchar(20), other text NOT NULL DEFAULT 'x', n int UNIQUE"


@pytest.fixture
def t(world):
    """Two rows, one with n = 1. The superuser's session that made it is not the one that fails."""
    name = world.make(unique("t"), shape=LENGTH)
    world.dba.run(f"INSERT INTO {name} VALUES (1, 'acme', 'first', NULL, 'x', 1), (2, 'bolt', 'second', NULL, 'x', 2)")
    return name


# What is done before, the column that gets the canary, the other columns, the error.
WRITES = {
    "a dark tenant": (None, {"tenant_id": "dark"}, ("55000", "key_disabled")),
    "a suspended tenant": (None, {"tenant_id": "paused"}, ("55000", "tenant_suspended")),
    "an unknown tenant": (None, {"tenant_id": "nosuch"}, ("42704", "unknown_tenant")),
    "no tenant": (None, {"tenant_id": None}, ("23502", "tenant_null")),
    "no grant": ("nobody", {}, ("42501", "no_grant")),
    "too long": (None, {"column": "note"}, ("22001", "too_long")),
    "the trigger disabled": ('ALTER TABLE {t} DISABLE TRIGGER "{trigger}"', {}, ("23514", "not_sealed")),
    "the trigger dropped": ('DROP TRIGGER "{trigger}" ON {t}', {}, ("23514", "not_sealed")),
    "the check dropped": ("ALTER TABLE {t} DROP CONSTRAINT cmk_sealed_ssn", {}, ("55000", "protection_lost")),
    "a later trigger": ("LATER", {}, ("23514", "not_sealed")),
}
POSTGRESQL = {
    "not null": ({"other": None}, "23502"),
    "unique": ({"n": 1}, "23505"),
    "primary key": ({"id": 1}, "23505"),
    "a check": ({"other": "refused"}, "23514"),
    "a foreign key": ({"other": "absent"}, "23503"),
    "a value of another column": ({"n": "99999999999"}, None),
}
LATER = (
    "CREATE FUNCTION {t}_later() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NEW.ssn := NEW.other; RETURN NEW; END $$;"
    ' CREATE TRIGGER "~later" BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_later()'
)


def fields(error, without=()):
    diag = error.diag
    return " ".join(
        str(getattr(diag, name)) for name in dir(diag) if not name.startswith("_") and name not in without
    )


def shapes(t, row):
    """One row as statements: (what it is called, SQL, parameters); with the canary in the text or apart."""
    names, values = list(row), list(row.values())
    literal = ", ".join("NULL" if v is None else f"'{v}'" for v in values)
    marks = ", ".join(["%s"] * len(values))
    columns = ", ".join(names)
    assignments = ", ".join(f"{name} = %s" for name in names)
    text = [Text(v) if v == CANARY else v for v in values]
    yield "insert of a literal", f"INSERT INTO {t} ({columns}) VALUES ({literal})", ()
    yield "insert of parameters", f"INSERT INTO {t} ({columns}) VALUES ({marks})", values
    yield "insert of text", f"INSERT INTO {t} ({columns}) VALUES ({marks}) RETURNING *", text
    yield "insert of a query", f"INSERT INTO {t} ({columns}) SELECT {marks}", values
    yield "update", f"UPDATE {t} SET {assignments} WHERE id = 2", values
    upsert = f"INSERT INTO {t} (id, tenant_id) VALUES (2, NULL) ON CONFLICT (id) DO UPDATE SET {assignments}"
    yield "upsert", upsert, values
    yield "do block", f"DO $do$ BEGIN INSERT INTO {t} ({columns}) VALUES ({literal}); END $do$", ()


def staged(world, dba, t, before, changed):
    """The session that fails and the row that it writes, after what makes it fail."""
    row = {"id": 9, "tenant_id": "acme", changed.get("column", "ssn"): CANARY}
    row |= {name: value for name, value in changed.items() if name != "column"}
    if before == "LATER":
        row["other"] = CANARY
        dba.run(LATER.format(t=t))
    elif before and before != "nobody":
        dba.run(before.format(t=t, trigger=TRIGGER))
    return world.reader(before if before == "nobody" else "app"), row


def logged(server, since):
    return server.log.read_bytes()[since:].decode(errors="replace")


def provoke(world, session, t, row):
    """Each way to write the row fails, and each says nothing; yields (name, error, what the log got)."""
    for name, sql, values in shapes(t, row):
        since = world.server.log.stat().st_size
        with pytest.raises(psycopg.Error) as caught:
            session.run(sql, *values)
        yield name, caught.value, logged(world.server, since)


@pytest.mark.parametrize("before, changed, error", WRITES.values(), ids=WRITES)
def test_our_errors_print_no_plaintext_to_the_client_or_the_log(world, dba, t, before, changed, error):
    session, row = staged(world, dba, t, before, changed)
    for name, failure, log in provoke(world, session, t, row):
        check_failure(failure, *error)
        without = ("context",) if name == "do block" else ()
        assert CANARY not in fields(failure, without), name
        assert CANARY not in log, (name, log)
        assert "ERROR:" in log, name
    assert session.usable()


@pytest.mark.parametrize("before, changed, error", WRITES.values(), ids=WRITES)
def test_a_failing_copy_prints_no_plaintext_but_what_postgresql_adds_for_the_client(world, dba, t, before,
                                                                                    changed, error):
    session, row = staged(world, dba, t, before, changed)
    since = world.server.log.stat().st_size
    line = "\t".join(r"\N" if v is None else str(v) for v in row.values())
    with pytest.raises(psycopg.Error) as caught:
        session.copy_in(f"COPY {t} ({', '.join(row)}) FROM STDIN", line + "\n")
    check_failure(caught.value, *error)
    assert CANARY not in fields(caught.value, without=("context",))
    log = logged(world.server, since)
    assert "ERROR:" in log and CANARY not in log, log


@pytest.mark.parametrize("changed, sqlstate", POSTGRESQL.values(), ids=POSTGRESQL)
def test_errors_of_postgresql_print_no_plaintext(world, dba, t, changed, sqlstate):
    dba.run(f"ALTER TABLE {t} ADD CHECK (other <> 'refused')")
    dba.run(f"CREATE TABLE {t}_others (other text PRIMARY KEY)")
    dba.run(f"INSERT INTO {t}_others VALUES ('x'), ('refused')")
    dba.run(f"ALTER TABLE {t} ADD FOREIGN KEY (other) REFERENCES {t}_others")
    session = world.reader()
    row = {"id": 9, "tenant_id": "acme", "ssn": CANARY, **changed}
    for name, failure, log in provoke(world, session, t, row):
        assert failure.sqlstate == sqlstate or sqlstate is None, (name, failure)
        said = f"{failure.diag.message_primary} {failure.diag.message_detail}"
        assert CANARY not in said, (name, said)
        # The statement's own text is PostgreSQL's to log; nothing else of it may hold the value.
        if name not in ("insert of a literal", "do block"):
            assert CANARY not in fields(failure), name
            assert CANARY not in log, (name, log)


def test_a_read_that_fails_says_nothing_of_other_values(world, dba, t, reader):
    dba.run(f"INSERT INTO {t} (id, tenant_id, ssn) VALUES (5, 'acme', '{CANARY}')")
    session, since = world.reader("ro"), world.server.log.stat().st_size
    for sql in ("SELECT ssn FROM {t} ORDER BY id DESC", "SELECT ssn FROM {t} ORDER BY ssn",
                "SELECT 1 FROM {t} WHERE ssn < 'x'", "SELECT count(DISTINCT ssn) FROM {t}"):
        with pytest.raises(psycopg.Error) as caught:
            session.run(sql.format(t=t))
        assert caught.value.sqlstate == "42501"
        assert CANARY not in fields(caught.value)
    assert CANARY not in logged(world.server, since)


def test_the_search_finds_what_is_there(world, t, reader):
    """A control: PostgreSQL's own error with the value in its text."""
    since = world.server.log.stat().st_size
    with pytest.raises(psycopg.Error) as caught:
        reader.run(f"SELECT '{CANARY}'::int")
    assert CANARY in fields(caught.value) and CANARY in logged(world.server, since)
