"""Who may do what: default deny, one grant per role and tenant, checked on every call."""

import pytest

from support import CANARY, fails, fails_with, grant, unique


def revoke(dba, tenant, role, **arguments):
    names = "".join(f", {argument} => %s" for argument in arguments)
    dba.run(f"SELECT cmk.revoke_access(%s, %s{names})", str(tenant), role, *arguments.values())


@pytest.fixture
def sealed(app, local_tenant):
    tenant = local_tenant()
    return tenant, app.encrypt(tenant)


def may(session, tenant, envelope, encrypt, decrypt):
    """Asserts both rights of a session, refusals included."""
    for allowed, use in ((encrypt, lambda: session.encrypt(tenant)), (decrypt, lambda: session.decrypt(tenant, envelope))):
        if allowed:
            assert use()
        else:
            with fails("42501", "no_grant", tenant):
                use()
    return True


def test_without_a_grant_nobody_may_not_even_a_superuser(session, role, dba, sealed):
    for stranger in (session(role()), session(role("LOGIN SUPERUSER")), dba):
        assert may(stranger, *sealed, encrypt=False, decrypt=False)


def test_a_superuser_may_after_a_grant_that_shows(dba, sealed):
    tenant, envelope = sealed
    grant(dba, tenant, "postgres")
    assert may(dba, tenant, envelope, True, True)
    assert dba.row(
        "SELECT encrypt, decrypt FROM cmk.access WHERE tenant = %s AND role = 'postgres'::regrole", tenant.name
    ) == (True, True)


@pytest.mark.parametrize("encrypt, decrypt", [(True, False), (False, True)])
def test_encrypt_and_decrypt_are_granted_apart(session, role, dba, sealed, encrypt, decrypt):
    user = session(role())
    grant(dba, sealed[0], user.role, encrypt=encrypt, decrypt=decrypt)
    assert may(user, *sealed, encrypt, decrypt)


def test_grants_add_up_and_revokes_take_away_one_right(session, role, dba, sealed):
    user = session(role())
    grant(dba, sealed[0], user.role, decrypt=False)
    grant(dba, sealed[0], user.role, encrypt=False)
    assert may(user, *sealed, True, True)
    revoke(dba, sealed[0], user.role, decrypt=False)
    assert may(user, *sealed, False, True)
    revoke(dba, sealed[0], user.role)
    assert may(user, *sealed, False, False)


def test_a_grant_is_for_one_tenant(session, role, dba, sealed, local_tenant):
    user, other = session(role()), local_tenant()
    grant(dba, other, user.role)
    assert may(user, *sealed, False, False)


def test_a_grant_for_every_tenant_covers_later_ones_too(session, role, dba, sealed, local_tenant):
    user = session(role())
    grant(dba, "*", user.role)
    assert may(user, *sealed, True, True)
    later = local_tenant(to=())
    assert user.decrypt(later, user.encrypt(later)) == CANARY
    revoke(dba, "*", user.role)
    assert may(user, *sealed, False, False)


def test_revoking_one_tenant_leaves_a_grant_for_every_tenant(session, role, dba, sealed):
    user = session(role())
    grant(dba, "*", user.role)
    grant(dba, sealed[0], user.role)
    revoke(dba, sealed[0], user.role)
    assert may(user, *sealed, True, True)


def test_a_grant_to_a_group_reaches_members_that_inherit(session, role, dba, sealed):
    group, member, apart = role("NOLOGIN"), session(role()), session(role("LOGIN NOINHERIT"))
    grant(dba, sealed[0], group)
    for user in (member, apart):
        dba.run(f"GRANT {group} TO {user.role}")
    assert may(member, *sealed, True, True)
    assert may(apart, *sealed, False, False)
    apart.run(f"SET ROLE {group}")
    assert may(apart, *sealed, True, True)
    apart.run("RESET ROLE")
    assert may(apart, *sealed, False, False)


def test_role_membership_takes_effect_in_a_warm_session_at_commit(session, role, dba, sealed):
    group, user = role("NOLOGIN"), session(role())
    grant(dba, sealed[0], group)
    assert may(user, *sealed, False, False)
    with dba.connection.transaction():
        dba.run(f"GRANT {group} TO {user.role}")
        assert may(user, *sealed, False, False)
    assert may(user, *sealed, True, True)
    with dba.connection.transaction():
        dba.run(f"REVOKE {group} FROM {user.role}")
        assert may(user, *sealed, True, True)
    assert may(user, *sealed, False, False)


def test_a_membership_two_roles_away_takes_effect_too(session, role, dba, sealed):
    upper, lower, user = role("NOLOGIN"), role("NOLOGIN"), session(role())
    grant(dba, sealed[0], upper)
    dba.run(f"GRANT {lower} TO {user.role}")
    assert may(user, *sealed, False, False)
    dba.run(f"GRANT {upper} TO {lower}")
    assert may(user, *sealed, True, True)
    dba.run(f"ALTER ROLE {lower} NOINHERIT")
    dba.run(f"REVOKE {upper} FROM {lower}")
    assert may(user, *sealed, False, False)


