"""What must not be seen anywhere, and what must not change in a backend."""

import base64
import secrets
from pathlib import Path

import pytest

from leaks import Search, forms
from local_key import read_local_key, unwrap_local
from server import until
from support import CANARY, fails, fails_with, grant, unique


def proc_status(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise KeyError(field)


# Glibc's first real-time signal is 34; bit 0 of the mask is signal 1.
EXPIRY = 1 << (34 + 8 - 1)


def signals_and_threads(pid):
    """What PostgreSQL relies on, but for the one signal by which expired data keys are zeroed."""
    masks = {field: int(proc_status(pid, field), 16) for field in ("SigBlk", "SigIgn", "SigCgt")}
    return {**masks, "SigCgt": masks["SigCgt"] | EXPIRY, "Threads": proc_status(pid, "Threads")}


def test_signals_and_threads_of_a_backend_are_as_before_after_calls_to_kms(server, app, kms, tenant):
    app.run("SELECT 1")
    before = signals_and_threads(app.pid)
    made = tenant()
    app.encrypt(made)
    kms.deny(made.key_uri)
    with server.settings(kms_max_attempts=1):
        other = tenant()
        with kms.fault("hang", arn=other.key_uri), server.settings(kms_attempt_timeout="200ms"):
            with fails("58000", "kms_timeout", other):
                app.encrypt(other)
    until(lambda: signals_and_threads(app.pid) == before, timeout=1, what=f"signals and threads back at {before}")


def test_a_name_resolved_over_dns_leaves_no_thread_either(server, app, kms, tenant):
    before = {field: proc_status(app.pid, field) for field in ("SigBlk", "Threads")}
    made = tenant()
    with server.settings(kms_endpoint_url=kms.url.replace("127.0.0.1", "localhost")):
        app.encrypt(made)
    for field, value in before.items():
        until(lambda: proc_status(app.pid, field) == value, timeout=15, what=f"{field} back at {value}")


def nonces(user, tenant, count=2000):
    rows = user.all("SELECT substr(cmk_encrypt(%s, 'x'), 19, 24) FROM generate_series(1, %s)", str(tenant), count)
    return [nonce for (nonce,) in rows]


def test_nonces_of_different_backends_never_meet(session, app, local_tenant):
    tenant = local_tenant()
    drawn = [nonce for _ in range(4) for nonce in nonces(session(app.role), tenant)]
    assert len(set(drawn)) == len(drawn) == 8000


@pytest.fixture(scope="module")
def preloaded(make_server):
    server = make_server({"shared_preload_libraries": "cmk_encrypt"})
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    return server


def test_nonces_of_backends_forked_from_a_preloaded_postmaster_never_meet(preloaded, session, kms):
    dba = session(dbname="postgres", on=preloaded)
    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(dba, "a", "postgres")
    users = [dba] + [session(dbname="postgres", on=preloaded) for _ in range(4)]
    drawn = [nonce for user in users for nonce in nonces(user, "a")]
    assert len(set(drawn)) == len(drawn) == 10_000


def test_a_preloaded_library_does_the_main_job_and_starts_nothing_in_the_postmaster(preloaded, session, kms):
    dba = session(dbname="postgres", on=preloaded)
    dba.run("SELECT cmk.register_tenant('b', %s)", kms.key())
    grant(dba, "b", "postgres")
    assert dba.decrypt("b", dba.encrypt("b")) == CANARY
    assert proc_status(preloaded.pid, "Threads") == "1"


# What would store plaintext on the sly


def test_analyze_of_a_decrypting_expression_stores_no_plaintext(dba, local_tenant):
    tenant, table = local_tenant(), unique("patient")
    grant(dba, tenant, "postgres")
    dba.run(f"CREATE TABLE {table} (id int, sealed bytea)")
    dba.run(f"INSERT INTO {table} SELECT n, cmk_encrypt_text(%s, 'common plaintext') FROM generate_series(1, 300) n",
            tenant.name)
    dba.run(f"CREATE STATISTICS {table}_s ON (cmk_decrypt_text('{tenant}', sealed)) FROM {table}")
    dba.run(f"ANALYZE {table}")
    assert dba.row("SELECT null_frac, most_common_vals FROM pg_stats_ext_exprs WHERE statistics_name = %s",
                   f"{table}_s") == (1, None)
    assert dba.all("SELECT FROM pg_statistic_ext_data d WHERE d::text LIKE '%common plaintext%'") == []
    dba.run(f"DROP STATISTICS {table}_s")


@pytest.mark.parametrize("function", ["cmk_decrypt", "cmk_decrypt_text", "cmk_try_decrypt", "cmk_try_decrypt_text"])
def test_no_index_or_materialized_view_is_built_from_plaintext(dba, local_tenant, function):
    tenant, name = local_tenant(), unique("patient")
    grant(dba, tenant, "postgres")
    dba.run(f"CREATE TABLE {name} AS SELECT cmk_encrypt_text(%s, 'x') AS sealed", tenant.name)
    kind = "text" if function.endswith("_text") else "bytea"
    dba.run(
        f"CREATE FUNCTION {name}_f(v bytea) RETURNS {kind} LANGUAGE plpgsql IMMUTABLE"
        f" AS $$ BEGIN RETURN pg_catalog.{function}('{tenant}', v); END $$"
    )
    with fails("42501", "security_restricted_operation"):
        dba.run(f"CREATE INDEX ON {name} ({name}_f(sealed))")
    dba.run(f"CREATE MATERIALIZED VIEW {name}_m AS SELECT {function}('{tenant}', sealed) FROM {name} WITH NO DATA")
    with fails("42501", "security_restricted_operation"):
        dba.run(f"REFRESH MATERIALIZED VIEW {name}_m")


def test_what_opens_is_neither_immutable_nor_leakproof(dba):
    rows = dba.all(
        "SELECT DISTINCT proname::text, provolatile::text, proleakproof FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^cmk_.*crypt'"
    )
    assert sorted(rows) == [
        ("cmk_decrypt", "s", False), ("cmk_decrypt_text", "s", False),
        ("cmk_encrypt", "v", False), ("cmk_encrypt_nested", "v", False), ("cmk_encrypt_text", "v", False),
        ("cmk_try_decrypt", "s", False), ("cmk_try_decrypt_text", "s", False),
    ]
    # Of what takes a protected column's value, only what needs no key may be planned with, or indexed; and equality may
    # be asked before row-level security, as it tells nothing of the rows.
    rows = dba.all(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE (provolatile = 'i' OR proleakproof)"
        " AND proargtypes::oid[] && '{cmk_text, cmk_bytea, cmk_jsonb}'::regtype[]::oid[]"
    )
    assert sorted(name for (name,) in rows) == [
        "cmk_text_eq", *(f"cmk_token_{name}" for name in ("cmp", "eq", "ge", "gt", "le", "lt", "next_cmp", "next_eq")),
        "data_key_id", "envelope", "equal_any", "is_sealed", "sealed",
    ]


def test_every_object_of_the_extension_has_a_comment(dba):
    assert dba.all(
        "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d"
        " WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'"
        " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cmk_encrypt')"
        " AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass,"
        " 'pg_event_trigger'::regclass)"
        # Arrays and row types, which PostgreSQL 18 lists too, are described by what they belong to.
        " AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = objid"
        " AND (t.typrelid <> 0 OR t.typcategory = 'A')))"
        " AND obj_description(objid, classid::regclass::name) IS NULL"
    ) == []


# Hostile objects in the way

SHADOWED_FUNCTIONS = [
    "now() RETURNS timestamptz", "octet_length(bytea) RETURNS int", "octet_length(text) RETURNS int",
    "substring(bytea, int, int) RETURNS bytea", "count(text) RETURNS bigint",
    "envelope_header(bytea) RETURNS int", "make_interval(float8) RETURNS interval", "regrole(oid) RETURNS oid",
    "pg_has_role(oid, oid, text) RETURNS bool", "byteaeq(bytea, bytea) RETURNS bool",
]
SHADOWED_OPERATORS = [("=", "text", "text"), ("=", "bytea", "bytea"), ("=", "oid", "oid"), ("+", "bigint", "int"),
                      ("~", "text", "text"), ("=", "regrole", "regrole"), ("<>", "text", "text")]


def test_hostile_objects_on_the_search_path_are_never_called(session, role, database):
    dba = session(dbname=database())
    user = session(role(), dbname=dba.connection.info.dbname)
    dba.run("CREATE SCHEMA hostile")
    dba.run("GRANT ALL ON SCHEMA hostile TO PUBLIC")
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'P0T00'; END $$"
    for number, (operator, left, right) in enumerate(SHADOWED_OPERATORS):
        dba.run(f"CREATE FUNCTION hostile.trap{number}({left}, {right}) RETURNS bool {trap}")
        dba.run(
            f"CREATE OPERATOR hostile.{operator} (FUNCTION = hostile.trap{number}, LEFTARG = {left}, RIGHTARG = {right})"
        )
    for signature in SHADOWED_FUNCTIONS:
        dba.run(f"CREATE FUNCTION hostile.{signature} {trap}")
    for session_ in (dba, user):
        for table in ("tenant", "data_key", "access", "tenants"):
            session_.run(f"CREATE TEMP TABLE {table} (tenant text, role regrole, state text)")
        session_.run("SET search_path = hostile, pg_temp, pg_catalog, public")
    with fails_with("P0T00"):
        dba.run("SELECT 'a'::text = 'a'::text")

    dba.run("SELECT cmk.register_tenant('a', 'local:shared')")
    grant(dba, "a", user.role)
    envelope = user.encrypt("a")
    assert user.decrypt("a", envelope) == CANARY
    assert user.one("SELECT cmk_decrypt_text('a', cmk_encrypt_text('a', 'x'))") == "x"
    assert user.one("SELECT cmk_try_decrypt('a', 'x')") is None
    assert dba.one("SELECT cmk.rotate_tenant('a')") == 2
    for call in ("suspend_tenant('a')", "resume_tenant('a')", "evict('a')", "revoke_access('a', 'postgres')"):
        dba.run(f"SELECT cmk.{call}")
    assert dba.one("SELECT version FROM cmk.inspect(%b)", envelope) == 1
    for view in ("tenants", "cache", "cache_stats"):
        dba.all(f"SELECT * FROM cmk.{view}")
    assert user.decrypt("a", envelope) == CANARY


def test_a_schema_laid_out_before_the_extension_is_not_adopted(session, database):
    dba = session(dbname=database(extension=False))
    dba.run("CREATE SCHEMA cmk")
    with fails_with("42P06"):
        dba.run("CREATE EXTENSION cmk_encrypt")


LAID_OUT = "CREATE FUNCTION {}.cmk_decrypt(text, bytea, bytea DEFAULT '') RETURNS bytea LANGUAGE sql AS 'SELECT $2'"


def test_a_function_laid_out_before_the_extension_is_not_adopted(session, database):
    dba = session(dbname=database(extension=False))
    dba.run(LAID_OUT.format("pg_catalog"))
    with fails_with("42723"):
        dba.run("CREATE EXTENSION cmk_encrypt")


def test_a_function_laid_out_elsewhere_is_neither_adopted_nor_called(session, role, database):
    dba, owner = session(dbname=database(extension=False)), role()
    dba.run(f"ALTER DATABASE {dba.connection.info.dbname} OWNER TO {owner}")
    session(owner, dbname=dba.connection.info.dbname).run(LAID_OUT.format("public"))
    dba.run("CREATE EXTENSION cmk_encrypt")
    with fails("42704", "unknown_tenant", "a"):
        dba.run("SELECT cmk_decrypt('a'::text, %b)", b"\xc1\x01" + bytes(100))
    assert dba.all(
        "SELECT FROM pg_depend WHERE deptype = 'e' AND objid = 'public.cmk_decrypt(text, bytea, bytea)'::regprocedure"
    ) == []


# The search for secrets


def test_the_search_for_secrets_finds_each_form():
    secret = bytes(range(200, 232))
    search = Search({"secret": secret, "other": secrets.token_bytes(32)})
    for form in forms(secret):
        assert search.in_bytes(b"before " + form + b" after") == {"secret"}
    for lead in range(3):
        embedded = base64.b64encode(b"{" * lead + secret + b"}" * 7)
        assert search.in_bytes(embedded) == {"secret"}, lead
    assert search.in_bytes(b"before " + secret[:-1]) == set()


@pytest.mark.last
def test_neither_plaintext_nor_data_keys_are_left_anywhere_on_disk(server, kms, dba, session, app, tenant, local_tenant):
    server.reload("SET log_min_messages = debug5", "SET log_error_verbosity = verbose")
    noisy = session(app.role)
    control = f"control-{secrets.token_hex(12)}".encode()
    searched = {"canary": CANARY, "control": control}
    table = unique("patient")
    dba.run(f"CREATE TABLE {table} (sealed bytea, plain bytea)")
    dba.run(f"GRANT ALL ON {table} TO {app.role}")
    for made in (tenant(), local_tenant()):
        noisy.run(f"INSERT INTO {table} SELECT cmk_encrypt(%s, %b) FROM generate_series(1, 100)", made.name, CANARY)
        rows = noisy.all(f"SELECT cmk_decrypt(%s, sealed) FROM {table} WHERE cmk_try_decrypt(%s, sealed) = %b",
                         made.name, made.name, CANARY)
        assert rows == [(CANARY,)] * 100
        dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
        noisy.run(f"CREATE TEMP TABLE {unique('copy')} AS SELECT cmk_encrypt(%s, %b)", made.name, CANARY)
        envelope = noisy.encrypt(made)
        for value, aad, sqlstate, reason in (
            (envelope[:-1], b"", "39000", "not_authentic"),
            (envelope, CANARY, "39000", "not_authentic"),
            (CANARY, b"", "22P03", "not_an_envelope"),
        ):
            with fails(sqlstate, reason, made) as failure:
                noisy.decrypt(made, value, aad)
            assert Search(searched).in_bytes(every_field(failure.value).encode()) == set()
        for version, (wrapped,) in enumerate(
            dba.all("SELECT wrapped FROM cmk.data_key WHERE tenant = %s ORDER BY version", made.name)
        ):
            dek = unwrap(server, kms, made, wrapped)
            assert len(dek) == 32
            searched[f"data key {version} of {made.key_uri}"] = dek
    # The control goes the ways that a leak would: a table and so the WAL, and the log.
    noisy.run(f"INSERT INTO {table} (plain) VALUES (%b)", control)
    noisy.run(f"DO $$ BEGIN RAISE LOG 'control %', '{control.hex()}'; END $$")
    dba.run("CHECKPOINT")

    found = Search(searched).in_files(server.dir)
    places = {path.split("/")[1] if path.startswith("data/") else path for path in found.pop("control")}
    assert {"base", "pg_wal", "log"} <= places, "the search finds what is there"
    assert found == {}
    server.reload("RESET log_min_messages", "RESET log_error_verbosity")


def every_field(error):
    diag = error.diag
    return " ".join(str(getattr(diag, name)) for name in dir(diag) if not name.startswith("_"))


def unwrap(server, kms, made, wrapped):
    if made.key_uri.startswith("local:"):
        return unwrap_local(read_local_key(server.keys, made.key_uri), made.name, wrapped)
    return kms.decrypt(made.key_uri, wrapped, made.context)
