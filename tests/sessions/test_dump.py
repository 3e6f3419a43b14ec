"""A plain pg_dump carries everything needed to read the data again elsewhere, and nothing readable."""

import base64

import pytest

from dumps import SEALED, client, filled, open_all, registry, run_script  # noqa: F401 (fixture)
from local_key import open_stored
from registry import DataKey, open_from_registry
from support import CANARY, fails, grant


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
            run_script(server, target, dump)
    restored = session(user, dbname=target)
    assert open_all(restored) == SEALED
    restored_dba = session(dbname=target)
    assert registry(restored_dba) == registry(dba)
    assert restored_dba.one("SELECT cmk.rotate_tenant('there')") == 3
    assert restored.decrypt("there", restored.encrypt("there")) == CANARY
    stranger = session(role(), dbname=target)
    with fails("42501", "no_grant", "here"):
        stranger.encrypt("here")


def test_a_dump_taken_of_a_restored_database_is_the_same(server, database, filled):
    source, target = filled[0].connection.info.dbname, database(extension=False)
    first = client(server, "pg_dump", source)
    run_script(server, target, first)
    second = client(server, "pg_dump", target)
    # Newer releases guard a dump with a random \restrict key.
    strip = lambda dump: [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]
    assert strip(first) == strip(second)


def test_the_grants_of_a_dropped_role_are_not_dumped(server, session, role, database, filled):
    # Where the dump is restored, somebody else may have the name.
    dba, _ = filled
    before, gone = registry(dba), role()
    grant(dba, "here", gone)
    dba.run(f"DROP ROLE {gone}")
    target = database(extension=False)
    run_script(server, target, client(server, "pg_dump", dba.connection.info.dbname))
    # The trail tells of the grant.
    trail = {name: rows for name, rows in registry(dba).items() if name.startswith("audit")}
    assert registry(session(dbname=target)) == {**before, **trail}


def test_stored_envelopes_open_by_the_published_format_alone(server, filled, kms):
    dba, _ = filled
    for tenant in ("here", "there"):
        rows = dba.all(
            "SELECT t.key_uri, k.wrapped, k.commitment FROM cmk.tenant t JOIN cmk.data_key k USING (tenant)"
            " WHERE tenant = %s ORDER BY version",
            tenant,
        )
        assert len(rows) == 2
        context = {"cmk_encrypt": "v1", "purpose": "values", "tenant": tenant}
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
