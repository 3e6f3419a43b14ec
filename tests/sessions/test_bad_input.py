"""Nonsense in, a clear error out; and the session, the tenant and the registry go on as before."""

import unicodedata

import pytest

from provocations import unguarded
from support import CANARY, OVERHEAD, fails, fails_with, flip, unique

ID = "1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def sealed(app, local_tenant):
    """A tenant and one of its envelopes; afterwards both must still work in the same session."""
    tenant = local_tenant()
    envelope = app.encrypt(tenant, CANARY)
    yield tenant, envelope
    assert app.decrypt(tenant, envelope) == CANARY
    assert app.decrypt(tenant, app.encrypt(tenant, b"next")) == b"next"


def test_every_truncation_fails_and_says_how(app, sealed):
    tenant, envelope = sealed
    for length in range(len(envelope)):
        error = ("22P03", "not_an_envelope") if length < OVERHEAD else ("39000", "not_authentic")
        with fails(*error):
            app.decrypt(tenant, envelope[:length])


@pytest.mark.parametrize("extra", [b"\0", b"x" * 16, b"x" * 10_000], ids=len)
def test_an_extended_envelope_does_not_authenticate(app, sealed, extra):
    tenant, envelope = sealed
    with fails("39000", "not_authentic", tenant):
        app.decrypt(tenant, envelope + extra)
    with fails("22P03", "not_an_envelope"):
        app.decrypt(tenant, extra + envelope)


def test_every_flipped_bit_fails_with_the_reason_of_its_field(app, sealed):
    tenant, envelope = sealed
    for bit in range(8 * len(envelope)):
        byte = bit // 8
        error = (
            ("22P03", "not_an_envelope") if byte == 0
            else ("22P03", "unknown_suite") if byte == 1
            else ("39000", "unknown_data_key") if byte < 18
            else ("39000", "not_authentic")
        )
        with fails(*error):
            app.decrypt(tenant, flip(envelope, bit))


@pytest.mark.parametrize("value", [b"", b"\xc1", b"plain", b"\\xc101" * 20, bytes(58), b"{}" * 50])
def test_what_is_no_envelope_is_called_so_by_every_function(app, sealed, value):
    tenant, _ = sealed
    for function in ("cmk_decrypt", "cmk_decrypt_text"):
        with fails("22P03", "not_an_envelope"):
            app.one(f"SELECT {function}(%s, %b)", tenant.name, value)
    with fails("22P03", "not_an_envelope"):
        app.one("SELECT cmk_try_decrypt(%s, %b, forgive => '{}')", tenant.name, value)


def test_inspect_says_nothing_of_what_is_no_envelope(dba):
    assert dba.all("SELECT * FROM cmk.inspect('hello')") == [(None,) * 9]


def test_an_envelope_of_another_tenant_aad_or_data_key_stays_closed(app, sealed, local_tenant):
    tenant, envelope = sealed
    other = local_tenant()
    with fails("39000", "unknown_data_key", other):
        app.decrypt(other, envelope)
    with fails("39000", "not_authentic", tenant):
        app.decrypt(tenant, envelope, b"another aad")
    foreign = app.encrypt(other)
    with fails("39000", "not_authentic", tenant):
        app.decrypt(tenant, envelope[:18] + foreign[18:])


@pytest.fixture
def spoiled(session, database):
    """A superuser session in a database whose registry may be spoiled."""
    return session(dbname=database())


@pytest.fixture
def cold(session, spoiled):
    """A second session there, which has cached nothing."""
    return session(dbname=spoiled.connection.info.dbname)


def register(spoiled, name, key_uri="local:shared"):
    spoiled.run("SELECT cmk.register_tenant(%s, %s)", name, key_uri)
    spoiled.run("SELECT cmk.grant_access(%s, 'postgres')", name)
    return spoiled.encrypt(name)


@pytest.mark.parametrize("provider", ["local", "aws"])
def test_swapped_wrapped_keys_open_nothing(spoiled, cold, kms, provider):
    uris = ["local:shared"] * 2 if provider == "local" else [kms.key()] * 2
    first, second = (register(spoiled, name, uri) for name, uri in zip("ab", uris))
    with unguarded(spoiled):
        spoiled.run("UPDATE cmk.data_key d SET wrapped = o.wrapped FROM cmk.data_key o WHERE o.tenant <> d.tenant")
    for name, envelope in (("a", first), ("b", second)):
        with fails("39000", "wrapped_key_rejected", name):
            cold.decrypt(name, envelope)


