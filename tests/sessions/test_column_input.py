"""What counts as an envelope on its way in, and what becomes of forged ones."""

import base64

import psycopg
import pytest

from columns import (  # noqa: F401 (fixtures)
    TRIGGER, Text, Unknown, app, armor, dba, envelopes, opened, plain, protect, reader, tags, unarmor,
    unchanged, world,
)
from support import fails, fails_with, flip, unique

VALUE = "the value"


@pytest.fixture
def u(world):
    """Row 1 holds VALUE, row 2 the same of the other tenant."""
    return world.make(unique("u"), [(1, "acme", VALUE, VALUE), (2, "bolt", VALUE, None)])


@pytest.fixture
def given(dba, u):
    """Well-formed armor of row 1."""
    return armor(envelopes(dba, u)[1])


def malformed(text):
    """Texts that begin as armor does, and are none."""
    envelope = unarmor(text)
    swapped = text[:-1] + ("A" if text[-1] != "A" else "B")
    return [
        "cmk1:", "cmk1", "cmk1: ", text + "=", text + "==", text + " ", text + "\n", text[:-1], text[:40], text + "A",
        swapped, text.replace("cmk1:", "CMK1:"), text.replace("cmk1:", "cmk2:"), f" {text}",
        "cmk1:" + base64.urlsafe_b64encode(b"\xff" * 90).decode(), "cmk1:" + envelope.hex(),
        "cmk1:" + base64.b64encode(envelope).decode().rstrip("="),  # no checksum
        armor(b"\xc1\x7f" + envelope[2:]),  # a probe
        armor(b"\xc1\x01" + envelope[2:]), armor(b"\xc1\x04" + envelope[2:]), armor(b"\xc2" + envelope[1:]),
        armor(envelope[:73]), armor(b"\xc1\x03" + envelope[2:60]), armor(b""), armor(b"\xc1"),
    ]


def test_armor_is_what_the_format_says(dba, world, u, given):
    assert world.connect("nobody").one(f"SELECT ssn FROM {u} WHERE id = 1") == given
    assert unarmor(given)[:2] == b"\xc1\x02" and unarmor(given)[18:34] == tags("acme", f"{u}.ssn")


# Who, with which setting, what: stored as envelope, sealed as it stands, without its prefix, or refused.

ENVELOPES = {"well-formed": "envelope", "malformed": "text", "escaped": "unescaped"}
TEXTS = {"well-formed": "text", "malformed": "text", "escaped": "text"}
REFUSED = {**TEXTS, "well-formed": "refused"}
STRICT = {**ENVELOPES, "malformed": "malformed"}
# A restorer is a superuser in a session with row_security off, which pg_dump's scripts set.
RULES = {
    ("app", "auto"): REFUSED, ("app", "text"): TEXTS, ("app", "envelope"): STRICT,
    ("postgres", "auto"): REFUSED, ("postgres", "text"): TEXTS, ("postgres", "envelope"): STRICT,
    ("app without row security", "auto"): REFUSED, ("app without row security", "envelope"): STRICT,
    ("restorer", "auto"): ENVELOPES, ("restorer", "text"): TEXTS, ("restorer", "envelope"): STRICT,
    ("restorer as app", "auto"): REFUSED, ("app as restorer", "auto"): REFUSED,
}


def connect(world, who, **settings):
    """A session of one of the kinds above."""
    session = world.connect("app" if who.startswith("app") else "postgres", **settings)
    if who in ("app as restorer", "restorer as app"):
        session.run(f"SET ROLE {world.roles['super' if who.endswith('restorer') else 'app']}")
    if "restorer" in who or "without" in who:
        session.run("SET row_security = off")
    return session


