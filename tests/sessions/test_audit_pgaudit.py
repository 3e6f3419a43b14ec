"""pgAudit beside us: it logs who called which function with what, and we what that did."""

import shutil
import subprocess
from pathlib import Path

import pytest

from audit import lines
from server import Server

DEBIAN = Path("/usr/lib/postgresql/15"), Path("/usr/share/postgresql/15/extension")


def directory(kind):
    asked = [Server.program("pg_config"), f"--{kind}"]
    return Path(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@pytest.fixture
def audited(make_server):
    """A server of our own with Debian's pgAudit, which is of one major version."""
    lib, share = DEBIAN
    for file in (lib / "lib" / "pgaudit.so", *share.glob("pgaudit*")):
        shutil.copy(file, directory("pkglibdir") if file.suffix == ".so" else directory("sharedir") / "extension")
    server = make_server({"shared_preload_libraries": "pgaudit, cmk_encrypt", "pgaudit.log": "all"})
    server.make_local_key("shared")
    for extension in ("pgaudit", "cmk_encrypt"):
        server.execute(f"CREATE EXTENSION {extension}")
    return server


def is_there():
    version = subprocess.run([Server.program("postgres"), "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return "PostgreSQL) 15." in version.stdout and (DEBIAN[0] / "lib" / "pgaudit.so").exists()


@pytest.mark.skipif(not is_there(), reason="Debian 12 has pgAudit for PostgreSQL 15 only")
def test_pgaudit_logs_the_call_and_we_the_act(audited, session):
    dba = session(dbname="postgres", on=audited)
    dba.run("SELECT cmk.register_tenant('acme', 'local:shared')")
    dba.run("SELECT cmk.grant_access('acme', 'postgres')")
    assert dba.one("SELECT cmk_decrypt_text('acme', cmk_encrypt_text('acme', 'x'))") == "x"
    log = audited.log.read_text()
    assert "AUDIT: SESSION," in log and "cmk.register_tenant('acme'" in log
    assert [line["act"] for line in lines(audited, outcome="committed")] == ["register_tenant", "grant_access"]
    assert dba.all("SELECT DISTINCT status FROM cmk.verify_audit()") == [("ok",)]
