"""What owners of keys are handed: who gets it, from whose settings, and that nothing is asked of their keys.

tests/onboarding has programs of others read, run and evaluate it.
"""

import json

import pytest

from pages import docs
from support import CANARY, Tenant, fails, fails_with, grant, unique

PRINCIPAL = "arn:aws:iam::444455556666:role/service/postgres"
FORMATS = ("guide", "policy", "cli", "terraform", "cloudformation")


@pytest.fixture
def pending(tenant):
    return lambda *arguments, **options: tenant(*arguments, to=(), activate=False, **options)


def statements(policy):
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_from_registration_to_the_first_value(dba, app, kms, server):
    globex = Tenant(unique("tenant"), kms.key())
    register = "SELECT cmk.register_tenant(%s, %s, activate => false)"
    assert dba.one(register, globex.name, globex.key_uri) == "pending"
    with server.settings(service_principal=PRINCIPAL):
        assert PRINCIPAL in dba.one("SELECT cmk.onboarding(%s)", globex.name)
    assert dba.one("SELECT cmk.activate_tenant(%s)", globex.name) == "active"
    grant(dba, globex, app.role)
    assert app.decrypt(globex, app.encrypt(globex)) == CANARY


def test_neither_kms_nor_sts_is_asked_where_the_setting_says_who_we_are(dba, kms, server, pending):
    globex = pending()
    before = kms.counters()["total"]
    with server.settings(service_principal=PRINCIPAL):
        returned = dba.one("SELECT cmk.key_policy(%s)", globex.name)
        for form in FORMATS:
            dba.one("SELECT cmk.onboarding(%s, %s)", globex.name, form)
    dba.one("SELECT cmk.service_policy()")
    assert kms.counters()["total"] == before
    use = statements(returned["key_policy"])["CmkEncryptUse"]
    assert use["Principal"] == {"AWS": PRINCIPAL}
    assert use["Condition"]["StringEquals"]["kms:EncryptionContext:tenant"] == globex.name


def test_without_the_setting_sts_says_who_we_are(dba, kms, pending):
    globex = pending()
    asked = kms.total("GetCallerIdentity")
    returned = dba.one("SELECT cmk.key_policy(%s)", globex.name)
    assert kms.total("GetCallerIdentity") == asked + 1
    assert kms.log(globex.key_uri) == []
    principal = statements(returned["key_policy"])["CmkEncryptUse"]["Principal"]["AWS"]
    assert principal.startswith("arn:aws:iam::111122223333:user/")
    # Our own side has nobody to name.
    dba.one("SELECT cmk.service_policy(%s)", globex.name)
    assert kms.total("GetCallerIdentity") == asked + 1


def test_where_sts_fails_the_error_says_so(dba, kms, pending):
    globex = pending()
    with kms.fault("status", operation="GetCallerIdentity", status=403, code="InvalidClientTokenId"):
        with fails("F0000", "credentials", globex):
            dba.one("SELECT cmk.key_policy(%s)", globex.name)
    with kms.fault("status", operation="GetCallerIdentity", status=500, code="InternalFailure"):
        with fails("58000", "kms_server_error", globex):
            dba.one("SELECT cmk.onboarding(%s)", globex.name)


@pytest.mark.parametrize("principal, cause", [
    ("postgres", "malformed"),
    ("arn:aws:iam::444455556666:root", "malformed"),
    ("arn:aws:sts::444455556666:assumed-role/postgres/i-0123456789abcdef0", "malformed"),
    ('arn:aws:iam::444455556666:role/"]}}', "malformed"),
    ("arn:aws-cn:iam::444455556666:role/postgres", "partition"),
])
def test_a_principal_that_no_policy_can_name_is_refused(dba, server, pending, principal, cause):
    globex = pending()
    with server.settings(service_principal=principal):
        for call in ("key_policy", "onboarding"):
            with fails("F0000", "service_principal", globex) as caught:
                dba.one(f"SELECT cmk.{call}(%s)", globex.name)
            assert f"cause={cause}" in caught.value.diag.message_detail
            assert principal not in str(caught.value)


@pytest.mark.parametrize("call", ["key_policy", "service_policy", "onboarding"])
def test_what_is_not_there_is_named(dba, local_tenant, call):
    with fails("42704", "unknown_tenant"):
        dba.one(f"SELECT cmk.{call}(%s)", unique("nobody"))
    with fails("22023", "tenant_name"):
        dba.one(f"SELECT cmk.{call}(%s)", "*")
    local = local_tenant(activate=False)
    with fails("42809", "no_key_policy", local):
        dba.one(f"SELECT cmk.{call}(%s)", local.name)


def test_null_is_no_tenant_and_no_format(dba, pending):
    for sql in ("SELECT cmk.key_policy(NULL)", "SELECT cmk.onboarding(NULL)"):
        with fails("22004", "null_argument"):
            dba.one(sql)
    with fails("22004", "null_argument"):
        dba.one("SELECT cmk.onboarding(%s, NULL)", pending().name)


@pytest.mark.parametrize("form", ["", "Guide", "yaml", "guide "])
def test_a_format_that_there_is_not_is_refused(dba, pending, form):
    with fails("22023", "onboarding_format"):
        dba.one("SELECT cmk.onboarding(%s, %s)", pending().name, form)