def ways(session, u):
    """Each way by which a text reaches the input function: literal, parameter, COPY, binary."""
    def literal(id, value):
        quoted = value.replace("'", "''")
        session.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES ({id}, 'acme', '{quoted}')")

    def parameter(id, value):
        session.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (%s, 'acme', %s)", id, Unknown(value))

    def update(id, value):
        session.run(f"INSERT INTO {u} (id, tenant_id) VALUES (%s, 'acme')", id)
        try:
            session.run(f"UPDATE {u} SET ssn = %s WHERE id = %s", value, id)
        except psycopg.Error:
            session.run(f"DELETE FROM {u} WHERE id = %s", id)
            raise

    def record(id, value):
        session.run(f"INSERT INTO {u} SELECT * FROM jsonb_populate_record(NULL::{u}, jsonb_build_object("
                    "'id', %s::int, 'tenant_id', 'acme', 'ssn', %s::text))", id, value)

    def copied(id, value):
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
        session.copy_in(f"COPY {u} (id, tenant_id, ssn) FROM STDIN", f"{id}\tacme\t{escaped}\n")

    def binary(id, value):
        sql = f"COPY {u} (id, tenant_id, ssn) FROM STDIN (FORMAT binary)"
        with session.connection.cursor() as cursor, cursor.copy(sql) as copy:
            copy.set_types(["int4", "text", "text"])
            copy.write_row((id, "acme", value))

    return [literal, parameter, update, record, copied, binary]


@pytest.mark.parametrize("role, setting", RULES, ids=[" ".join(rule) for rule in RULES])
def test_what_counts_as_an_envelope(world, dba, reader, u, given, role, setting):
    session = connect(world, role, input=setting)
    rule, envelope = RULES[role, setting], unarmor(given)
    id = 100
    for kind, value in (("well-formed", given), ("malformed", "cmk1:bm90IG9uZQ"), ("escaped", f"cmk0:{given}"),
                        ("escaped", "cmk0:"), ("escaped", "cmk0:plain"), ("plain", "plain"), ("plain", "x cmk1:")):
        for way in ways(session, u):
            id += 1
            case = f"{kind} by {way.__name__}: {value[:12]}"
            expected = rule.get(kind, "text")
            if expected == "refused":
                with fails("42501", "armor_refused"):
                    way(id, value)
                assert dba.one(f"SELECT count(*) FROM {u} WHERE id = {id}") == 0, case
                continue
            if expected == "malformed":
                with fails("22P02", "armor_malformed"):
                    way(id, value)
                continue
            way(id, value)
            stored = dba.one(f"SELECT cmk.envelope(ssn) FROM {u} WHERE id = {id}")
            shown = reader.one(f"SELECT ssn FROM {u} WHERE id = {id}")
            assert (stored == envelope) == (expected == "envelope"), case
            wanted = {"envelope": VALUE, "text": value, "unescaped": value.removeprefix("cmk0:")}[expected]
            assert shown == wanted, case


@pytest.mark.parametrize("role", ["app", "postgres"])
def test_what_only_looks_like_armor_is_a_value_like_any_other(world, reader, u, given, role):
    session, strict = world.connect(role), world.connect(role, input="envelope")
    for id, value in enumerate(malformed(given), 100):
        session.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (%s, 'acme', %s)", id, value)
        assert reader.one(f"SELECT ssn FROM {u} WHERE id = %s", id) == value
        if value.startswith("cmk1:"):
            with fails("22P02", "armor_malformed"):
                strict.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (99, 'acme', %s)", value)


@pytest.mark.parametrize("expression", ["%s", "%s::text", "%s::varchar"])
def test_armor_that_comes_as_text_is_not_sealed_twice_by_accident(world, dba, u, given, expression):
    """A value of type text doesn't pass the input function: the trigger notices."""
    session = world.connect("app")
    sql = f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (100, 'acme', {expression})"
    with unchanged(dba, u), fails("42501", "armor_refused"):
        session.run(sql, Text(given))
    session.run("SET cmk_encrypt.input = text")
    session.run(sql, Text(given))
    assert world.reader().one(f"SELECT ssn FROM {u} WHERE id = 100") == given


