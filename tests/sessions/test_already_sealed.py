"""What is an envelope already is not sealed a second time, unless somebody asks for it."""

import pytest

from support import fails, flip, unique

WRITTEN = {
    "bytea": "%b", "hexadecimal digits": "'\\x' || encode(%b, 'hex')", "capital digits": "'\\x' || upper(encode(%b, 'hex'))",
    "digits of varchar": "('\\x' || encode(%b, 'hex'))::varchar", "digits in a bytea": "('\\x' || encode(%b, 'hex'))::text::bytea",
}


@pytest.fixture
def sealed(app, dba, local_tenant):
    tenant = local_tenant(to=(app, dba))
    return tenant, app.encrypt(tenant, b"value", b"aad")


def envelopes(dba, tenant):
    """Of each kind of protected column."""
    table = unique("kinds")
    dba.run(f"CREATE TABLE {table} (tenant text, t text, b bytea, j jsonb)")
    for column in "tbj":
        dba.run("SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant')", table, column)
    dba.run(f"INSERT INTO {table} VALUES (%s, 'x', 'x', '1')", tenant.name)
    return dba.row(f"SELECT cmk.envelope(t), cmk.envelope(b), cmk.envelope(j) FROM {table}")


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("aad", ["", ", 'other'"])
def test_an_envelope_is_refused_however_it_is_written(app, sealed, written, aad):
    tenant, envelope = sealed
    with fails("22023", "already_sealed", tenant):
        app.run(f"SELECT cmk_encrypt('{tenant}', {WRITTEN[written]}{aad})", envelope)


def test_an_untyped_literal_and_the_text_function_are_refused_too(app, sealed):
    tenant, envelope = sealed
    for call in (f"cmk_encrypt('{tenant}', '\\x{envelope.hex()}')", f"cmk_encrypt_text('{tenant}', '\\x{envelope.hex()}')"):
        with fails("22023", "already_sealed", tenant):
            app.run(f"SELECT {call}")


def test_an_envelope_of_a_protected_column_is_refused_raw_and_in_armor(app, dba, sealed):
    tenant, _ = sealed
    for envelope in envelopes(dba, tenant):
        with fails("22023", "already_sealed", tenant):
            app.encrypt(tenant, envelope)
    table = unique("armored")
    dba.run(f"CREATE TABLE {table} (tenant text, t text)")
    dba.run("SELECT cmk.protect_column(%s, 't', tenant_column => 'tenant')", table)
    dba.run(f"INSERT INTO {table} VALUES (%s, 'x')", tenant.name)
    armor = dba.one(f"SELECT concat(t) FROM {table}")
    assert armor.startswith("cmk1:")
    for kind in ("text", "bytea"):
        with fails("22023", "already_sealed", tenant):
            app.run(f"SELECT cmk_encrypt('{tenant}', %s::text::{kind})", armor)


def test_another_tenants_envelope_is_refused_and_not_named(app, dba, sealed, local_tenant):
    tenant, _ = sealed
    other = local_tenant(to=(dba,))
    envelope = dba.encrypt(other)
    with fails("22023", "already_sealed", tenant) as caught:
        app.encrypt(tenant, envelope)
    assert other.name not in str(caught.value.diag.message_detail)


def test_after_a_rotation_and_for_a_damaged_one_it_is_refused_as_well(app, dba, sealed):
    tenant, envelope = sealed
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    for again in (envelope, flip(envelope, 8 * len(envelope) - 1), envelope + b"more"):
        with fails("22023", "already_sealed", tenant):
            app.encrypt(tenant, again)


def test_without_a_grant_nothing_is_told_of_envelopes(session, role, sealed):
    tenant, envelope = sealed
    with fails("42501", "no_grant", tenant):
        session(role()).encrypt(tenant, envelope)


def test_what_only_looks_like_one_is_sealed(app, sealed):
    tenant, envelope = sealed
    unknown = envelope[:2] + bytes(16) + envelope[18:]
    for value in (b"\xc1", b"\xc1\x01", envelope[:57], unknown, b"\xc1\x07" + envelope[2:], b"\x00" + envelope,
                  b"\\x", b"\\xc1", b"\\xc101" + b"zz" * 60, b"cmk1:", b"cmk1:AAAA", b"\\x" + envelope[:20].hex().encode()):
        assert app.decrypt(tenant, app.encrypt(tenant, value)) == value


def test_who_asks_for_it_gets_it_nested(app, sealed):
    tenant, envelope = sealed
    for written in ("%b", "'\\x' || encode(%b, 'hex')"):
        nested = app.one(f"SELECT cmk_encrypt_nested('{tenant}', {written}, 'outer')", envelope)
        inner = app.decrypt(tenant, nested, b"outer")
        assert inner in (envelope, b"\\x" + envelope.hex().encode())
    assert app.one(f"SELECT cmk_encrypt_nested('{tenant}', NULL::bytea)") is None