def test_nothing_is_changed_so_a_read_only_transaction_will_do(dba, pending):
    globex = pending()
    before = dba.all("SELECT * FROM cmk.tenant WHERE tenant = %s", globex.name)
    with dba.connection.transaction():
        dba.run("SET TRANSACTION READ ONLY")
        dba.one("SELECT cmk.key_policy(%s)", globex.name)
        dba.one("SELECT cmk.onboarding(%s, 'terraform')", globex.name)
        dba.one("SELECT cmk.service_policy()")
    assert dba.all("SELECT * FROM cmk.tenant WHERE tenant = %s", globex.name) == before


def test_our_side_is_for_all_tenants_that_may_have_data_keys(session, database, kms):
    dba = session(dbname=database())
    assert dba.one("SELECT cmk.service_policy()") == {"Version": "2012-10-17", "Statement": []}
    keys = [kms.key() for _ in range(2)]
    for name, key in zip(("globex", "initech"), keys):
        dba.run("SELECT cmk.register_tenant(%s, %s, activate => false)", name, key)
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared', activate => false)")
    found = statements(dba.one("SELECT cmk.service_policy()"))
    assert [found[f"CmkEncryptUse{number}"]["Resource"] for number in (1, 2)] == keys
    assert found["CmkEncryptWatch"]["Resource"] == sorted(keys)
    dba.run("UPDATE cmk.tenant SET state = 'shredded' WHERE tenant = 'initech'")
    assert dba.one("SELECT cmk.service_policy()") == dba.one("SELECT cmk.service_policy('globex')")
    for call in ("key_policy", "service_policy", "onboarding"):
        with fails("55000", "tenant_shredded", "initech"):
            dba.one(f"SELECT cmk.{call}('initech')")


def test_index_keys_are_asked_for_where_there_are_or_will_be_some(session, database, kms):
    dba = session(dbname=database())

    def purposes(name):
        use = statements(dba.one("SELECT cmk.key_policy(%s)", name)["key_policy"])["CmkEncryptUse"]
        return use["Condition"]["StringEquals"]["kms:EncryptionContext:purpose"]

    for name in ("globex", "initech"):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, kms.key())
    assert purposes("globex") == purposes("initech") == "values"
    dba.run("SELECT cmk.rotate_index_key('globex')")
    assert (purposes("globex"), purposes("initech")) == (["values", "index"], "values")
    dba.run("CREATE TABLE people (tenant text, name text)")
    dba.run("SELECT cmk.protect_column('people', 'name', tenant_column => 'tenant', searchable => true)")
    assert purposes("initech") == ["values", "index"]


def test_a_role_is_used_as_the_options_say(dba, server, pending, kms):
    role = "arn:aws:iam::111122223333:role/cmk"
    globex = pending(role_arn=role, external_id="globex-5c0a1f")
    with server.settings(service_principal=PRINCIPAL):
        returned = dba.one("SELECT cmk.key_policy(%s)", globex.name)
    assert sorted(returned) == ["key", "permissions_policy", "role", "trust_policy"]
    trust = statements(returned["trust_policy"])["CmkEncryptAssume"]
    assert trust["Principal"] == {"AWS": PRINCIPAL}
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": "globex-5c0a1f"}}
    ours = dba.one("SELECT cmk.service_policy(%s)", globex.name)
    assert [statement["Action"] for statement in ours["Statement"]] == ["sts:AssumeRole"]


def test_nobody_else_is_told(app, pending):
    """Names of tenants, keys and roles are the registry's."""
    globex = pending()
    for call in ("key_policy(%s)", "service_policy(%s)", "onboarding(%s)", "service_policy()"):
        with fails_with("42501"):
            app.one(f"SELECT cmk.{call}", *([globex.name] if "%s" in call else []))


def test_formats_are_of_the_whole_policy(dba, pending):
    globex = pending()
    policy = json.loads(dba.one("SELECT cmk.onboarding(%s, 'policy')", globex.name))
    assert list(statements(policy)) == ["OwnAccount", "CmkEncryptUse", "CmkEncryptWatch"]


def test_the_page_has_what_the_functions_return(session, server, database):
    """Every policy on docs/onboarding.md, to the letter."""
    dba = session(dbname=database())
    dba.run("CREATE TABLE people (tenant text, name text)")
    dba.run("SELECT cmk.protect_column('people', 'name', tenant_column => 'tenant', searchable => true)")
    key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    role = {"role_arn": "arn:aws:iam::111122223333:role/cmk-encrypt", "external_id": "globex-5c0a1f"}
    register = "SELECT cmk.register_tenant('globex', %s, %s, activate => false)"
    with server.settings(service_principal="arn:aws:iam::444455556666:role/postgres"):
        dba.run(register, key, "{}")
        whole = json.loads(dba.one("SELECT cmk.onboarding('globex', 'policy')"))
        ours = dba.one("SELECT cmk.service_policy('globex')")
        assert dba.one("SELECT cmk.key_policy('globex')")["key_policy"]["Statement"] == whole["Statement"][1:]
        guide = dba.one("SELECT cmk.onboarding('globex')")
        dba.run("SELECT cmk.alter_tenant_options('globex', %s)", json.dumps(role))
        trust = dba.one("SELECT cmk.key_policy('globex')")["trust_policy"]
    written = [json.loads(text) for _, text in docs("onboarding.md").blocks("json")]
    policies = [document for document in written if "Statement" in document]
    assert policies == [whole, trust, ours]
    [grant_constraints] = [document for document in written if "EncryptionContextEquals" in document]
    assert json.dumps(grant_constraints, indent=2) in guide
    # The README shows the heart of it.
    [[_, text]] = docs("../README.md").blocks("json")
    assert json.loads(text) == whole["Statement"][1]