def test_values_that_look_like_armor_survive_a_copy_out_and_in(world, dba, reader, u, given):
    values = [given, f"cmk0:{given}", "cmk0:", "cmk0:cmk0:x", "cmk1:", "cmk1:x", "cmk2:", "cmk"]
    writer = world.connect("app", input="text")
    for id, value in enumerate(values, 10):
        writer.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (%s, 'acme', %s)", id, value)
    again = world.make(unique("again"), label=f"{u}.ssn", columns=("ssn",))
    for source in (world.connect(), world.connect(output="plaintext")):
        dba.run(f"TRUNCATE {again}")
        restorer = connect(world, "restorer")
        data = source.copy_out(f"COPY (SELECT id, tenant_id, ssn, NULL FROM {u}) TO STDOUT")
        restorer.copy_in(f"COPY {again} FROM STDIN", data)
        assert envelopes(dba, again) == envelopes(dba, u)
        assert list(plain(reader, again).values())[2:] == values


def test_plain_values_of_a_half_sealed_table_survive_too(world, dba, reader, given):
    """A plain value is printed with the escape prefix, so that it is not taken for an envelope."""
    values = [given, f"cmk0:{given}", "cmk0:", "cmk1:x", "plain", ""]
    name = unique("half")
    dba.run(f"CREATE TABLE {name} (id int, tenant_id text, ssn text)")
    world.fill(name, [(id, "acme", value) for id, value in enumerate(values)])
    protect(dba, name, "ssn", rewrite=False)
    dba.run(f"GRANT ALL ON {name} TO PUBLIC")
    printed = [ssn for (ssn,) in dba.all(f"SELECT ssn FROM {name} ORDER BY id")]
    assert printed == [f"cmk0:{v}" if v.startswith(("cmk1:", "cmk0:")) else v for v in values]
    assert list(plain(reader, name).values()) == values
    data = dba.copy_out(f"COPY {name} TO STDOUT")
    dba.run(f"TRUNCATE {name}")
    connect(world, "restorer").copy_in(f"COPY {name} FROM STDIN", data)
    assert list(plain(reader, name).values()) == values
    assert dba.one(f"SELECT count(*) FROM {name} WHERE NOT cmk.is_sealed(ssn)") == 0


# Forged, foreign, damaged


def test_an_envelope_of_another_place_is_resealed_with_both_grants(world, dba, reader, u):
    foreign = {"tenant": armor(envelopes(dba, u)[2]), "column": armor(envelopes(dba, u, "note")[1])}
    app, ro = world.connect("app", input="envelope"), world.connect("ro", input="envelope")
    for id, value in enumerate(foreign.values(), 10):
        with app.counts(1, 1):
            app.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES ({id}, 'acme', '{value}')")
        assert reader.one(f"SELECT ssn FROM {u} WHERE id = {id}") == VALUE
        assert envelopes(dba, u)[id][18:34] == tags("acme", f"{u}.ssn")
    for sql in (f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (99, 'acme', %s)",
                f"UPDATE {u} SET ssn = %s WHERE id = 1"):
        with unchanged(dba, u), fails("42501", "no_grant", "bolt"):
            ro.run(sql, foreign["tenant"])


def writes(u):
    yield lambda session, value: session.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (99, 'acme', %s)", value)
    yield lambda session, value: session.run(f"UPDATE {u} SET ssn = %s WHERE id = 1", value)
    yield lambda session, value: session.copy_in(f"COPY {u} (id, tenant_id, ssn) FROM STDIN", f"99\tacme\t{value}\n")


def test_each_flipped_bit_is_noticed(world, dba, u, given):
    """Suite and magic make it no envelope; tags and data key of somebody else; the rest is not authentic."""
    session, envelope = world.connect("app", input="envelope"), unarmor(given)
    with unchanged(dba, u):
        for byte in range(len(envelope)):
            damaged = armor(flip(envelope, 8 * byte + byte % 8))
            for write in writes(u):
                with pytest.raises(psycopg.Error) as caught:
                    write(session, damaged)
                seen = caught.value.sqlstate
                expected = "22P02" if byte < 2 else "39000"
                assert seen == expected, (byte, caught.value, caught.value.diag.message_detail)


def forged(u, suite):
    token = bytes(20) if suite == 3 else b""
    return armor(bytes([0xC1, suite]) + bytes(16) + tags("acme", f"{u}.ssn") + token + bytes(24 + 20 + 16))


