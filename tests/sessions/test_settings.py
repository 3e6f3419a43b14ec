"""Settings belong to whoever runs the server: no session can change one, on no way there is. But for how a session
reads and writes protected columns, which is its own affair."""

import psycopg
import pytest

from server import until
from support import CANARY, fails, fails_with

SETTINGS = {
    "cache_ttl": "1d",
    "cache_size": "7",
    "failure_ttl": "0",
    "kms_endpoint_url": "http://127.0.0.1:1",
    "sts_endpoint_url": "http://127.0.0.1:1",
    "service_principal": "arn:aws:iam::777788889999:role/mine",
    "kms_connect_timeout": "7s",
    "kms_attempt_timeout": "7s",
    "kms_operation_timeout": "7s",
    "kms_max_attempts": "7",
    "kms_clients": "7",
    "local_keys": "off",
    "local_key_directory": "/tmp",
    "cache_soft_ttl": "7s",
    "refresh_wait": "7s",
    "promised_bound": "11min",
    "tenant_call_budget": "7",
    "shared_keyring_size": "77",
    "rotate_after": "7s",
    "rotate_after_values": "7",
    "shred_delay": "7s",
    "monitor_databases": "postgres",
    "monitor_interval": "7s",
    "log_repeats": "7",
    "monitor_budget": "7",
}
each_setting = pytest.mark.parametrize("name", SETTINGS)
# Of sessions, with a value that isn't the default.
OF_SESSIONS = {"output": "plaintext", "input": "envelope", "tenant": "a", "wire_type": "text"}


def full(name):
    return f"cmk_encrypt.{name}"


def effective(dba, name):
    """What the server as a whole uses, as a session that set nothing shows it."""
    dba.run("LOAD 'cmk_encrypt'")
    return dba.one("SELECT current_setting(%s)", full(name))


def load(session):
    """Any call loads the library into this session; this one needs no tenant."""
    assert session.one("SELECT cmk_encrypt('anyone', NULL)") is None


def test_every_setting_is_one_of_the_server_or_how_a_session_reads_and_writes_columns(dba):
    dba.run("LOAD 'cmk_encrypt'")
    rows = dba.all("SELECT name, context, short_desc <> '' FROM pg_settings WHERE name LIKE 'cmk\\_encrypt.%'")
    of_the_server = [(full(name), "sighup", True) for name in SETTINGS]
    assert sorted(rows) == sorted(of_the_server + [(full(name), "user", True) for name in OF_SESSIONS])


@each_setting
@pytest.mark.parametrize("statement", ["SET {} = '{}'", "SET LOCAL {} = '{}'", "SELECT set_config('{}', '{}', false)",
                                       "ALTER SYSTEM SET {} = '{}'"])
def test_an_ordinary_user_cannot_set_it_once_the_library_is_loaded(app, name, statement):
    load(app)
    expected = "42501" if statement.startswith("ALTER") else "55P02"
    with fails_with(expected):
        app.run(statement.format(full(name), SETTINGS[name]))


@each_setting
def test_not_even_a_superuser_sets_it_for_a_session(dba, name):
    load(dba)
    with fails_with("55P02"):
        dba.run(f"SET {full(name)} = '{SETTINGS[name]}'")
    with fails_with("55P02"):
        dba.run(f"UPDATE pg_settings SET setting = '7' WHERE name = '{full(name)}'")


@each_setting
def test_a_placeholder_set_before_the_library_is_loaded_has_no_effect(session, role, dba, name):
    admin, before = session(role("LOGIN SUPERUSER")), effective(dba, name)
    admin.run(f"SET {full(name)} = '{SETTINGS[name]}'")
    assert admin.one("SELECT current_setting(%s)", full(name)) == SETTINGS[name], "a placeholder so far"
    load(admin)
    assert admin.one("SELECT current_setting(%s)", full(name)) == before
    assert before != SETTINGS[name]


@each_setting
def test_a_session_that_brings_one_in_its_connection_string_cannot_load_the_library(session, role, name):
    user = session(role("LOGIN SUPERUSER"), options=f"-c {full(name)}={SETTINGS[name]}")
    for _ in range(2):
        with fails("F0000", "settings_overridden"):
            load(user)
    with fails("F0000", "settings_overridden"):
        user.run("LOAD 'cmk_encrypt'")
    assert user.usable()


@each_setting
@pytest.mark.parametrize("target", ["ROLE {0}", "DATABASE {1}", "ROLE {0} IN DATABASE {1}"])
def test_nor_can_one_whose_role_or_database_brings_it(session, role, database, name, target):
    user, where = role("LOGIN SUPERUSER"), database()
    # From a session without the library, where PostgreSQL takes it for a placeholder.
    session().run(f"ALTER {target.format(user, where)} SET {full(name)} = '{SETTINGS[name]}'")
    overridden = session(user, dbname=where)
    with fails("F0000", "settings_overridden"):
        load(overridden)
    assert overridden.usable()
    session().run(f"ALTER {target.format(user, where)} RESET {full(name)}")
    load(session(user, dbname=where))


