"""pg_upgrade of a server that has the library preloaded, or not, with --link or a copy: keys, grants, monitor and
the audit trail go on; and a dump of the old server in the new one."""

import os
import subprocess

import pytest

from columns import protect
from server import Server, until
from support import CANARY, Session, fails, unique
from upgrading import Upgraded, newer

PRELOADED = {"shared_preload_libraries": "cmk_encrypt"}
# Monitors of the very databases that pg_upgrade drops, makes and fills
MONITORED = {**PRELOADED, "cmk_encrypt.monitor_databases": "estate, postgres, template1",
             "cmk_encrypt.monitor_interval": "1s"}
CASES = {
    "preloaded on both, --link": (MONITORED, MONITORED, ["--link"]),
    "preloaded on the old one": (MONITORED, {}, []),
    "preloaded on the new one, --link": ({}, MONITORED, ["--link"]),
}
# Within one PostgreSQL the others differ little.
ONE = ["preloaded on both, --link"]
LOUD = [f"-{which}=-c log_min_messages=debug1" for which in ("-old-options", "-new-options")]
STATUS = "SELECT tenant, events, status FROM cmk.verify_audit() ORDER BY 1, 2"
REGISTRY = {
    "tenants": "SELECT tenant, state, key_uri, epoch, last_version FROM cmk.tenant ORDER BY 1",
    "data keys": "SELECT tenant, version, purpose, state, wrapped FROM cmk.data_key ORDER BY 1, 2",
    "grants": "SELECT tenant, role::text, encrypt, decrypt, bound FROM cmk.access ORDER BY 1, 2",
    "audit": "SELECT tenant, origin, number, act, hash FROM cmk.audit_event ORDER BY 1, 2, 3",
    "values": "SELECT id, tenant, sealed, cmk.envelope(ssn) FROM patient ORDER BY id",
}


class Estate:
    """A database with tenants in several states, functions' and columns' values, an index of tokens, a trail."""

    def __init__(self, server):
        self.server = server
        self.role, self.pooled = unique("app"), unique("pooled")
        server.make_local_key("shared")
        server.execute("CREATE DATABASE estate")
        for role in (self.role, self.pooled):
            server.execute(f"CREATE ROLE {role} LOGIN")
        with server.connect("estate") as connection:
            dba = Session(connection)
            dba.run("CREATE EXTENSION cmk_encrypt")
            for tenant in ("acme", "paused", "gone"):
                dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", tenant)
            dba.run("SELECT cmk.rotate_index_key('acme')")
            for role in (self.role, "postgres"):
                dba.run("SELECT cmk.grant_access('acme', %s)", role)
            dba.run("SELECT cmk.grant_access('*', %s, bound => true)", self.pooled)
            dba.run("CREATE TABLE patient (id int PRIMARY KEY, tenant text, ssn text, sealed bytea)")
            protect(dba, "patient", "ssn", tenant="tenant", searchable=True)
            dba.run(f"GRANT ALL ON patient TO {self.role}, {self.pooled}")
            for id in range(1, 4):
                dba.run("INSERT INTO patient VALUES (%s, 'acme', %s, cmk_encrypt('acme', %b))", id, f"ssn {id}", CANARY)
                dba.run("SELECT cmk.rotate_tenant('acme')")
            dba.run("SELECT cmk.suspend_tenant('paused'), cmk.suspend_tenant('gone')")
            dba.run("SELECT cmk.shred_tenant('gone', confirm => 'gone', immediately => true)")
            assert dba.all(STATUS), "there is a trail"
            assert {row[2] for row in dba.all(STATUS)} == {"ok"}
            self.before = {name: dba.all(sql) for name, sql in REGISTRY.items()}

    def check(self, new):
        """All is there, and goes on."""
        with new.connect("estate") as connection:
            dba = Session(connection)
            if connection.info.server_version < 150000:  # up to there databases get new object ids
                dba.run("SELECT cmk.adopt_registry()")
            for name, sql in REGISTRY.items():
                assert dba.all(sql) == self.before[name], name
            assert {row[2] for row in dba.all(STATUS)} == {"ok"}
            assert dba.all("SELECT problem, detail FROM cmk.check(deep => true) WHERE problem LIKE '%key%'"
                           " OR problem LIKE '%audit%' OR problem LIKE 'column%'") == []
        with new.connect("estate", self.role) as connection:
            app = Session(connection)
            app.run("SET cmk_encrypt.output = plaintext")
            assert app.all("SELECT id, ssn::text, cmk_decrypt(tenant, sealed) FROM patient ORDER BY id") == [
                (id, f"ssn {id}", CANARY) for id in range(1, 4)]
            app.run("SET enable_seqscan = off")
            assert app.one("SELECT id FROM patient WHERE tenant = 'acme' AND ssn = 'ssn 2'") == 2
            app.run("INSERT INTO patient VALUES (9, 'acme', 'after', cmk_encrypt('acme', 'after'))")
            for tenant, reason in (("paused", "tenant_suspended"), ("gone", "tenant_shredded")):
                with fails("42501", "no_grant", tenant):
                    app.encrypt(tenant)
        with new.connect("estate", self.pooled) as connection:
            pooled = Session(connection)
            with fails("42501", "tenant_mismatch", "acme"):
                pooled.encrypt("acme")
            pooled.run("SET cmk_encrypt.tenant = acme")
            pooled.encrypt("acme")
        with new.connect("estate") as connection:
            dba = Session(connection)
            # A chain of its own from here on, as for any server; the old one still verifies.
            dba.run("SELECT cmk.rotate_tenant('acme'), cmk.resume_tenant('paused')")
            after = dba.all(STATUS)
            assert {row[2] for row in after} == {"ok"}
            assert sum(row[1] for row in after) == len(self.before["audit"]) + 2
            assert len(after) == len({row[:2] for row in self.before["audit"]}) + 2
            dba.run("DELETE FROM patient WHERE id = 9")