def test_what_is_nested_can_be_rotated(app, dba, sealed):
    """cmk.reencrypt opens and seals the outer envelope, whatever is in it."""
    tenant, envelope = sealed
    table = unique("nested")
    dba.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant text, c bytea)")
    dba.run(f"INSERT INTO {table} VALUES (1, %s, cmk_encrypt_nested(%s, %b))", tenant.name, tenant.name, envelope)
    dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
    dba.run(f"CALL cmk.reencrypt('{table}', 'c', tenant_column => 'tenant')")
    assert dba.one(f"SELECT (cmk.inspect(c)).version FROM {table}") == 2
    assert app.decrypt(tenant, dba.one(f"SELECT c FROM {table}")) == envelope
    dba.run(f"DROP TABLE {table}")


# Protected columns


@pytest.fixture
def person(app, dba, sealed):
    table = unique("person")
    dba.run(f"CREATE TABLE {table} (tenant text, t text, b bytea)")
    for column in "tb":
        dba.run("SELECT cmk.protect_column(%s, %s, tenant_column => 'tenant')", table, column)
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    return table


def test_a_protected_column_refuses_an_envelope_of_the_functions(app, person, sealed):
    tenant, envelope = sealed
    for column, value in (("b", "%b"), ("t", "'\\x' || encode(%b, 'hex')")):
        with fails("22023", "already_sealed", tenant):
            app.run(f"INSERT INTO {person} (tenant, {column}) VALUES ('{tenant}', {value})", envelope)
    app.run("SET cmk_encrypt.input = text")
    app.run(f"INSERT INTO {person} (tenant, b) VALUES ('{tenant}', %b)", envelope)
    assert app.one(f"SELECT b::bytea FROM {person}") == envelope


def test_an_update_of_other_columns_and_a_copy_of_the_row_are_no_sealing(app, person, sealed):
    tenant, _ = sealed
    app.run(f"INSERT INTO {person} VALUES ('{tenant}', 'x', 'y')")
    app.run(f"UPDATE {person} SET t = 'z'")
    app.run(f"INSERT INTO {person} SELECT * FROM {person}")
    assert app.all(f"SELECT t::text, b::bytea FROM {person}") == [("z", b"y")] * 2


@pytest.mark.parametrize("kind, value", [("bytea", "%b"), ("text", "'\\x' || encode(%b, 'hex')")])
def test_a_column_that_the_functions_have_sealed_is_not_sealed_again(dba, sealed, kind, value):
    tenant, envelope = sealed
    table = unique("sealed")
    dba.run(f"CREATE TABLE {table} (tenant text, v {kind})")
    dba.run(f"INSERT INTO {table} VALUES ('{tenant}', 'plain'), ('{tenant}', {value})", envelope)
    protect = f"SELECT cmk.protect_column('{table}', 'v', tenant_column => 'tenant', rewrite => true)"
    with fails("22023", "already_sealed"):
        dba.run(protect)
    dba.run(f"DELETE FROM {table} WHERE v <> 'plain'")
    dba.run(protect)
    assert dba.one(f"SELECT v::text FROM {table}") in ("plain", "\\x706c61696e")
    dba.run(f"DROP TABLE {table}")


# Asking


def test_is_envelope_never_raises(app, dba, sealed):
    tenant, envelope = sealed
    for column in envelopes(dba, tenant):
        assert app.one("SELECT cmk.is_envelope(%b)", column) is True
    assert app.one("SELECT cmk.is_envelope(%b)", envelope) is True
    assert app.one("SELECT cmk.is_envelope(NULL)") is None
    for length in range(len(envelope)):
        assert app.one("SELECT cmk.is_envelope(%b)", envelope[:length]) == (length >= 58)
    for other in (b"", b"hello", b"\xc1\x01" * 40, b"\xc1\x02" * 60, b"\xc1\x07" * 60, bytes(100), b"\xff" * 100):
        assert app.one("SELECT cmk.is_envelope(%b)", other) is False


def test_inspect_gives_nulls_for_what_is_no_envelope(dba, sealed):
    _, envelope = sealed
    for other in (b"", b"hello", envelope[:57], b"\xc1\x07" + envelope[2:], b"\xc1\x02" * 30):
        assert dba.all("SELECT * FROM cmk.inspect(%b)", other) == [(None,) * 9]


def test_a_backfill_in_place_can_be_broken_off_and_repeated(app, dba, local_tenant, session):
    """The recipe of docs/applications.md, of a column of bytea: batches, of which one fails and one is run twice."""
    tenant, table = local_tenant(to=(app, dba)), unique("message")
    dba.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant text, body bytea)")
    dba.run(f"INSERT INTO {table} SELECT n, '{tenant}', convert_to('body ' || n, 'UTF8') FROM generate_series(1, 250) n")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    batch = (f"UPDATE {table} SET body = cmk_encrypt(tenant, body, aad => int8send(id)) WHERE id IN"
             f" (SELECT id FROM {table} WHERE NOT cmk.is_envelope(body) ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)")
    counts = []
    with app.connection.transaction(force_rollback=True):
        assert app.run(batch).rowcount == 100
    other = session(app.role)
    for worker in (app, other, app, other, app):
        counts.append(worker.run(batch).rowcount)
    assert counts == [100, 100, 50, 0, 0]
    assert app.all(f"SELECT id, cmk_decrypt_text(tenant, body, int8send(id)) FROM {table} ORDER BY id") == [
        (n, f"body {n}") for n in range(1, 251)]
