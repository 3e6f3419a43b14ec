"""Arguments out of all proportion where memory is short, names that deceive the eye, and other
edges: a clean error, and everybody goes on."""

import unicodedata

import psycopg
import pytest

from server import until
from support import CANARY, Session, check_failure, fails, fails_with, grant, unique
from test_hardening import MEGABYTE, limit_address_space, unharmed
from watched import MONITOR, running

# A monitor that left comes back within this many seconds.
BACK = 20


# A server with little memory


@pytest.fixture(scope="module")
def poor_server(make_server):
    """Each of its processes gets an address space of 3 GB, PostgreSQL's own needs included."""
    server = make_server({"shared_preload_libraries": "cmk_encrypt"})
    server.make_local_key("shared")
    limit_address_space(server, server.pid, 3072 * MEGABYTE)
    server.execute("CREATE EXTENSION cmk_encrypt")
    server.execute("SELECT cmk.register_tenant('acme', 'local:shared')")
    server.execute("CREATE ROLE nobody LOGIN")
    server.execute("CREATE ROLE somebody LOGIN")
    server.execute("SELECT cmk.grant_access('acme', 'somebody')")
    return server


@pytest.fixture
def poor(poor_server, session):
    """Makes sessions on it; whatever they do, none of its processes may die of it."""
    bystander = session("somebody", dbname="postgres", on=poor_server)
    with unharmed(poor_server, bystander):
        yield lambda role="postgres": session(role, dbname="postgres", on=poor_server)
    assert bystander.decrypt("acme", bystander.encrypt("acme")) == CANARY
    assert "terminated by signal" not in poor_server.log.read_text()


def names(count, name="not_authentic"):
    return f"array_fill('{name}'::text, ARRAY[{count}])"


def huge(megabytes=500):
    """An SQL expression of a text of so many megabytes."""
    return f"repeat('x', {megabytes * MEGABYTE})"


def is_refused_for_want_of_memory_or(expected, user, call):
    """Asserts a clean error: one of these, or an allocation of anybody's that failed."""
    with pytest.raises(psycopg.Error) as caught:
        user.one(f"SELECT {call}")
    error = caught.value
    if error.sqlstate != "53200":
        check_failure(error, *expected[error.sqlstate])
    assert user.usable()


@pytest.mark.parametrize("call", [
    "cmk_try_decrypt('acme', '\\x00', forgive => {})",
    "cmk_try_decrypt_text('acme', '\\x00', forgive => {})",
    "cmk_try_decrypt('acme', NULL, forgive => {})",
])
@pytest.mark.parametrize("role", ["nobody", "somebody"])
def test_forty_million_reasons_to_forgive_are_too_many(poor, role, call):
    user = poor(role)
    with fails("22023", "too_many_names"):
        user.one(f"SELECT {call.format(names(40_000_000))}")
    assert user.usable()


def test_twenty_million_tenants_to_warm_are_too_many(poor):
    dba = poor()
    with fails("22023", "too_many_names"):
        dba.one(f"SELECT cmk.warm(VARIADIC {names(20_000_000)})")
    assert dba.usable()


def test_as_many_names_as_are_allowed_are_not_too_many(poor):
    user, dba = poor("somebody"), poor()
    call = "SELECT cmk_try_decrypt('acme', cmk_encrypt('acme', %b, 'here'), 'there', {})"
    assert user.one(call.format(names(256)), CANARY) is None
    with fails("22023", "too_many_names"):
        user.one(call.format(names(257)), CANARY)
    grant(dba, "acme", "postgres")
    size = int(dba.one("SHOW cmk_encrypt.cache_size"))
    assert dba.one(f"SELECT cmk.warm(VARIADIC {names(size, 'acme')})") >= 1
    with fails("22023", "too_many_names"):
        dba.one(f"SELECT cmk.warm(VARIADIC {names(size + 1, 'acme')})")


ARN = "'arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'"
HUGE_ARGUMENTS = {
    "key URI": (f"cmk.register_tenant('new', {huge()})", "key_uri"),
    "local key URI": (f"cmk.register_tenant('new', 'local:' || {huge()})", "key_uri"),
    # PostgreSQL's jsonb holds no longer strings.
    "options": (f"cmk.register_tenant('new', {ARN}, jsonb_build_array({huge(200)}))", "key_options"),
    "options to alter": (f"cmk.alter_tenant_options('acme', jsonb_build_array({huge(200)}))", "key_options"),
    "tenant to alter": (f"cmk.alter_tenant_options({huge()}, '{{}}')", "tenant_name"),
    "tenant to register": (f"cmk.register_tenant({huge()}, 'local:shared')", "tenant_name"),
    **{
        f"tenant to {function}": (f"cmk.{function}({huge()})", "tenant_name")
        for function in ("activate_tenant", "rotate_tenant", "suspend_tenant", "evict", "warm", "confirm_rewrap",
                         "cancel_rewrap")
    },
    "tenant to rewrap": (f"cmk.rewrap_tenant({huge()}, 'local:shared')", "tenant_name"),
    "key to rewrap for": (f"cmk.rewrap_tenant('acme', 'local:' || {huge()})", "key_uri"),
    "tenant to grant": (f"cmk.grant_access({huge()}, 'nobody')", "tenant_name"),
    "tenant to encrypt for": (f"cmk_encrypt({huge()}, 'x')", "tenant_name"),
    "tenant to decrypt for": (f"cmk_decrypt({huge()}, 'x')", "tenant_name"),
    "name to forgive": (f"cmk_try_decrypt('acme', 'x', forgive => ARRAY[{huge()}])", "reason_name"),
}


