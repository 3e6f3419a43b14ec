"""Protected bytea and jsonb: statements as on the plain types, and the rules of output, input and dumps."""

import psycopg
import pytest

from columns import Client, app, armor, dba, envelopes, opened, reader, tags, unchanged, world  # noqa: F401 (fixtures)
from dumps import client, run_script
from support import fails, unique
from test_column_statements import outcome

SHAPE = "id int PRIMARY KEY, tenant_id text, b bytea, j jsonb"
DOCUMENTS = [
    '{"a": 1, "b": [1, 2], "secret": "canary"}', '{"a": 2, "b": {"c": "x"}}', '{"a": 1}', "[]", "null", '"text"', "7",
    "true", '{"a": 1.0}',
]
BYTES = [b"\x01\x02", b"", b"\x00", b"canary", b"\xc1\x02" + bytes(100), b"\\x00", b"\xff" * 300, b"canary",
         b"\x01\x02"]

STATEMENTS = [
    # jsonb
    "SELECT j -> 'a', j ->> 'a', j #> '{{b,0}}', j #>> '{{b,c}}' FROM {t}",
    "SELECT id FROM {t} WHERE j ->> 'a' = '1'", "SELECT id FROM {t} WHERE j -> 'a' = '1'",
    "SELECT id FROM {t} WHERE (j -> 'a')::int = 1", "SELECT j -> 0 FROM {t}",
    "SELECT id FROM {t} WHERE j @> '{{\"a\": 1}}'", "SELECT id FROM {t} WHERE '{{\"a\": 1}}' <@ j",
    "SELECT id FROM {t} WHERE j ? 'a'", "SELECT id FROM {t} WHERE j ?| ARRAY['a', 'z'] OR j ?& ARRAY['a', 'b']",
    "SELECT j || '{{\"n\": 1}}' FROM {t}", "SELECT '{{\"n\": 1}}' || j FROM {t}",
    "SELECT j || '{{\"n\": 1}}'::jsonb, j || j FROM {t}", "SELECT j - 'a' FROM {t} WHERE id < 4",
    "SELECT j - ARRAY['a', 'b'], j #- '{{b,0}}' FROM {t} WHERE id < 4",
    "SELECT id FROM {t} WHERE j = '{{\"a\": 1}}'",
    "SELECT id FROM {t} WHERE j = '{{\"a\":1}}'::jsonb OR j <> '[]'",
    "SELECT id FROM {t} WHERE j IN ('[]', '7')", "SELECT id FROM {t} WHERE j = ANY (ARRAY['[]', '7']::jsonb[])",
    "SELECT id FROM {t} WHERE j > '1' ORDER BY id", "SELECT id FROM {t} WHERE j IS DISTINCT FROM 'null'",
    "SELECT jsonb_typeof(j), jsonb_array_length(coalesce(j -> 'b', '[]')) FROM {t} WHERE jsonb_typeof(j"
    " -> 'b') = 'array'",
    "SELECT jsonb_path_query(j, '$.b[*]') FROM {t}", "SELECT id FROM {t} WHERE j @? '$.a' OR j @@ '$.a == 2'",
    "SELECT id, key FROM {t}, jsonb_object_keys(j) key WHERE id < 4",
    "SELECT id, e FROM {t}, jsonb_array_elements(j -> 'b') e WHERE id = 1",
    "SELECT id, x.* FROM {t}, jsonb_to_record(j) AS x(a int, secret text) WHERE id < 4",
    "SELECT jsonb_set(j, '{{a}}', '5'), jsonb_strip_nulls(j), jsonb_pretty(j) FROM {t} WHERE id < 4",
    "SELECT j::text, length(j::text) FROM {t}", "SELECT id FROM {t} ORDER BY j, id",
    "SELECT id FROM {t} ORDER BY j DESC, id", "SELECT j, count(*) FROM {t} GROUP BY j",
    "SELECT DISTINCT j FROM {t}", "SELECT count(DISTINCT j) FROM {t}",
    "SELECT a.id, b.id FROM {t} a JOIN {t} b USING (j)", "SELECT j FROM {t} UNION SELECT '[]'",
    "SELECT j FROM {t} EXCEPT SELECT '[]'::jsonb",
    "SELECT coalesce(j, '[]'), coalesce(j, '[]'::jsonb), nullif(j, '[]') FROM {t}",
    "SELECT CASE WHEN id = 1 THEN j ELSE '[]' END FROM {t}",
    "SELECT CASE WHEN id = 1 THEN '[]'::jsonb ELSE j END FROM {t}", "SELECT jsonb_agg(j ORDER BY id) FROM {t}",
    "SELECT to_jsonb(j), jsonb_build_object('j', j) FROM {t}", "SELECT row_to_json(t) FROM {t} t",
    "SELECT array_agg(j ORDER BY id) FROM {t}", "SELECT j::json ->> 'a' FROM {t}",
    "UPDATE {t} SET j = j || '{{\"n\": 1}}'::jsonb WHERE id < 4 RETURNING j",
    "UPDATE {t} SET j = jsonb_set(j, '{{a}}', '9') WHERE j @> '{{\"a\": 1}}' RETURNING id, j",
    "INSERT INTO {t} VALUES (90, 'acme', NULL, '{{ \"z\" : 1 }}') RETURNING j",
    "INSERT INTO {t} SELECT id + 100, tenant_id, b, j FROM {t} RETURNING j, b",
    "DELETE FROM {t} WHERE j ->> 'a' = '1' RETURNING j",
    "INSERT INTO {t} VALUES (90, 'acme', NULL, '[1]'::json)",
    "INSERT INTO {t} SELECT 90, 'acme', NULL, jsonb_build_object('q', 1) RETURNING j",
    # bytea
    "SELECT length(b), octet_length(b), md5(b), sha256(b) FROM {t}",
    "SELECT encode(b, 'hex'), encode(b, 'base64') FROM {t}",
    "SELECT get_byte(b, 0) FROM {t} WHERE length(b) > 0",
    "SELECT substring(b from 1 for 2), substr(b, 2), position('\\x00'::bytea in b) FROM {t}",
    "SELECT b || '\\x01' FROM {t}", "SELECT b || '\\x01'::bytea, '\\x01'::bytea || b, b || b FROM {t}",
    "SELECT id FROM {t} WHERE b = '\\x0102'", "SELECT id FROM {t} WHERE b = '\\x0102'::bytea OR b <> '\\x'",
    "SELECT id FROM {t} WHERE b < '\\x63' ORDER BY id", "SELECT id FROM {t} WHERE b IN ('\\x', '\\x00')",
    "SELECT id FROM {t} WHERE b = ANY (ARRAY['\\x00'::bytea])",
    "SELECT id FROM {t} WHERE b LIKE '\\\\x63%'::bytea", "SELECT b::text FROM {t}",
    "SELECT id FROM {t} ORDER BY b, id", "SELECT id FROM {t} ORDER BY b DESC NULLS FIRST, id",
    "SELECT b, count(*) FROM {t} GROUP BY b", "SELECT DISTINCT b FROM {t}", "SELECT count(DISTINCT b) FROM {t}",
    "SELECT a.id, b.id FROM {t} a JOIN {t} b USING (b)", "SELECT b FROM {t} UNION SELECT '\\x00'",
    "SELECT coalesce(b, '\\x00'), coalesce(b, '\\x00'::bytea), nullif(b, '\\x00') FROM {t}",
    "SELECT CASE WHEN id = 1 THEN b ELSE '\\x' END FROM {t}",
    "SELECT string_agg(b, '\\x2c'::bytea ORDER BY id) FROM {t}",
    "SELECT convert_from(b, 'UTF8') FROM {t} WHERE id IN (1, 4)",
    "UPDATE {t} SET b = b || '\\x01'::bytea RETURNING b",
    "UPDATE {t} SET b = '\\x05' WHERE b = '\\x00' RETURNING id, b",
    "INSERT INTO {t} VALUES (90, 'acme', 'a\\\\000b', NULL) RETURNING b",
    "INSERT INTO {t} VALUES (90, 'acme', decode('c102', 'hex'), NULL) RETURNING b",
    "DELETE FROM {t} WHERE length(b) = 0 RETURNING id",
    # both
    "SELECT * FROM {t} ORDER BY id", "SELECT t FROM {t} t",
    "SELECT (b, j) = (b, j), (id, b, j) < (4, b, j) FROM {t}",
]


