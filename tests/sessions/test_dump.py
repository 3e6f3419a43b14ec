"""A plain pg_dump carries everything needed to read the data again elsewhere, and nothing readable."""

import base64
import os
import subprocess
from pathlib import Path

import pytest

from envelope import DataKey, open_from_registry
from local_key import open_stored
from support import CANARY, fails, grant

BIN = Path(
    subprocess.run([os.environ["PG_CONFIG"], "--bindir"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
)


def client(server, program, *arguments, **options):
    environment = {**os.environ, "PGHOST": str(server.socket), "PGUSER": "postgres"}
    return subprocess.run(
        [str(BIN / program), *arguments], env=environment, check=True, stdout=subprocess.PIPE, timeout=60, **options
    ).stdout


@pytest.fixture
def filled(session, role, database, kms):
    """A database with two tenants of two data keys each, and every value the table should give back."""
    dba, user = session(dbname=database()), role()
    dba.run("CREATE TABLE patient (id int, tenant text, sealed bytea)")
    dba.run(f"GRANT ALL ON patient TO {user}")
    for name, uri in (("here", "local:shared"), ("there", kms.key())):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, uri)
        grant(dba, name, user)
        grant(dba, name, "postgres")
        for half in range(2):
            dba.run(
                "INSERT INTO patient SELECT n, %s, cmk_encrypt_text(%s, 'ssn-' || n, 'aad')"
                " FROM generate_series(%s::int, %s) n",
                name, name, 100 * half, 100 * half + 99,
            )
            if half == 0:
                dba.run("SELECT cmk.rotate_tenant(%s)", name)
    return dba, user


def open_all(user):
    return user.all(
        "SELECT tenant, count(*) FROM patient WHERE cmk_decrypt_text(tenant, sealed, 'aad') = 'ssn-' || id"
        " GROUP BY tenant ORDER BY tenant"
    )


@pytest.mark.parametrize("kind", ["plain", "custom", "data and schema apart"])
def test_a_restored_database_reads_every_value_under_the_same_grants(server, session, role, database, filled, kind):
    dba, user = filled
    source, target = dba.connection.info.dbname, database(extension=False)
    if kind == "custom":
        dump = client(server, "pg_dump", "-Fc", source)
        client(server, "pg_restore", "--exit-on-error", "-d", target, input=dump)
    else:
        parts = [["--schema-only"], ["--data-only"]] if "apart" in kind else [[]]
        for options in parts:
            dump = client(server, "pg_dump", *options, source)
            assert b"ssn-" not in dump
            client(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target, input=dump)
    restored = session(user, dbname=target)
    assert open_all(restored) == [("here", 200), ("there", 200)]
    restored_dba = session(dbname=target)
    for table in ("tenant", "data_key", "access"):
        query = f"SELECT t::text FROM cmk.{table} t ORDER BY 1"
        assert restored_dba.all(query) == dba.all(query)
    assert restored_dba.one("SELECT cmk.rotate_tenant('there')") == 3
    assert restored.decrypt("there", restored.encrypt("there")) == CANARY
    stranger = session(role(), dbname=target)
    with fails("42501", "no_grant", "here"):
        stranger.encrypt("here")


def test_a_dump_taken_of_a_restored_database_is_the_same(server, database, filled):
    source, target = filled[0].connection.info.dbname, database(extension=False)
    first = client(server, "pg_dump", source)
    client(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target, input=first)
    second = client(server, "pg_dump", target)
    # Newer releases guard a dump with a random \restrict key.
    strip = lambda dump: [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]
    assert strip(first) == strip(second)


def test_the_grants_of_a_dropped_role_are_not_dumped(server, session, role, database, filled):
    # A dangling role is dumped as its number, which may be somebody else's number in another server.
    dba, user = filled
    gone = role()
    grant(dba, "here", gone)
    dba.run(f"DROP ROLE {gone}")
    target = database(extension=False)
    dump = client(server, "pg_dump", dba.connection.info.dbname)
    client(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target, input=dump)
    roles = session(dbname=target).all("SELECT DISTINCT role::text FROM cmk.access ORDER BY 1")
    assert roles == sorted([("postgres",), (user,)])


def test_stored_envelopes_open_by_the_published_format_alone(server, filled, kms):
    dba, _ = filled
    for tenant in ("here", "there"):
        rows = dba.all(
            "SELECT t.key_uri, k.wrapped, k.commitment FROM cmk.tenant t JOIN cmk.data_key k USING (tenant)"
            " WHERE tenant = %s ORDER BY version",
            tenant,
        )
        assert len(rows) == 2
        context = {"cmk_encrypt": "v1", "purpose": "dek", "tenant": tenant}
        for id, sealed in dba.all("SELECT id, sealed FROM patient WHERE tenant = %s", tenant):
            if tenant == "here":
                plain = open_stored(server.keys, tenant, rows, sealed, b"aad")
            else:
                keys = [DataKey(kms.decrypt(uri, wrapped, context), commitment) for uri, wrapped, commitment in rows]
                plain = open_from_registry(keys, tenant, sealed, b"aad")
            assert plain == f"ssn-{id}".encode()


def test_psql_output_of_an_envelope_is_ciphertext(server, filled):
    output = client(server, "psql", "-AtX", "-c", "TABLE patient", filled[0].connection.info.dbname)
    assert b"ssn-" not in output and base64.b64encode(b"ssn-")[:4] not in output
    assert output.count(b"\\xc101") == 400