@pytest.mark.parametrize("case", CASES if "UPGRADE_PG_CONFIG" in os.environ else ONE)
def test_pg_upgrade_takes_everything_along(make_server, case):
    before, after, options = CASES[case]
    old = make_server(before)
    estate = Estate(old)
    if before:
        until(lambda: old.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'cmk_encrypt monitor'")
              == [(3,)], what="the monitors")
    new = Upgraded(old, {"cmk_encrypt.local_keys": "on", **after}, *options, "--retain", *LOUD)
    try:
        log = new.upgrade_log()
        assert "DEBUG:" in log
        assert 'process "cmk_encrypt' not in log, "no worker of ours looks at databases that are being copied"
        estate.check(new)
        assert new.execute("SELECT count(*) FROM cmk.status WHERE server_wide", "estate") == [(3 if after else 0,)]
        if after:
            until(lambda: new.execute("SELECT count(*) FROM cmk.status WHERE key_state = 'usable'", "estate")
                  != [(0,)], what="the monitor to look")
    finally:
        new.destroy()


def test_a_dump_of_the_old_server_in_a_new_one(make_server):
    """By pg_dump of the new PostgreSQL, as its manual says."""
    old = make_server()
    estate = Estate(old)
    with newer():
        new = make_server({"cmk_encrypt.local_key_directory": str(old.keys)})
        program = {name: Server.program(name) for name in ("pg_dump", "pg_dumpall", "pg_restore", "psql")}
    environment = {**os.environ, "PGUSER": "postgres"}

    def run(name, server, *arguments, **options):
        done = subprocess.run([program[name], "-h", str(server.socket), *arguments], env=environment, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    roles = run("pg_dumpall", old, "--globals-only").replace(b"CREATE ROLE postgres;", b"")
    run("psql", new, "-qX", "-v", "ON_ERROR_STOP=1", "-d", "postgres", input=roles)
    file = str(new.dir / "estate.dump")
    with open(file, "wb") as out:
        out.write(run("pg_dump", old, "-Fc", "-d", "estate"))
    old.stop()
    new.execute("CREATE DATABASE estate")
    run("pg_restore", new, "-j4", "--exit-on-error", "-d", "estate", file)
    estate.check(new)
