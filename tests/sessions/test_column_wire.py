"""cmk_encrypt.wire_type = text: clients are told what they would be without protection, and get the same."""

import pytest

from wire import FIRST_OF_OURS, describe, execute, of, oids, same, world  # noqa: F401 (fixture)

# t stands for the table. Each holds for a protected table as for its twin of ordinary types.
SELECTS = [
    "SELECT * FROM t ORDER BY id",
    "SELECT ssn, code, photo, doc FROM t WHERE id = 1",
    "TABLE t",
    "SELECT ssn AS a, ssn AS b FROM t ORDER BY a, id",
    "SELECT ssn FROM t ORDER BY ssn DESC NULLS LAST, id",
    "SELECT ssn FROM t ORDER BY id LIMIT 2",
    "SELECT ssn, photo FROM t ORDER BY ssn, id OFFSET 1 LIMIT 2",
    "SELECT ssn FROM t ORDER BY ssn FETCH FIRST 1 ROW WITH TIES",
    "SELECT DISTINCT ssn FROM t ORDER BY ssn",
    "SELECT DISTINCT ssn, tenant_id FROM t ORDER BY ssn OFFSET 1",
    "SELECT DISTINCT ON (ssn) ssn, id FROM t ORDER BY ssn, id",
    "SELECT ssn, count(*) FROM t GROUP BY ssn ORDER BY ssn",
    "SELECT ssn, count(*) FROM t GROUP BY ROLLUP (ssn) ORDER BY ssn, count(*)",
    "SELECT ssn FROM t GROUP BY ssn HAVING count(*) > 1",
    "SELECT ssn, row_number() OVER (PARTITION BY ssn ORDER BY id) FROM t ORDER BY ssn, 2",
    "SELECT ssn FROM t WHERE id < 3 UNION SELECT ssn FROM t WHERE id > 2 ORDER BY 1",
    "SELECT ssn FROM t UNION ALL SELECT ssn FROM t ORDER BY ssn LIMIT 3",
    "SELECT ssn, code FROM t INTERSECT SELECT ssn, code FROM t ORDER BY code",
    "SELECT ssn FROM t EXCEPT SELECT ssn FROM t WHERE id = 1",
    "WITH q AS (SELECT ssn, photo FROM t WHERE id < 3) SELECT * FROM q ORDER BY ssn",
    "WITH RECURSIVE q AS (SELECT ssn, 1 AS n FROM t WHERE id = 1 UNION ALL SELECT ssn, n + 1 FROM q WHERE n < 3)"
    " SELECT * FROM q ORDER BY n",
    "SELECT * FROM (SELECT id, ssn FROM t ORDER BY ssn LIMIT 2) q ORDER BY id",
    "SELECT (SELECT ssn FROM t WHERE id = 1), EXISTS (SELECT FROM t WHERE ssn = 'one')",
    "SELECT a.ssn, b.doc FROM t a JOIN t b ON a.ssn = b.ssn AND a.id < b.id",
    "SELECT a.id, b.ssn FROM t a LEFT JOIN t b ON b.id = a.id + 4 ORDER BY a.id",
    "SELECT ssn FROM t WHERE ssn = 'one' ORDER BY id FOR UPDATE",
    "SELECT ssn FROM t ORDER BY id OFFSET 1 LIMIT 1 FOR UPDATE SKIP LOCKED",
    "SELECT coalesce(ssn, 'none'), upper(ssn), ssn || '!' FROM t ORDER BY id",
    "SELECT CASE WHEN id = 1 THEN ssn END, nullif(ssn, 'two') FROM t ORDER BY id",
    "SELECT array_agg(ssn ORDER BY id), ARRAY[min(code)] FROM t",
    "SELECT ARRAY[code, code], ARRAY[NULL, ssn] FROM t ORDER BY id",
    "SELECT array_agg(photo ORDER BY id), array_agg(doc ORDER BY id) FROM t",
    "SELECT ARRAY[[ssn, ssn], [ssn, ssn]], ARRAY[ssn]::varchar[] FROM t WHERE id = 1",
    "SELECT unnest(array_agg(ssn ORDER BY id)) FROM t",
    "SELECT min(ssn), string_agg(ssn, ',' ORDER BY id), count(DISTINCT ssn) FROM t",
    "SELECT doc -> 'a', doc ->> 'a', photo || 'x'::bytea FROM t WHERE id = 1",
    "VALUES ((SELECT ssn FROM t WHERE id = 1), 1)",
    "SELECT * FROM t_view ORDER BY id",
    "SELECT * FROM t_rows() ORDER BY id",
    "SELECT t_ssn(1) AS a, t_ssn(2) AS b FROM t WHERE id = 1",
    "SELECT max(id) FROM t",
]
# These also take parameters.
PARAMETERS = [
    ("SELECT id FROM t WHERE ssn = $1", ["one"]),
    ("SELECT ssn FROM t WHERE ssn = $1 AND ssn = $1 AND id > $2 ORDER BY id", ["one", "0"]),
    ("SELECT ssn FROM t WHERE ssn IN ($1, $2) ORDER BY id", ["one", "two"]),
    ("SELECT ssn FROM t WHERE ssn = ANY ($1) ORDER BY id", ["{one,two}"]),
    ("SELECT ssn FROM t WHERE lower(ssn) LIKE $1 ORDER BY id", ["o%"]),
    ("SELECT ssn FROM t ORDER BY id OFFSET $1", ["3"]),
    ("SELECT $1, ssn FROM t WHERE id = 1", ["x"]),
]
WRITES = [
    ("INSERT INTO t (id, tenant_id, ssn, photo, doc) VALUES (10, '{tenant}', $1, $2, $3)",
     ["new", "\\x00c1", '{"b": 1}']),
    ("INSERT INTO t (id, tenant_id, ssn) VALUES (11, '{tenant}', $1), (12, '{tenant}', $2) RETURNING ssn, id",
     ["eleven", "twelve"]),
    ("INSERT INTO t (id, tenant_id, ssn) VALUES (1, '{tenant}', $1)"
     " ON CONFLICT (id) DO UPDATE SET ssn = EXCLUDED.ssn RETURNING *", ["upserted"]),
    ("INSERT INTO t (id, tenant_id, ssn) SELECT id + 20, tenant_id, ssn FROM t WHERE ssn = $1 RETURNING ssn", ["one"]),
    ("UPDATE t SET ssn = $1, photo = $2, doc = $3 WHERE id = $4 RETURNING ssn, photo, doc",
     ["changed", "\\x01", "[1]", "1"]),
    ("UPDATE t SET ssn = $1 FROM t AS o WHERE o.id = t.id AND o.ssn = $2 RETURNING t.ssn, o.ssn",
     ["changed", "one"]),
    ("DELETE FROM t WHERE ssn = $1 RETURNING ssn", ["two"]),
    ("WITH w AS (INSERT INTO t (id, tenant_id, ssn) VALUES (30, '{tenant}', $1) RETURNING ssn) SELECT ssn FROM w",
     ["thirty"]),
]

