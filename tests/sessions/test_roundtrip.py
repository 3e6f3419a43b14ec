"""The main job: what goes in comes out, for every shape of value and both providers."""

import os

import pytest

from support import CANARY, OVERHEAD, fails, unique

PROVIDERS = ["local", "aws"]


@pytest.fixture(params=PROVIDERS)
def any_tenant(request, tenant):
    return tenant("local:shared" if request.param == "local" else None)


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", CANARY, bytes(range(256)), os.urandom(8192), b"z" * 100_000],
    ids=["empty", "zero byte", "short", "every byte", "8 KiB", "100 kB"],
)
def test_bytea_comes_back_unchanged_and_58_bytes_longer(app, any_tenant, value):
    envelope = app.encrypt(any_tenant, value)
    assert len(envelope) == len(value) + OVERHEAD
    assert envelope[:2] == b"\xc1\x01"
    assert app.decrypt(any_tenant, envelope) == value


@pytest.mark.parametrize("text", ["", "Łódź, 東京 🗝", "line\nbreak\ttab", "'; DROP TABLE x; --", "x" * 20_000])
def test_text_comes_back_unchanged(app, any_tenant, text):
    sealed = app.one("SELECT cmk_encrypt_text(%s, %s)", any_tenant.name, text)
    assert app.one("SELECT cmk_decrypt_text(%s, %b)", any_tenant.name, sealed) == text
    assert app.decrypt(any_tenant, sealed) == text.encode()


def test_the_same_value_never_gives_the_same_envelope(app, local_tenant):
    tenant = local_tenant()
    rows = app.all("SELECT cmk_encrypt(%s, %b) FROM generate_series(1, 2000)", tenant.name, CANARY)
    assert len({envelope for (envelope,) in rows}) == 2000


def test_aad_binds_a_value_to_its_place(app, any_tenant):
    envelope = app.encrypt(any_tenant, CANARY, b"customer 7")
    assert app.decrypt(any_tenant, envelope, b"customer 7") == CANARY
    for other in (b"", b"customer 8", b"customer 7\0"):
        with fails("39000", "not_authentic", any_tenant):
            app.decrypt(any_tenant, envelope, other)


def test_text_functions_take_aad(app, local_tenant):
    tenant = local_tenant()
    sealed = app.one("SELECT cmk_encrypt_text(%s, 'note', aad => %b)", tenant.name, b"row 1")
    assert app.one("SELECT cmk_decrypt_text(%s, %b, aad => %b)", tenant.name, sealed, b"row 1") == "note"
    with fails("39000", "not_authentic", tenant):
        app.one("SELECT cmk_decrypt_text(%s, %b, aad => %b)", tenant.name, sealed, b"row 2")


@pytest.mark.parametrize(
    "call",
    [
        "cmk_encrypt(%s, NULL)",
        "cmk_encrypt_text(%s, NULL)",
        "cmk_decrypt(%s, NULL)",
        "cmk_decrypt_text(%s, NULL)",
        "cmk_try_decrypt(%s, NULL)",
        "cmk_try_decrypt_text(%s, NULL)",
    ],
)
def test_a_null_value_stays_null(app, local_tenant, call):
    assert app.one(f"SELECT {call}", local_tenant().name) is None


@pytest.mark.parametrize("function", ["cmk_encrypt", "cmk_decrypt", "cmk_try_decrypt"])
@pytest.mark.parametrize("arguments", ["NULL, '\\xc101'", "'someone', '\\xc101', NULL"], ids=["tenant", "aad"])
def test_a_null_tenant_or_aad_is_an_error_not_a_null(app, function, arguments):
    with fails("22004", "null_argument"):
        app.one(f"SELECT {function}({arguments})")


@pytest.mark.parametrize("function", ["cmk_encrypt_text", "cmk_decrypt_text", "cmk_try_decrypt_text"])
def test_a_null_tenant_is_an_error_for_text_too(app, function):
    with fails("22004", "null_argument"):
        app.one(f"SELECT {function}(NULL, '\\xc101')")


def test_256_megabytes_work(app, local_tenant):
    tenant = local_tenant()
    size = 256 * 1024 * 1024
    same, length = app.row(
        "WITH given AS MATERIALIZED (SELECT convert_to(repeat('x', %s), 'UTF8') AS plain),"
        " sealed AS MATERIALIZED (SELECT cmk_encrypt(%s, plain) AS envelope FROM given)"
        " SELECT cmk_decrypt(%s, envelope) = plain, octet_length(envelope) FROM given, sealed",
        size, tenant.name, tenant.name,
    )
    assert (same, length) == (True, size + OVERHEAD)