@pytest.fixture(scope="module")
def t(world):
    rows = [(id, "acme" if id % 2 else "bolt", b, j) for id, (b, j) in enumerate(zip(BYTES, DOCUMENTS), 1)]
    return world.twins("k", [*rows, (20, "acme", None, None), (21, "bolt", None, DOCUMENTS[2])], shape=SHAPE,
                       columns=("b", "j"))


def differences(user, names, statements):
    found = []
    for template in statements:
        writes = not template.startswith("SELECT")
        sqls = [template.format(t=name) for name in names]
        seen, expected = (outcome(user, sql, left=name if writes else None) for sql, name in zip(sqls, names))
        assert expected[0] != "error", (sqls[1], expected)
        if seen != expected:
            found.append(f"{sqls[0]}\n    gives        {seen}\n    on the plain {expected}")
    return found


@pytest.mark.parametrize("settings",
                         [[], ["enable_hashagg = off", "enable_hashjoin = off"], ["enable_sort = off"]], ids=str)
def test_statements_give_what_they_give_on_the_plain_types(reader, t, settings):
    for setting in settings:
        reader.run(f"SET {setting}")
    found = differences(reader, t, STATEMENTS)
    assert not found, f"{len(found)} of {len(STATEMENTS)}:\n" + "\n".join(found)