def test_swapped_versions_of_one_tenant_are_not_the_registered_keys(spoiled, cold):
    first = register(spoiled, "a")
    spoiled.run("SELECT cmk.rotate_tenant('a')")
    with unguarded(spoiled):
        spoiled.run("UPDATE cmk.data_key d SET wrapped = o.wrapped FROM cmk.data_key o WHERE o.version <> d.version")
    with fails("39000", "commitment_mismatch", "a"):
        cold.decrypt("a", first)
    with fails("39000", "commitment_mismatch", "a"):
        cold.encrypt("a")


@pytest.mark.parametrize("damage", ["'\\x'", "'\\x00'", "substr(wrapped, 2)", "wrapped || '\\x00'"])
@pytest.mark.parametrize("provider", ["local", "aws"])
def test_a_damaged_wrapped_key_is_rejected_now_or_at_the_table(spoiled, cold, kms, provider, damage):
    envelope = register(spoiled, "a", "local:shared" if provider == "local" else kms.key())
    if damage == "'\\x'":
        with unguarded(spoiled), fails_with("23514"):
            spoiled.run(f"UPDATE cmk.data_key SET wrapped = {damage}")
        assert cold.decrypt("a", envelope) == CANARY
    else:
        with unguarded(spoiled):
            spoiled.run(f"UPDATE cmk.data_key SET wrapped = {damage}")
        with fails("39000", "wrapped_key_rejected", "a"):
            cold.decrypt("a", envelope)


def test_an_emptied_registry_says_what_is_missing_and_a_restored_one_works(spoiled):
    envelope = register(spoiled, "a")
    for table in ("data_key", "access", "tenant"):
        spoiled.run(f"CREATE TABLE saved_{table} AS TABLE cmk.{table}")
    with unguarded(spoiled):
        spoiled.run("DELETE FROM cmk.data_key")
    with fails("55000", "data_keys_missing", "a"):
        spoiled.decrypt("a", envelope)
    spoiled.run("TRUNCATE cmk.access, cmk.data_key, cmk.tenant")
    with fails("42704", "unknown_tenant", "a"):
        spoiled.decrypt("a", envelope)
    spoiled.run("INSERT INTO cmk.tenant TABLE saved_tenant")
    columns = "tenant, version, purpose, state, commitment, wrapped, wrapped_by, created_at"
    spoiled.run(f"INSERT INTO cmk.data_key ({columns}) SELECT {columns} FROM saved_data_key")
    spoiled.run("INSERT INTO cmk.access TABLE saved_access")
    assert spoiled.decrypt("a", envelope) == CANARY


REGION = "arn:aws:kms:{}:111122223333:key/" + ID


@pytest.mark.parametrize(
    "uri",
    [
        "", "acme", ID, "local:", "local:../shared", "local:/etc/passwd", "local:a.b", "LOCAL:shared", " local:shared",
        "local:" + "a" * 65,
        "arn:aws:kms:eu-central-1:111122223333:alias/acme",
        "arn:aws:kms:eu-central-1:111122223333:key/alias/acme",
        REGION.format("eu-central-1") + "\n",
        REGION.format("eu-central-1\n"),
        REGION.format("eu-central-1.evil.example"),
        REGION.format("evil.example/"),
        REGION.format("evil.example#"),
        REGION.format("eu-central-1@evil.example"),
        REGION.format("127.0.0.1"),
        REGION.format("EU-CENTRAL-1"),
        REGION.format(""),
        REGION.format("cn-north-1"),
        "arn:aws:s3:eu-central-1:111122223333:key/" + ID,
        "arn:aws:kms:eu-central-1:1111:key/" + ID,
        REGION.format("eu-central-1") + ":extra",
        REGION.format("eu-central-1").upper(),
        "vault:transit/acme",
    ],
)
def test_a_key_uri_of_another_shape_is_refused_before_any_call(dba, kms, uri):
    name, before = unique("tenant"), kms.counters()["total"]
    with fails("22023", "key_uri") as caught:
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, uri)
    assert "evil" not in str(caught.value), "the offending text is not repeated"
    assert kms.counters()["total"] == before
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = %s", name)