STATEMENTS = [(sql, []) for sql in SELECTS] + PARAMETERS + WRITES


@pytest.mark.parametrize("sql, parameters", STATEMENTS)
def test_a_statement_is_described_and_answered_as_without_protection(world, sql, parameters):
    """As of a table without protection; and without the hook the rows are the same."""
    wire, native, plain = (world.connect(kind) for kind in ("text", "native", "native"))
    ours, twins = of(sql, world.name, world.tenant), of(sql, world.twin, world.tenant)
    expected = describe(plain, twins)
    assert describe(wire, ours) == expected
    seen = {}
    for session, statement in ((wire, ours), (native, ours), (plain, twins)):
        for binary in (False, True):
            session.run("BEGIN")
            seen[session, binary] = execute(session, statement, parameters, binary)
            session.run("ROLLBACK")
    ordered = "ORDER BY" in sql
    for binary in (False, True):
        assert seen[wire, binary][0] == seen[plain, binary][0]
        assert same(seen[wire, binary][1], seen[plain, binary][1], ordered)
    assert same(seen[native, False][1], seen[plain, False][1], ordered)


def test_without_the_hook_clients_are_told_our_types(world):
    """Else the test above would say nothing."""
    native = world.connect("native")
    told = {oid for sql, _ in STATEMENTS for oid in oids(describe(native, of(sql, world.name, world.tenant)))}
    ours = {oid for (oid,) in world.connect().all(
        "SELECT unnest(ARRAY['cmk_text', 'cmk_bytea', 'cmk_jsonb', 'cmk_text[]', 'cmk_bytea[]', 'cmk_jsonb[]']"
        "::regtype[])::oid")}
    assert ours <= told and min(ours) >= FIRST_OF_OURS