@pytest.mark.parametrize("kind, column, value", [("bytea", "b", b"\xc1\x02\x00"), ("jsonb", "j", '{"a": [1, 2]}')])
def test_parameters_of_their_types(world, reader, kind, column, value):
    table = world.make(unique("k"), shape=SHAPE, columns=("b", "j"))
    for id, cast in enumerate((f"::{kind}", "", f"::cmk_{kind}")):
        with reader.counts(seals=1):
            reader.run(f"INSERT INTO {table} (id, tenant_id, {column}) VALUES ({id}, 'acme', %s{cast})", value)
    assert reader.all(f"SELECT {column}::{kind} FROM {table}") == [(value if kind == "bytea" else {"a": [1, 2]},)] * 3
    assert reader.one(f"SELECT count(*) FROM {table} WHERE {column} = %s::{kind}", value) == 3


def test_what_is_sealed_is_the_bytes_and_the_text_of_the_document(world, dba, t):
    name = t[0]
    for column, of in (("b", "b::bytea"), ("j", "convert_to(j::jsonb::text, 'UTF8')")):
        rows = dba.all(f"SELECT tenant_id, cmk.envelope({column}), {of} FROM {name} WHERE {column} IS NOT NULL")
        for tenant, envelope, clear in rows:
            assert (len(envelope), envelope[:2]) == (74 + len(clear), b"\xc1\x02")
            assert envelope[18:34] == tags(tenant, f"k.{column}")


def test_writes_are_counted_as_for_text(world, dba, app):
    table = world.make(unique("k"), shape=SHAPE, columns=("b", "j"))
    with app.counts(seals=2):
        app.run(f"INSERT INTO {table} VALUES (1, 'acme', '\\xc102', '{{}}')")
    with app.counts():
        app.run(f"UPDATE {table} SET b = b, j = j, id = 2")
    with app.counts(2, 2):
        app.run(f"UPDATE {table} SET tenant_id = 'bolt'")
    with unchanged(dba, table, ("b", "j")), fails("42501", "no_grant", "bolt"):
        world.connect("ro").run(f"UPDATE {table} SET tenant_id = 'acme'")
    with unchanged(dba, table, ("b", "j")), fails("23514", "not_sealed"):
        dba.run(f'ALTER TABLE {table} DISABLE TRIGGER "~cmk_seal"')
        app.run(f"UPDATE {table} SET b = '\\x01'")


