"""A server whose tenants are pending: nothing here asks KMS, but the script, which asks moto."""

import itertools
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sessions"))

from server import Server  # noqa: E402 (found by the path above)
from support import Session  # noqa: E402
from world import KEY, PRINCIPAL  # noqa: E402


@pytest.fixture(scope="session")
def server():
    server = Server({"cmk_encrypt.service_principal": PRINCIPAL, "cmk_encrypt.cache_ttl": "4min"})
    try:
        for database in ("postgres", "searching"):
            if database != "postgres":
                server.execute(f"CREATE DATABASE {database}")
            server.execute("CREATE EXTENSION cmk_encrypt", database)
        server.execute("CREATE TABLE people (tenant text, name text)", "searching")
        protect = "SELECT cmk.protect_column('people', 'name', tenant_column => 'tenant', searchable => true)"
        server.execute(protect, "searching")
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def connect(server):
    opened = {}

    def connect(database="postgres"):
        if database not in opened:
            opened[database] = Session(server.connect(database))
        return opened[database]

    yield connect
    for session in opened.values():
        session.close()


class Onboarded:
    """A pending tenant, and what its owner is handed."""

    def __init__(self, session, name):
        self.session, self.name = session, name

    def key_policy(self):
        return self.session.one("SELECT cmk.key_policy(%s)", self.name)

    def service_policy(self):
        return self.session.one("SELECT cmk.service_policy(%s)", self.name)

    def document(self, form):
        return self.session.one("SELECT cmk.onboarding(%s, %s)", self.name, form)

    def whole_policy(self):
        return json.loads(self.document("policy"))

    def move_to(self, key_uri, options=None):
        """Pretends that the tenant is being moved to another key: there is no KMS here to prove it."""
        self.session.run("ALTER TABLE cmk.tenant DISABLE TRIGGER guard_row")
        self.session.run("UPDATE cmk.tenant SET next_key_uri = %s, next_options = %s WHERE tenant = %s",
                         key_uri, json.dumps(options or {}), self.name)
        self.session.run("ALTER TABLE cmk.tenant ENABLE ALWAYS TRIGGER guard_row")


@pytest.fixture
def onboard(connect):
    """Registers tenants, which are gone after the test."""
    numbers, made = itertools.count(), []

    def onboard(name=None, key_uri=KEY, database="postgres", **options):
        session, name = connect(database), name or f"tenant-{next(numbers)}"
        session.run("SELECT cmk.register_tenant(%s, %s, %s, false)", name, key_uri, json.dumps(options))
        made.append((session, name))
        return Onboarded(session, name)

    yield onboard
    for session, name in made:
        session.run("DELETE FROM cmk.tenant WHERE tenant = %s", name)