def test_set_role_and_set_session_authorization_lose_the_rights_of_the_login_role(session, role, dba, sealed):
    boss = session(role("LOGIN SUPERUSER"))
    nobody = role()
    grant(dba, sealed[0], boss.role)
    assert may(boss, *sealed, True, True)
    for switch in ("ROLE", "SESSION AUTHORIZATION"):
        boss.run(f"SET {switch} {nobody}")
        assert may(boss, *sealed, False, False)
        boss.run(f"RESET {switch}")
        assert may(boss, *sealed, True, True)


def test_a_security_definer_function_acts_with_its_owners_grant(app, session, role, dba, sealed):
    tenant, envelope = sealed
    user, function = session(role()), unique("reveal")
    dba.run(
        f"CREATE FUNCTION {function}(v bytea) RETURNS bytea LANGUAGE sql SECURITY DEFINER"
        f" SET search_path = pg_catalog AS $$ SELECT pg_catalog.cmk_decrypt('{tenant}', v) $$"
    )
    dba.run(f"ALTER FUNCTION {function} OWNER TO {app.role}")
    assert may(user, *sealed, False, False)
    assert user.one(f"SELECT {function}(%b)", envelope) == CANARY
    assert may(user, *sealed, False, False)


def test_a_security_definer_function_takes_the_callers_grant_away(app, role, dba, sealed):
    function = unique("reveal")
    dba.run(
        f"CREATE FUNCTION {function}(v bytea) RETURNS bytea LANGUAGE sql SECURITY DEFINER"
        f" AS $$ SELECT pg_catalog.cmk_decrypt('{sealed[0]}', v) $$"
    )
    dba.run(f"ALTER FUNCTION {function} OWNER TO {role('NOLOGIN')}")
    with fails("42501", "no_grant", sealed[0]):
        app.one(f"SELECT {function}(%b)", sealed[1])


def test_dropping_a_role_leaves_no_grant_for_the_next_one(session, role, dba, server, sealed):
    name = role()
    grant(dba, sealed[0], name)
    dba.run(f"DROP ROLE {name}")
    dba.run(f"CREATE ROLE {name} LOGIN")
    assert may(session(name), *sealed, False, False)


def test_no_kms_call_is_made_for_a_role_that_may_not(session, role, kms, tenant):
    made, user = tenant(), session(role())
    before = kms.counters()["total"]
    for _ in range(3):
        with fails("42501", "no_grant", made):
            user.encrypt(made)
    assert kms.counters()["total"] == before


def extension_objects(dba, catalog):
    return (
        f"SELECT c.* FROM pg_depend d JOIN {catalog} c ON c.oid = d.objid JOIN pg_extension e ON e.oid = d.refobjid"
        f" WHERE d.deptype = 'e' AND d.classid = '{catalog}'::regclass AND d.refclassid = 'pg_extension'::regclass"
        " AND e.extname = 'cmk_encrypt'"
    )


@pytest.mark.parametrize("function", ["cmk_decrypt", "cmk_decrypt_text", "cmk_try_decrypt", "cmk_try_decrypt_text"])
def test_a_nobody_gets_nothing_from_the_functions_for_applications(session, role, sealed, function):
    nobody = session(role())
    with fails("42501", "no_grant", sealed[0]):
        nobody.one(f"SELECT {function}(%s, %b)", sealed[0].name, sealed[1])
    for call in ("cmk_encrypt(%s, 'x'::bytea)", "cmk_encrypt(%s, 'x'::text)", "cmk_encrypt_text(%s, 'x'::text)"):
        with fails("42501", "no_grant", sealed[0]):
            nobody.one(f"SELECT {call}", sealed[0].name)


def test_a_nobody_can_read_and_write_no_table_view_or_sequence(session, role, dba):
    relations = dba.all(
        f"SELECT oid::regclass::text, relkind::text FROM ({extension_objects(dba, 'pg_class')}) c"
        # Of protected columns everybody knows what the catalogs say, of re-encryptions those of their own tables.
        " WHERE relname NOT IN ('protected_columns', 'reencrypt_progress', 'reencrypt_failures')"
    )
    nobody = session(role())
    kinds = {kind for _, kind in relations}
    assert {"r", "v"} <= kinds
    for relation, kind in relations:
        statements = {
            "r": ["SELECT * FROM {}", "TABLE {} FOR UPDATE", "INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}",
                  "TRUNCATE {}", "COPY {} TO STDOUT", "LOCK TABLE {}", "SELECT count(*) FROM {}"],
            "v": ["SELECT * FROM {}", "SELECT count(*) FROM {}"],
            "S": ["SELECT nextval('{}')", "SELECT * FROM {}"],
        }.get(kind, [])
        for statement in statements:
            with fails_with("42501"), nobody.connection.transaction():
                nobody.connection.execute(statement.format(relation))


def test_a_nobody_cannot_make_objects_in_the_schema_of_the_administration(session, role):
    nobody = session(role())
    for statement in ("CREATE TABLE cmk.mine ()", "CREATE FUNCTION cmk.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"):
        with fails_with("42501"):
            nobody.run(statement)
