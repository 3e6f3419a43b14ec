"""examples/customers prints what its README says, whenever its columns are protected in between."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from dumps import client
from server import ROOT
from support import unique

HERE = ROOT / "examples" / "customers"
ROLE = "customers_app"
SECRETS = [b"536-90-4399", b"219-09-9999", b"pays in cash", b"like tea"]


def session():
    """(arguments of customers.py, what it prints) of each command of the README."""
    (block,) = re.findall(r"^```console\n(.*?)^```$", (HERE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^\$ python customers\.py (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert len(commands) == block.count("$ ") >= 10
    return [(shlex.split(line), output) for line, output in commands]


SESSION = session()


@pytest.fixture(scope="module")
def keys(server):
    paths = [server.make_local_key(name) for name in ("acme", "globex")]
    server.execute(f"CREATE ROLE {ROLE} LOGIN")
    yield
    server.execute(f"DROP ROLE {ROLE}")
    for path in paths:
        path.unlink()


@pytest.fixture
def shop(server, keys):
    """A database of the application's role."""
    name = unique("customers")
    server.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.execute(f"ALTER ROLE {ROLE} RESET ALL")


def customers(server, shop, arguments):
    done = subprocess.run(
        [sys.executable, HERE / "customers.py", *arguments],
        env={**os.environ, "PGHOST": str(server.socket), "PGUSER": ROLE, "PGDATABASE": shop},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 or done.stdout.startswith("refused: "), done.stdout
    return done.stdout


def protect(server, shop):
    client(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", shop, "-f", HERE / "protect.sql")


@pytest.mark.parametrize("protected_after", [None, len(SESSION) // 2])
def test_the_session_of_the_readme_prints_what_it_shows(server, shop, protected_after):
    for n, (arguments, output) in enumerate(SESSION):
        if n == protected_after:
            protect(server, shop)
        assert customers(server, shop, arguments) == output, arguments
    if protected_after is None:
        before = [customers(server, shop, arguments) for arguments in (["report"], ["find", "a"], ["list", "acme"])]
        protect(server, shop)
        after = [customers(server, shop, arguments) for arguments in (["report"], ["find", "a"], ["list", "acme"])]
        assert after == before and len(before[1].splitlines()) == 3
    with server.connect(shop, ROLE) as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("DROP INDEX customer_tenant")  # for three rows it is as good
        query = "EXPLAIN SELECT id FROM customer WHERE tenant = 'globex' AND ssn = '219-09-9999'"
        plan = "\n".join(line for (line,) in connection.execute(query))
        assert "customer_ssn" in plan and "===" in plan, plan
    dump = client(server, "pg_dump", "--table", "customer", shop)
    assert dump.count(b"cmk1:") == 2 * 3
    assert [secret for secret in SECRETS if secret in dump] == []