def test_stored_columns_of_two_tenants_read_back(app, dba, tenant, local_tenant):
    first, second, table = tenant(), local_tenant(), unique("patient")
    dba.run(f"CREATE TABLE {table} (id int, tenant text, ssn bytea)")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    app.run(
        f"INSERT INTO {table} SELECT n, t, cmk_encrypt_text(t, 'ssn-' || n, convert_to(n::text, 'UTF8'))"
        " FROM generate_series(1, 500) n, unnest(ARRAY[%s, %s]) t",
        first.name, second.name,
    )
    wrong = app.one(
        f"SELECT count(*) FROM {table} WHERE cmk_decrypt_text(tenant, ssn, convert_to(id::text, 'UTF8'))"
        " IS DISTINCT FROM 'ssn-' || id"
    )
    assert (wrong, app.one(f"SELECT count(*) FROM {table}")) == (0, 1000)


def test_toasted_and_compressed_values_are_read_whole(app, dba, local_tenant):
    tenant, table = local_tenant(), unique("big")
    dba.run(f"CREATE TABLE {table} (plain text, sealed bytea)")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    app.run(f"INSERT INTO {table} VALUES (repeat('compressible ', 100000), NULL)")
    app.run(f"UPDATE {table} SET sealed = cmk_encrypt_text(%s, plain)", tenant.name)
    assert app.one(f"SELECT cmk_decrypt_text(%s, sealed) = plain FROM {table}", tenant.name) is True


def test_inspect_tells_everything_but_the_value(dba, app, tenant):
    made = tenant()
    envelope = app.encrypt(made, CANARY)
    described = dba.row(
        "SELECT suite, dek_id, tenant, version, state, plaintext_bytes, envelope_bytes FROM cmk.inspect(%b)", envelope
    )
    assert described == (1, envelope[2:18], made.name, 1, "current", len(CANARY), len(envelope))
    dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
    assert dba.row("SELECT version, state FROM cmk.inspect(%b)", envelope) == (1, "retired")


def test_inspect_of_a_foreign_envelope_knows_no_tenant(dba):
    envelope = b"\xc1\x01" + os.urandom(56)
    assert dba.row("SELECT suite, tenant, version, plaintext_bytes FROM cmk.inspect(%b)", envelope) == (1, None, None, 0)


def test_rotation_changes_new_envelopes_and_keeps_old_ones_readable(dba, app, any_tenant):
    old = app.encrypt(any_tenant, CANARY)
    assert dba.one("SELECT cmk.rotate_tenant(%s)", any_tenant.name) == 2
    new = app.encrypt(any_tenant, CANARY)
    assert old[2:18] != new[2:18]
    assert [app.decrypt(any_tenant, e) for e in (old, new)] == [CANARY, CANARY]


def test_views_show_the_tenant_and_this_backends_cache(dba, app, tenant):
    made = tenant()
    dba.run("SELECT cmk.grant_access(%s, 'postgres')", made.name)
    envelope = dba.encrypt(made, CANARY)
    for _ in range(3):
        dba.decrypt(made, envelope)
    assert dba.row("SELECT state, key_uri, version, data_keys FROM cmk.tenants WHERE tenant = %s", made.name) == (
        "active", made.key_uri, 1, 1,
    )
    version, dek_id, age, expires_in, hits = dba.row(
        "SELECT version, dek_id, extract(epoch FROM age)::float8, extract(epoch FROM expires_in)::float8, hits"
        " FROM cmk.cache WHERE tenant = %s",
        made.name,
    )
    assert (version, dek_id, hits) == (1, envelope[2:18], 3)
    assert 0 <= age < 60 and 0 < expires_in <= 299 and abs(age + expires_in - 299) < 1


def test_try_decrypt_returns_what_opens_and_null_for_what_does_not(app, local_tenant):
    tenant = local_tenant()
    good = app.encrypt(tenant, CANARY)
    rows = app.all(
        "SELECT cmk_try_decrypt(%s, v) FROM unnest(ARRAY[%b, %b, %b]) v", tenant.name, good, good[:-1], b"not one"
    )
    assert rows == [(CANARY,), (None,), (None,)]
    sealed_bytes = app.encrypt(tenant, b"\xff")
    assert app.one("SELECT cmk_try_decrypt_text(%s, %b)", tenant.name, sealed_bytes) is None


def test_try_decrypt_forgives_listed_reasons_only(app, local_tenant):
    tenant = local_tenant()
    bad = app.encrypt(tenant, CANARY)[:-1]
    forgive = "SELECT cmk_try_decrypt(%s, %b, forgive => %s)"
    assert app.one(forgive, tenant.name, bad, ["not_authentic"]) is None
    with fails("39000", "not_authentic", tenant):
        app.one(forgive, tenant.name, bad, ["not_an_envelope"])
    with fails("39000", "not_authentic", tenant):
        app.one("SELECT cmk_try_decrypt(%s, %b, forgive => '{}')", tenant.name, bad)


def test_try_decrypt_does_not_hide_what_concerns_the_tenant(dba, app, local_tenant):
    tenant = local_tenant()
    envelope = app.encrypt(tenant, CANARY)
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended", tenant):
        app.one("SELECT cmk_try_decrypt(%s, %b)", tenant.name, envelope)
    forgiven = "SELECT cmk_try_decrypt(%s, %b, forgive => ARRAY['tenant_suspended'])"
    assert app.one(forgiven, tenant.name, envelope) is None
