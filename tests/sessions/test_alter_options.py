"""`cmk.alter_tenant_options`: the tenant's role or external id changed, and KMS has the last word."""

from dataclasses import dataclass

import pytest
from psycopg.types.json import Jsonb

from support import CANARY, Tenant, fails, unique


@dataclass(frozen=True)
class Assuming(Tenant):
    role: str
    envelope: bytes

    __str__ = Tenant.__str__


def options(role, external_id):
    return Jsonb({"role_arn": role, "external_id": external_id})


def alter(by, tenant, given):
    by.run("SELECT cmk.alter_tenant_options(%s, %s)", tenant.name, given)


@pytest.fixture
def assuming(app, dba, kms, tenant):
    """A tenant whose key lets in one role alone, which is used by the external id `old`."""
    role, arn = kms.role("old"), kms.key()
    kms.principals(arn, [role])
    made = tenant(arn, role_arn=role, external_id="old")
    return Assuming(made.name, made.key_uri, role, app.encrypt(made))


def test_a_new_external_id_takes_effect_in_every_session(session, app, dba, kms, assuming):
    warm = session(app.role)
    assert warm.decrypt(assuming, assuming.envelope) == CANARY
    kms.trust(assuming.role, "new", None)
    kms.end_sessions(assuming.role)
    alter(dba, assuming, options(assuming.role, "new"))
    for user in (warm, app, session(app.role)):
        assert user.decrypt(assuming, assuming.envelope) == CANARY
        assert user.decrypt(assuming, user.encrypt(assuming)) == CANARY
    stored = dba.one("SELECT options FROM cmk.tenant WHERE tenant = %s", assuming.name)
    assert stored == {"role_arn": assuming.role, "external_id": "new"}


def test_an_external_id_is_changed_without_a_dark_moment(session, app, dba, kms, assuming):
    """The owner asks for either, we take the new one, the owner asks for the new one only (docs/operations.md)."""
    warm = session(app.role)
    opens = lambda: all(user.decrypt(assuming, assuming.envelope) == CANARY for user in (warm, app))  # noqa: E731
    assert opens()
    kms.trust(assuming.role, None, None)  # the fake knows one external id, or any
    kms.end_sessions(assuming.role)
    dba.run("SELECT cmk.evict(%s)", assuming.name)
    assert opens()
    alter(dba, assuming, options(assuming.role, "new"))
    assert opens()
    kms.trust(assuming.role, "new", None)
    kms.end_sessions(assuming.role)
    dba.run("SELECT cmk.evict(%s)", assuming.name)
    assert opens() and session(app.role).decrypt(assuming, assuming.envelope) == CANARY


def test_an_external_id_that_changed_without_a_word_is_told_and_mended(app, dba, kms, assuming):
    kms.trust(assuming.role, "new", None)
    kms.end_sessions(assuming.role)
    dba.run("SELECT cmk.evict(%s)", assuming.name)
    with fails("55000", "key_access_denied", assuming.name) as caught:
        app.decrypt(assuming, assuming.envelope)
    assert "cause=assume_role" in caught.value.diag.message_detail
    alter(dba, assuming, options(assuming.role, "new"))
    assert app.decrypt(assuming, assuming.envelope) == CANARY


@pytest.mark.parametrize("external_id", ["OLD", "someone-elses"])
def test_what_kms_refuses_changes_nothing(app, dba, assuming, external_id):
    before = dba.row("SELECT options, epoch, changed_at FROM cmk.tenant WHERE tenant = %s", assuming.name)
    with fails("55000", "key_access_denied", assuming.name):
        alter(dba, assuming, options(assuming.role, external_id))
    assert dba.row("SELECT options, epoch, changed_at FROM cmk.tenant WHERE tenant = %s", assuming.name) == before
    assert app.decrypt(assuming, assuming.envelope) == CANARY


def test_a_slip_of_the_pen_during_an_outage_takes_nothing_from_warm_sessions(session, app, dba, kms, assuming):
    users = [app, session(app.role), session(app.role)]
    for user in users:
        assert user.decrypt(assuming, assuming.envelope) == CANARY
    with kms.fault("status", assuming.key_uri, "Decrypt", status=500, code="KMSInternalException"):
        with fails("55000", "key_access_denied", assuming.name):
            alter(dba, assuming, options(assuming.role, "mistyped"))
        for user in users:
            assert user.decrypt(assuming, assuming.envelope) == CANARY
    assert dba.one("SELECT key_state FROM cmk.status WHERE tenant = %s", assuming.name) != "revoked"


