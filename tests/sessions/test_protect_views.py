"""Views on a column that becomes protected: named, or dropped and made again with all that they had."""

import pytest

from protected import Table, make_table, plaintexts
from support import fails_with, unique

DESCRIBED = """
    SELECT c.relname, c.relowner::regrole::text, c.reloptions, c.relpersistence::text,
           ARRAY(SELECT x.grantor::regrole || ' ' || x.grantee::regrole || ' ' || x.privilege_type || ' ' || x.is_grantable
                   FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x ORDER BY 1),
           ARRAY(SELECT a.attname || ' ' || x.grantor::regrole || ' ' || x.grantee::regrole || ' ' || x.privilege_type
                   FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid = c.oid ORDER BY 1),
           ARRAY(SELECT objsubid || ' ' || description FROM pg_description
                  WHERE objoid = c.oid AND classoid = 'pg_class'::regclass ORDER BY 1),
           ARRAY(SELECT adnum || ' ' || pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = c.oid ORDER BY 1),
           ARRAY(SELECT pg_get_triggerdef(oid) || obj_description(oid, 'pg_trigger') FROM pg_trigger
                  WHERE tgrelid = c.oid ORDER BY 1),
           ARRAY(SELECT pg_get_ruledef(oid) || obj_description(oid, 'pg_rewrite') FROM pg_rewrite
                  WHERE ev_class = c.oid AND rulename <> '_RETURN' ORDER BY 1),
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum)
      FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = %s::regnamespace ORDER BY 1"""


@pytest.fixture
def viewed(dba, owner, local_tenant, role):
    """A table with views of every kind, and the roles that have to do with them."""
    table, reader, manager = make_table(owner, [local_tenant()]), role("NOLOGIN"), role("NOLOGIN")
    for sql in (
        f"CREATE VIEW plain AS SELECT id, ssn FROM {table}",
        f"""CREATE VIEW "The View" WITH (security_invoker = true, security_barrier = true)
              AS SELECT id, ssn AS "S N" FROM {table} WHERE ssn <> '' WITH CASCADED CHECK OPTION""",
        # Its oid is lower than that of the view which it is made to use.
        f"""CREATE OR REPLACE VIEW plain AS SELECT t.id, t.ssn FROM {table} t LEFT JOIN "The View" v ON v.id = t.id""",
        f"""CREATE VIEW above AS SELECT v."S N", plain.ssn, count(*) OVER () AS n FROM "The View" v JOIN plain USING (id)""",
        f"""CREATE RECURSIVE VIEW steps (n, t) AS SELECT 1, ssn FROM {table} WHERE id = 1
              UNION ALL SELECT n + 1, t FROM steps WHERE n < 3""",
        f"CREATE VIEW unconcerned AS SELECT id FROM {table}",
        f"CREATE TEMPORARY VIEW passing AS SELECT ssn FROM {table}",
        """COMMENT ON VIEW "The View" IS 'it''s a view'""",
        """COMMENT ON COLUMN "The View"."S N" IS 'secret'""",
        """ALTER VIEW "The View" ALTER id SET DEFAULT 7""",
        f"""GRANT SELECT ON "The View" TO {manager} WITH GRANT OPTION""",
        """GRANT SELECT ("S N") ON "The View" TO PUBLIC""",
        f"""REVOKE DELETE ON "The View" FROM {owner.role}""",
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        "CREATE TRIGGER instead INSTEAD OF INSERT ON above FOR EACH ROW EXECUTE FUNCTION swallow()",
        "COMMENT ON TRIGGER instead ON above IS 'why'",
        "CREATE RULE never AS ON DELETE TO plain DO INSTEAD NOTHING",
        "COMMENT ON RULE never ON plain IS 'because'",
    ):
        owner.run(sql)
    dba.run(f"GRANT {manager} TO {owner.role}")
    owner.run(f"SET ROLE {manager}")
    dba.run(f"GRANT USAGE ON SCHEMA {owner.role} TO {manager}")
    owner.run(f'GRANT SELECT ON {owner.role}."The View" TO {reader}')
    owner.run("RESET ROLE")
    # What new views get by default is none that these have.
    owner.run(f"ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO {reader}")
    return table