def test_a_preloaded_library_makes_postgresql_refuse_the_connection(make_server, session):
    server = make_server({"shared_preload_libraries": "cmk_encrypt"})
    for name, value in SETTINGS.items():
        with pytest.raises(psycopg.OperationalError, match=rf'FATAL:  parameter "{full(name)}" cannot be changed (now|without restarting)'):
            server.connect(options=f"-c {full(name)}={value}")
        with fails_with("55P02"):
            session(dbname="postgres", on=server).run(f"ALTER ROLE postgres SET {full(name)} = '{value}'")


def test_a_placeholder_does_not_move_the_endpoint_that_is_called(session, kms, app, tenant):
    made = tenant()
    user = session(app.role)
    user.run("SET cmk_encrypt.kms_endpoint_url = 'http://127.0.0.1:1'")
    before = kms.calls(made.key_uri)
    assert user.decrypt(made, user.encrypt(made)) == CANARY
    assert kms.calls(made.key_uri) == before + 1


def test_no_session_prolongs_the_revocation_bound(server, session, kms, app, tenant):
    made = tenant()
    with server.settings(cache_ttl="1s"):
        user = session(app.role)
        user.run("SET cmk_encrypt.cache_ttl = '1d'")
        envelope = user.encrypt(made)
        kms.state(made.key_uri, "Disabled")
        forgiven = "SELECT cmk_try_decrypt(%s, %b, forgive => ARRAY['key_disabled'])"
        until(lambda: user.one(forgiven, made.name, envelope) is None, timeout=1.5, what="the end of the TTL")


def test_a_placeholder_does_not_switch_local_keys_on(server, session, app, local_tenant):
    made = local_tenant()
    with server.settings(local_keys="off"):
        user = session(app.role)
        user.run("SET cmk_encrypt.local_keys = on")
        with fails("F0000", "local_keys_off", made):
            user.encrypt(made)


def test_a_misspelt_setting_is_refused(app):
    load(app)
    with fails_with("42602"):
        app.run("SET cmk_encrypt.cache_tll = 1")


@pytest.mark.parametrize("name", ["kms_endpoint_url", "sts_endpoint_url", "service_principal", "local_key_directory"])
def test_an_ordinary_user_cannot_read_where_keys_come_from(app, name):
    load(app)
    with fails_with("42501"):
        app.run(f"SHOW {full(name)}")


@pytest.mark.parametrize(
    "name, value",
    [("cache_ttl", "-1"), ("cache_ttl", "0"), ("cache_ttl", "forever"), ("cache_size", "0"), ("cache_size", "-5"),
     ("kms_max_attempts", "0"), ("kms_attempt_timeout", "0"), ("local_keys", "maybe")],
)
def test_a_value_that_makes_no_sense_is_refused(dba, name, value):
    dba.run("LOAD 'cmk_encrypt'")
    with fails_with("22023"):
        dba.run(f"ALTER SYSTEM SET {full(name)} = '{value}'")


def test_alter_system_and_reload_take_effect_in_an_open_session(server, app, dba, local_tenant):
    made = local_tenant()
    envelope = app.encrypt(made)
    with server.settings(local_keys="off"):
        assert app.decrypt(made, envelope) == CANARY, "a cached key serves until its TTL"
        dba.run("SELECT cmk.evict(%s)", made.name)
        with fails("F0000", "local_keys_off", made):
            app.decrypt(made, envelope)
        dba.run("SELECT cmk.evict(%s)", made.name)
    assert app.decrypt(made, envelope) == CANARY


def test_an_endpoint_in_clear_text_is_for_this_machine_only(server, dba, app, kms, tenant):
    made = tenant()
    for url in ("http://kms.example", "http://127.0.0.1.example", "http://127.0.0.1@evil.example", "ftp://127.0.0.1", "nonsense"):
        with server.settings(kms_endpoint_url=url):
            with fails("F0000", "endpoint", made):
                app.encrypt(made)
            dba.run("SELECT cmk.evict(%s)", made.name)
    with server.settings(kms_endpoint_url=kms.url.replace("127.0.0.1", "localhost")):
        assert app.decrypt(made, app.encrypt(made)) == CANARY


# Of sessions


@pytest.mark.parametrize("name", OF_SESSIONS)
@pytest.mark.parametrize("way", ["SET", "connection", "ROLE {0}", "DATABASE {1}", "ROLE {0} IN DATABASE {1}"])
@pytest.mark.parametrize("preload", [False, True], ids=["loaded late", "preloaded"])
def test_a_session_has_what_it_was_given_before_and_after_the_library_is_loaded(
    session, role, database, name, way, preload
):
    user, where, value = role(), database(), OF_SESSIONS[name]
    owner = session(dbname=where)
    if preload:
        owner.run(f"ALTER DATABASE {where} SET session_preload_libraries = cmk_encrypt")
    if "{" in way:
        owner.run(f"ALTER {way.format(user, where)} SET {full(name)} = {value}")
    hers = session(user, dbname=where, **{"options": f"-c {full(name)}={value}"} if way == "connection" else {})
    if way == "SET":
        hers.run(f"SET {full(name)} = {value}")
    for _ in range(2):
        assert hers.one(f"SHOW {full(name)}") == value
        load(hers)


@pytest.mark.parametrize("name", [name for name in OF_SESSIONS if name != "tenant"])
def test_a_session_cannot_be_given_what_a_setting_does_not_know(app, name):
    load(app)
    with fails_with("22023"):
        app.run(f"SET {full(name)} = 'other'")