def test_output_and_input_follow_the_rules_of_text(world, dba, app, reader, t):
    name = t[0]
    given = {column: armor(envelopes(dba, name, column)[1]) for column in ("b", "j")}
    with app.counts():
        assert app.row(f"SELECT b, j FROM {name} WHERE id = 1") == (given["b"], given["j"])
    assert reader.one(f"SELECT j ->> 'secret' FROM {name} WHERE id = 1") == "canary"
    for session in (app, reader):
        for sql in (f"COPY {name} TO STDOUT",
                    f"COPY (SELECT format('%s%s', b, j), to_jsonb(t) FROM {name} t) TO STDOUT"):
            exported = session.copy_out(sql)
            assert exported.count(b"cmk1:") >= 17
            assert b"canary" not in exported and b"canary".hex().encode() not in exported
    table = world.make(unique("k"), shape=SHAPE, columns=("b", "j"))
    insert = f"INSERT INTO {table} (id, tenant_id, {{}}) VALUES (1, 'acme', '{{}}')"
    # Armor is no jsonb, so it can only be meant as an envelope. As bytea it is a text in escape format.
    with fails("42501", "armor_refused"):
        app.run(insert.format("b", given["b"]))
    with pytest.raises(psycopg.Error) as caught:
        app.run(insert.format("j", given["j"]))
    assert caught.value.sqlstate in ("42501", "22P02")
    assert "canary" not in str(caught.value)


def test_a_cast_to_text_opens_whatever_the_output_is(world, app, t):
    """As that of cmk_text does."""
    assert app.row(f"SELECT j::text, b::text FROM {t[0]} WHERE id = 3") == (DOCUMENTS[2], "\\x00")
    table = world.make(unique("k"), shape=f"{SHAPE}, v text", columns=("b", "j"))
    app.run(f"INSERT INTO {table} VALUES (1, 'acme', '\\x01', '[1]')")
    app.run(f"UPDATE {table} SET v = j::text || b::text")
    assert app.one(f"SELECT v FROM {table}") == "[1]\\x01"


def test_is_sealed_and_envelope(world, dba, reader, t):
    assert dba.row(f"SELECT cmk.is_sealed(b), cmk.is_sealed(j) FROM {t[0]} WHERE id = 1") == (True, True)
    assert dba.one("SELECT cmk.is_sealed('\\x01'::bytea::cmk_bytea)") is False
    assert dba.one("SELECT cmk.is_sealed('{}'::jsonb::cmk_jsonb)") is False
    assert dba.one("SELECT cmk.envelope('\\xc102'::bytea::cmk_bytea)") is None


@pytest.mark.parametrize("options", [[], ["--inserts"]], ids=["copy", "inserts"])
def test_dumps_hold_ciphertext_and_restore(world, server, t, database, options):
    name, target = t[0], database(extension=False)
    dump = client(server, "pg_dump", *options, "--exclude-table=*_text", world.dbname)
    assert b"canary" not in dump and b"canary".hex().encode() not in dump and dump.count(b"cmk1:") >= 17
    run_script(server, target, dump)
    restored = Client(server.connect(target))
    for column in ("b", "j"):
        assert envelopes(restored, name, column) == envelopes(world.dba, name, column)
    restored.close()


@pytest.mark.parametrize("sql",
                         ["CREATE INDEX ON {t} (b)", "CREATE INDEX ON {t} USING hash (j)",
                          "CREATE INDEX ON {t} (j)", "ALTER TABLE {t} ADD UNIQUE (b)"])
def test_no_index_is_built_in_the_order_of_the_plaintext(dba, t, sql):
    with fails("42809", "index_refused"):
        dba.run(sql.format(t=t[0]))