def described(owner):
    return owner.all(DESCRIBED, owner.role)


def test_recreated_views_are_what_they_were(owner, viewed):
    before = described(owner)
    assert [row[0] for row in before] == ["The View", "above", "plain", "steps", "unconcerned"]
    viewed.protect(tenant_column="tenant_id", views="recreate")
    assert described(owner) == before
    assert viewed.type_of() == "cmk_text"
    for view, column in (("plain", "ssn"), ('"The View"', '"S N"'), ("steps", "t"), ("passing", "ssn")):
        assert Table(owner, view).type_of(column.strip('"')) == "cmk_text"
    assert [value for (value,) in owner.all("SELECT ssn::text FROM plain ORDER BY id")] == plaintexts()
    assert owner.one("SELECT count(*) FROM steps WHERE t = %s", plaintexts()[0]) == 3
    viewed.unprotect(views="recreate")
    assert described(owner) == before
    assert viewed.type_of() == "text"


def test_without_being_told_so_views_are_refused_by_name(owner, viewed):
    names = ['"The View"', "plain", "steps"]
    lines = [f"view {owner.role}.{name} uses it" for name in names] + ["view passing uses it"]
    assert sorted(viewed.obstacles(tenant_column="tenant_id")) == sorted(lines)
    viewed.protect(tenant_column="tenant_id", views="recreate")
    assert sorted(viewed.obstacles(viewed.unprotect)) == sorted(lines)


@pytest.mark.parametrize(
    "sql,line",
    [
        ("CREATE MATERIALIZED VIEW {n} AS SELECT * FROM above", "materialized view {s}.{n} uses it"),
        ("CREATE FUNCTION {n}() RETURNS SETOF plain LANGUAGE sql AS 'SELECT * FROM plain'",
         "function {s}.{n}() uses view {s}.plain"),
        ("CREATE TABLE {n} (x plain)", "column x of table {s}.{n} uses view {s}.plain"),
        ("CREATE TABLE {n} (id int); CREATE POLICY p ON {n} USING (EXISTS (SELECT FROM plain WHERE plain.id = {n}.id))",
         "policy p on table {s}.{n} uses view {s}.plain"),
    ],
)
def test_what_would_be_lost_with_a_view_is_named(owner, viewed, sql, line):
    name = unique("thing")
    for statement in sql.format(n=name).split(";"):
        owner.run(statement)
    assert viewed.obstacles(tenant_column="tenant_id", views="recreate") == [line.format(n=name, s=owner.role)]


def test_views_of_others_are_named(dba, owner, viewed, role):
    stranger = role("NOLOGIN")
    dba.run(f"GRANT USAGE, CREATE ON SCHEMA {owner.role} TO {stranger}")
    dba.run(f"ALTER VIEW {owner.role}.steps OWNER TO {stranger}")
    assert viewed.obstacles(tenant_column="tenant_id", views="recreate") == [f"you do not own view {owner.role}.steps"]
    # A superuser owns everything, and the view stays the stranger's.
    theirs = Table(dba, f"{owner.role}.{viewed}")
    dba.run(f"DROP VIEW IF EXISTS {owner.role}.passing")
    owner.run("DROP VIEW passing")
    dba.run("SELECT cmk.grant_access('*', 'postgres')")
    try:
        theirs.protect(tenant_column="tenant_id", views="recreate")
    finally:
        dba.run("SELECT cmk.revoke_access('*', 'postgres')")
    assert dba.one("SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", f"{owner.role}.steps") == stranger


def test_a_failure_leaves_the_views_as_they_were(session, owner, viewed):
    before, reader = described(owner), session(owner.role)
    reader.run("BEGIN")
    reader.run("SELECT FROM plain")
    with fails_with("55P03"):
        viewed.protect(tenant_column="tenant_id", views="recreate", lock_timeout="50ms", lock_attempts=2)
    reader.run("COMMIT")
    assert described(owner) == before