@pytest.mark.parametrize("call, reason", HUGE_ARGUMENTS.values(), ids=list(HUGE_ARGUMENTS))
def test_an_argument_of_500_megabytes_is_refused(poor, call, reason):
    is_refused_for_want_of_memory_or({"22023": ("22023", reason)}, poor(), call)


@pytest.mark.parametrize("role, function, sqlstate, reason", [
    ("nobody", "cmk_decrypt_text", "42501", "no_grant"),
    ("somebody", "cmk_decrypt", "39000", "not_authentic"),
])
def test_a_ciphertext_of_500_megabytes_is_refused(poor, role, function, sqlstate, reason):
    user, sealed = poor(role), poor("somebody").encrypt("acme").hex()
    value = f"convert_to({huge()}, 'UTF8')"
    expected = {"22P03": ("22P03", "not_an_envelope")}
    is_refused_for_want_of_memory_or(expected, user, f"{function}('acme', {value})")
    value, expected = f"'\\x{sealed}'::bytea || {value}", {sqlstate: (sqlstate, reason)}
    is_refused_for_want_of_memory_or(expected, user, f"{function}('acme', {value})")


# Names that deceive the eye

DECEPTIVE = ["\u202e", "\u200b", "\u2066", "\ufeff", "\u00ad", "\u2028", "\U000e0001"]
ORDINARY = ["東京", "Ünïcödé", "e\u0301\u0302", "العربية", "नमस्ते", "ไทย", "한국어", "👍🏽🗝"]


@pytest.mark.parametrize("character", DECEPTIVE, ids=lambda character: f"U+{ord(character):04X}")
def test_a_name_with_an_invisible_character_is_refused(dba, app, character):
    for name in (f"acme{character}", f"{character}acme", f"ac{character}me"):
        for call in ("register_tenant(%s, 'local:shared')", "rotate_tenant(%s)"):
            with fails("22023", "tenant_name"):
                dba.run(f"SELECT cmk.{call}", name)
        with fails("22023", "tenant_name"):
            app.encrypt(name)


@pytest.mark.parametrize("name", ORDINARY, ids=lambda name: unicodedata.name(name[0]))
def test_a_name_in_another_script_is_fine(app, local_tenant, name):
    tenant = local_tenant(name=f"{unique('t')} {name}")
    assert app.decrypt(tenant, app.encrypt(tenant)) == CANARY


# Odd settings and odd calls


def test_grants_are_found_without_indexes_and_none_is_made_up(session, role, dba, local_tenant):
    tenant, other = local_tenant(to=()), local_tenant(to=())
    every, one, none = role(), role(), role()
    grant(dba, "*", every)
    grant(dba, tenant, one)
    options = "-c ignore_system_indexes=on"
    for name, tenants in ((every, {tenant, other}), (one, {tenant}), (none, set())):
        user = session(name, options=options)
        assert user.one("SHOW ignore_system_indexes") == "on"
        for used in (tenant, other):
            if used in tenants:
                assert user.decrypt(used, user.encrypt(used)) == CANARY
            else:
                with fails("42501", "no_grant", used):
                    user.encrypt(used)
    dba.run("SELECT cmk.revoke_access('*', %s)", every)
    with fails("42501", "no_grant", tenant):
        session(every, options=options).encrypt(tenant)


@pytest.mark.parametrize("function", ["registry_guard", "registry_changed"])
def test_a_trigger_function_that_is_called_as_none_says_so(dba, function):
    with fails("39P01", "not_a_trigger_call"):
        dba.run(f"SELECT cmk.{function}()")
    assert dba.usable()


# The owner of a monitored database


@pytest.fixture
def owned(make_server, session):
    """A server, its superuser and the owner of its monitored database."""
    with running(make_server, monitor_databases="owned") as server:
        dba = Session(server.connect())
        dba.run("CREATE ROLE owner LOGIN CREATEDB")
        dba.run("CREATE DATABASE owned OWNER owner")
        server.execute("CREATE EXTENSION cmk_encrypt", "owned")
        monitors = f"SELECT pid FROM pg_stat_activity WHERE {MONITOR} AND datname = 'owned'"
        until(lambda: dba.all(monitors), BACK, "the monitor")
        yield server, lambda: dba.all(monitors), session("owner", dbname="postgres", on=server)


def test_the_owner_of_a_monitored_database_copies_and_drops_it_without_force(owned):
    server, monitors, owner = owned
    owner.run("CREATE DATABASE another TEMPLATE owned")
    until(monitors, BACK, "the monitor, after it made room for the copy")
    owner.run("DROP DATABASE owned")
    assert not monitors()
    assert owner.all("SELECT datname FROM pg_database WHERE datname = 'owned'") == []
    owner.run("DROP DATABASE another")


def test_after_a_drop_that_failed_the_monitor_comes_back(owned):
    server, monitors, owner = owned
    with server.connect("owned", "owner") as holder:
        with fails_with("55006"):
            owner.run("DROP DATABASE owned")
        until(monitors, BACK, "the monitor")
        assert holder.execute("SELECT 1").fetchone() == (1,), "nobody else was thrown out"
    owner.run("DROP DATABASE owned")


def test_who_may_not_drop_a_monitored_database_does_not_disturb_its_monitor(owned, session):
    server, monitors, owner = owned
    before = monitors()
    server.execute("CREATE ROLE nobody LOGIN")
    for statement in ("DROP DATABASE owned", "CREATE DATABASE mine TEMPLATE owned"):
        with fails_with("42501"):
            session("nobody", dbname="postgres", on=server).run(statement)
    assert monitors() == before