def test_an_arn_of_the_wrong_region_leads_to_no_key(dba, kms):
    name = unique("tenant")
    arn = kms.key(region="eu-central-1").replace("eu-central-1", "us-east-1")
    with fails("55000", "key_not_found", name):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = %s", name)


@pytest.mark.parametrize("name", ["", "*", "a\nb", "\x01", "\x7f", "\u0085", "x" * 256, "ß" * 128, "n" * 10_240])
def test_an_impossible_tenant_name_is_refused_everywhere(dba, app, name):
    with fails("22023", "tenant_name"):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", name)
    with fails("22023", "tenant_name"):
        app.encrypt(name)
    with fails("22023", "tenant_name"):
        dba.run("SELECT cmk.rotate_tenant(%s)", name)


@pytest.mark.parametrize(
    "name",
    [
        "it's \"quoted\" \\ %", "'; DROP TABLE cmk.tenant; --", "東京 🗝", "x" * 255, "a reason=key_disabled",
        " leading and trailing ", "NULL", "/../..",
    ],
)
def test_an_odd_tenant_name_is_just_a_name(app, dba, local_tenant, name):
    tenant = local_tenant(name=unique("t") + name if len(name) < 200 else name)
    assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    with fails("55000", "tenant_suspended") as caught:
        app.encrypt(tenant)
    assert caught.value.diag.message_detail.startswith("reason=tenant_suspended tenant=")
    assert caught.value.diag.message_detail.count("reason=") == 1 + tenant.name.count("reason=")


def test_names_that_only_look_alike_are_different_tenants(app, local_tenant):
    base = unique("Caf")
    composed, decomposed = (unicodedata.normalize(form, base + "é") for form in ("NFC", "NFD"))
    names = [composed, decomposed, base, base.lower(), base + " "]
    envelopes = {name: app.encrypt(local_tenant(name=name)) for name in names}
    for name, envelope in envelopes.items():
        assert app.decrypt(name, envelope) == CANARY
        for other in set(names) - {name}:
            with fails("39000", "unknown_data_key"):
                app.decrypt(other, envelope)


def test_access_of_an_unknown_role_is_refused(dba, local_tenant):
    tenant = local_tenant()
    for function in ("grant_access", "revoke_access"):
        with fails("42704", "unknown_role"):
            dba.run(f"SELECT cmk.{function}(%s, 'nobody_of_this_name')", tenant.name)
    with fails("42704", "unknown_role"):
        dba.run("SELECT cmk.grant_access(%s, 4294967295::oid::regrole)", tenant.name)


def test_access_of_a_dropped_role_can_still_be_revoked(dba, role, local_tenant):
    tenant, name = local_tenant(), role()
    oid = dba.one("SELECT %s::regrole::oid", name)
    dba.run("SELECT cmk.grant_access(%s, %s)", tenant.name, name)
    dba.run(f"DROP ROLE {name}")
    left = "SELECT count(*) FROM cmk.access WHERE role = %s::oid::regrole"
    assert dba.one(left, oid) == 1
    dba.run("SELECT cmk.revoke_access(%s, %s::oid::regrole)", tenant.name, oid)
    assert dba.one(left, oid) == 0


def test_access_to_an_unknown_tenant_is_refused(dba, app):
    with fails("42704", "unknown_tenant"):
        dba.run("SELECT cmk.grant_access('no such tenant', %s)", app.role)


@pytest.mark.parametrize(
    "function", ["activate_tenant", "suspend_tenant", "resume_tenant", "rotate_tenant", "evict"]
)
def test_every_change_of_an_unknown_tenant_says_so(dba, function):
    with fails("42704", "unknown_tenant", "no_such_tenant"):
        dba.run(f"SELECT cmk.{function}('no_such_tenant')")
    with fails("22004", "null_argument"):
        dba.run(f"SELECT cmk.{function}(NULL)")