def test_registered_anew_a_role_is_assumed_anew(session, dba, kms):
    role, name = kms.role("old"), unique("tenant")
    register = "SELECT cmk.register_tenant(%s, %s, %s)"
    arn = kms.key()
    kms.principals(arn, [role])
    dba.run("BEGIN")
    dba.run(register, name, arn, options(role, "old"))
    dba.run("ROLLBACK")
    # Closed meanwhile; sessions that are open live on, as AWS has it.
    kms.trust(role, "other", None)
    with fails("55000", "key_access_denied", name):
        dba.run(register, name, arn, options(role, "old"))


def test_the_proof_is_an_unwrap_of_the_current_data_key(app, dba, kms, assuming):
    other = kms.role("old")
    before = kms.total("Decrypt")
    # The key lets the first role in, and nobody else.
    with fails("55000", "key_access_denied", assuming.name):
        alter(dba, assuming, options(other, "old"))
    kms.principals(assuming.key_uri, [assuming.role, other])
    alter(dba, assuming, options(other, "old"))
    assert kms.total("Decrypt") - before == 2
    assert app.decrypt(assuming, assuming.envelope) == CANARY


def test_the_same_options_ask_nobody_and_change_nothing(dba, kms, assuming):
    before, calls = dba.row("SELECT * FROM cmk.tenant WHERE tenant = %s", assuming.name), kms.total()
    alter(dba, assuming, options(assuming.role, "old"))
    assert dba.row("SELECT * FROM cmk.tenant WHERE tenant = %s", assuming.name) == before
    assert kms.total() == calls


def test_a_rollback_leaves_the_old_options(app, dba, kms, assuming):
    kms.trust(assuming.role, "new", None)
    dba.run("BEGIN")
    alter(dba, assuming, options(assuming.role, "new"))
    dba.run("ROLLBACK")
    kms.trust(assuming.role, "old", None)
    kms.end_sessions(assuming.role)
    dba.run("SELECT cmk.evict(%s)", assuming.name)
    assert app.decrypt(assuming, assuming.envelope) == CANARY


def test_of_a_pending_tenant_there_is_nothing_to_prove(dba, kms):
    made = Tenant(unique("tenant"), kms.key())
    dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", made.name, made.key_uri)
    calls = kms.total()
    alter(dba, made, options("arn:aws:iam::111122223333:role/acme", "any"))
    assert kms.total() == calls
    role = kms.role("given")
    kms.principals(made.key_uri, [role])
    alter(dba, made, options(role, "given"))
    dba.run("SELECT cmk.activate_tenant(%s)", made.name)


def test_the_way_back_to_no_role(app, dba, kms, assuming):
    alter_to_none = Jsonb({})
    with fails("55000", "key_access_denied", assuming.name):
        alter(dba, assuming, alter_to_none)
    kms.principals(assuming.key_uri, None)
    alter(dba, assuming, alter_to_none)
    assert app.decrypt(assuming, assuming.envelope) == CANARY


@pytest.mark.parametrize(
    "given, reason, detail",
    [
        ({"role": "x"}, "key_options", " option=role"),
        ({"role_arn": 7}, "key_options", " option=role_arn cause=type"),
        ({"role_arn": "arn:aws:iam::111122223333:role/a"}, "external_id", ""),
        ({"external_id": "an-id"}, "external_id", ""),
        ({"role_arn": "acme", "external_id": "an-id"}, "role_arn", ""),
        ([], "key_options", " cause=json"),
        ("text", "key_options", " cause=json"),
    ],
)
def test_options_are_strict_and_named(dba, kms, tenant, given, reason, detail):
    made = tenant()
    with fails("22023", reason, made.name) as caught:
        alter(dba, made, Jsonb(given))
    assert caught.value.diag.message_detail.endswith(detail)
    name = unique("tenant")
    with fails("22023", reason, name) as caught:
        dba.run("SELECT cmk.register_tenant(%s, %s, %s)", name, kms.key(), Jsonb(given))
    assert caught.value.diag.message_detail.endswith(detail)


def test_a_local_key_has_no_options(dba, tenant):
    made = tenant("local:shared")
    with fails("22023", "key_options", made.name):
        alter(dba, made, options("arn:aws:iam::111122223333:role/acme", "an-id"))


def test_who_has_the_row_locked_is_not_waited_for(session, dba, assuming):
    holder = session()
    holder.run("BEGIN")
    holder.run("SELECT FROM cmk.tenant WHERE tenant = %s FOR UPDATE", assuming.name)
    with fails("55P03", "tenant_busy", assuming.name):
        alter(dba, assuming, options(assuming.role, "new"))
    holder.run("ROLLBACK")


def test_an_unknown_tenant_and_nulls(dba):
    with fails("42704", "unknown_tenant", "nobody"):
        alter(dba, Tenant("nobody", ""), Jsonb({}))
    for arguments in ("NULL, '{}'", "'acme', NULL"):
        with fails("22004", "null_argument"):
            dba.run(f"SELECT cmk.alter_tenant_options({arguments})")
