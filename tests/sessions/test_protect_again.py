"""What was lost of a protection is made again as it was, and what is left to do is not forgotten."""

import psycopg
import pytest

from columns import dba, opened  # noqa: F401 (fixtures)
from protected import hear
from searching import world  # noqa: F401 (fixture)
from support import unique

SHAPE = "id int PRIMARY KEY, tenant_id text NOT NULL, ssn text"
LABEL = "people.number"


@pytest.fixture
def table(world, dba):
    """A searchable column with a label of its own, and a row."""
    name = unique("again")
    dba.run(f"CREATE TABLE {name} ({SHAPE})")
    protect(dba, name, label=LABEL)
    dba.run(f"INSERT INTO {name} VALUES (1, 'acme', 'value')")
    yield name
    dba.run(f"DROP TABLE {name}")


def protect(dba, name, column="ssn", **options):
    given = {"tenant_column": "tenant_id", "searchable": True, **options}
    arguments = "".join(f", {key} => {value!r}" for key, value in given.items())
    return dba.one(f"SELECT cmk.protect_column('{name}', '{column}'{arguments})")


def found(dba, name):
    dba.run("SET enable_seqscan = off")
    return dba.one(f"SELECT count(*) FROM {name} WHERE tenant_id = 'acme' AND ssn = 'value'")


def problems(dba, name, column="ssn"):
    return dba.one('SELECT problems FROM cmk.protected_columns WHERE "table" = %s::regclass AND "column" = %s',
                   name, column)


def findings(dba, name):
    return dict(dba.all("SELECT detail, fix FROM cmk.check() WHERE strpos(detail, %s) > 0", name))


def drop_check(dba, name):
    dba.run(f"ALTER TABLE {name} DROP CONSTRAINT cmk_sealed_ssn")


@pytest.mark.parametrize("options", [{}, {"label": LABEL}], ids=["without a label", "with it"])
def test_a_column_that_lost_its_constraint_keeps_its_label(dba, table, options):
    drop_check(dba, table)
    assert LABEL in protect(dba, table, **options)
    assert found(dba, table) == 1
    dba.run(f"CALL cmk.seal_table('{table}')")
    # Without a constraint plaintext may have got in.
    assert {problem.split(":")[0] for problem in problems(dba, table)} <= {"plaintext_in_index", "remnants"}


@pytest.mark.parametrize("lost", ["DROP CONSTRAINT cmk_sealed_ssn", 'DROP CONSTRAINT cmk_sealed_ssn, DROP TRIGGER'])
def test_another_label_than_that_of_the_values_is_refused(dba, table, lost):
    drop_check(dba, table)
    options = {"label": "another"}
    if "TRIGGER" in lost:
        dba.run(f'DROP TRIGGER "~cmk_seal" ON {table}')
        options = {}
    with pytest.raises(psycopg.Error, match="another label") as refused:
        protect(dba, table, **options)
    assert refused.value.diag.message_detail.startswith("reason=not_protectable")
    assert LABEL in protect(dba, table, label=LABEL) and found(dba, table) == 1


def test_unprotecting_a_column_that_lost_its_constraint_leaves_no_trigger(dba, table):
    drop_check(dba, table)
    dba.run(f"DROP INDEX {table}_ssn_idx")
    dba.run(f"SELECT cmk.unprotect_column('{table}', 'ssn')")
    assert dba.one("SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass", table) == 0


@pytest.fixture
def unsealed(world, dba):
    """A full table with unique columns, whose old values are still to be sealed."""
    quoted = f'public."{unique("Odd, name")}"'
    dba.run(f'CREATE TABLE {quoted} ({SHAPE}, "the, ""part" text, UNIQUE (tenant_id, ssn), UNIQUE ("the, ""part", ssn))')
    dba.run(f"CREATE UNIQUE INDEX ON {quoted} (ssn) WHERE id > 5")
    dba.run(f"INSERT INTO {quoted} VALUES (1, 'acme', 'value', 'p')")
    heard = hear(dba)
    protect(dba, quoted, rewrite=False)
    yield quoted, heard
    dba.run(f"DROP TABLE {quoted}")


def test_a_unique_index_that_is_to_be_made_again_is_not_forgotten(dba, unsealed):
    name, heard = unsealed
    first = str(heard)
    assert first.count("duplicates are not refused") == 3
    heard.clear()
    dba.run(f"CALL cmk.seal_table('{name}')")
    told = str(heard)
    statement = f"CREATE UNIQUE INDEX CONCURRENTLY ON {name} (tenant_id, ssn pg_catalog.cmk_token_ops)"
    assert "duplicates are not refused" in told and statement in told
    assert "CREATE INDEX" not in told, "an index that is not unique is no substitute"
    assert f"unique_index_missing: {name} (tenant_id, ssn)" in problems(dba, name)
    fixes = findings(dba, name)
    assert statement in fixes.values() and f"VACUUM FULL {name}" in fixes.values()
    # An index of another kind changes nothing.
    dba.run(f"CREATE INDEX ON {name} (tenant_id, ssn cmk_token_ops)")
    assert f"unique_index_missing: {name} (tenant_id, ssn)" in problems(dba, name)
    for fix in fixes.values():
        dba.run(fix)
    assert problems(dba, name) == [] and findings(dba, name) == {}
    with pytest.raises(psycopg.errors.UniqueViolation):
        dba.run(f"INSERT INTO {name} VALUES (2, 'acme', 'value', 'q')")


def test_what_a_comment_says_is_no_sql(dba, unsealed):
    """A dump, or the table's owner, may bring any comment."""
    name, heard = unsealed
    for columns in ("id) WHERE (f()", "id, f()", 'nosuch, ssn', '"id"; DROP TABLE x', "ssn, , id"):
        comment = f"A unique index on ({columns}) is to be made again."
        dba.run(f"COMMENT ON CONSTRAINT cmk_sealed_ssn ON {name} IS '{comment}'")
        assert [problem for problem in problems(dba, name) if problem.startswith("unique_index")] == [], columns
    heard.clear()
    dba.run(f"CALL cmk.seal_table('{name}')")
    assert "UNIQUE" not in str(heard)


def test_an_unsealed_column_is_a_finding_of_the_check(dba, unsealed):
    name, _ = unsealed
    fixes = findings(dba, name)
    assert f"CALL cmk.seal_table('{name}')" in fixes.values(), fixes
    assert any("no_index" in detail and fix.endswith("(ssn pg_catalog.cmk_token_ops)") for detail, fix in fixes.items())