@pytest.mark.parametrize("suite", [2, 3])
def test_forged_envelopes_are_refused(world, dba, u, suite):
    session = world.connect("app", input="envelope")
    for write in writes(u):
        with unchanged(dba, u), fails("39000", "unknown_data_key"):
            write(session, forged(u, suite))


def test_a_superuser_restores_what_no_key_is_there_for_but_nothing_damaged(world, dba, u, given):
    """The registry may come after the data."""
    restorer = connect(world, "restorer")
    for write in writes(u):
        with unchanged(dba, u), fails("39000", "not_authentic", "acme"):
            write(restorer, armor(flip(unarmor(given), 8 * 75)))
    restorer.run(f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (99, 'acme', %s)", forged(u, 2))
    with fails("39000", "unknown_data_key"):
        world.reader().run(f"SELECT ssn FROM {u}")


def test_a_row_of_a_dark_tenant_lets_no_damaged_row_of_another_pass(world, dba, app, u, given):
    """In one statement. What is of the dark tenant can't be authenticated, and is stored as it is."""
    world.make("given.copy", columns=("ssn",), label="u.ssn")
    dark = armor(dba.one("SELECT cmk.envelope(ssn) FROM given.dim WHERE tenant_id = 'dark'"))
    acme = armor(dba.one("SELECT cmk.envelope(ssn) FROM given.dim WHERE tenant_id = 'acme'"))
    damaged = armor(flip(unarmor(acme), 8 * 60))
    app.run("SET cmk_encrypt.input = envelope")
    with fails("39000", "not_authentic", "acme"):
        app.copy_in("COPY given.copy FROM STDIN", f"1\tdark\t{dark}\t\\N\n2\tacme\t{damaged}\t\\N\n")
    app.copy_in("COPY given.copy FROM STDIN", f"1\tdark\t{dark}\t\\N\n2\tacme\t{acme}\t\\N\n")
    assert set(envelopes(dba, "given.copy").values()) == {unarmor(dark), unarmor(acme)}


def test_no_cast_leads_bytes_past_the_input_function(dba, world, u, given):
    envelope = unarmor(given)
    assert dba.row("SELECT cmk.is_sealed(v), v::text FROM (SELECT %b::bytea::cmk_text AS v) q", envelope) == (
        False, "\\x" + envelope.hex(),
    )
    with fails_with("22021"):
        dba.run("SELECT convert_from(%s, 'UTF8')::cmk_text", envelope)
    session = world.connect("app", input="envelope")
    with fails_with("22021"), session.connection.cursor() as cursor:
        with cursor.copy(f"COPY {u} (id, tenant_id, ssn) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "bytea"])
            copy.write_row((99, "acme", envelope))


def test_in_replica_mode_and_without_the_trigger_a_foreign_envelope_is_refused(dba, u):
    foreign = [armor(envelopes(dba, u)[2]), armor(envelopes(dba, u, "note")[1])]
    insert = f"INSERT INTO {u} (id, tenant_id, ssn) VALUES (99, 'acme', %s)"
    dba.run("SET cmk_encrypt.input = envelope")
    dba.run("SET session_replication_role = replica")
    for value in foreign:
        with fails("23514", "foreign_envelope"):
            dba.run(insert, value)
    dba.run("RESET session_replication_role")
    dba.run(f'ALTER TABLE {u} DISABLE TRIGGER "{TRIGGER}"')
    for value in foreign:
        with fails("23514", "foreign_envelope"):
            dba.run(insert, value)


def test_values_of_the_setting(dba):
    dba.stats()  # loads the library
    for wrong in ("nonsense", "", "off"):
        with fails_with("22023"):
            dba.run(f"SET cmk_encrypt.input = '{wrong}'")
    assert dba.one("SHOW cmk_encrypt.input") == "auto"


def test_inspect_knows_a_columns_envelope(dba, u):
    envelope = envelopes(dba, u)[1]
    assert dba.row("SELECT suite, dek_id, tenant, version, state, plaintext_bytes, envelope_bytes FROM"
                   " cmk.inspect(%b)", envelope) == (
        2, envelope[2:18], "acme", 1, "current", len(VALUE), len(VALUE) + 74,
    )
