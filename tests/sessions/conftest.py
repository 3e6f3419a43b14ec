"""One server and one fake KMS for the whole run; tenants, roles and sessions made to order."""

import sys

import pytest
from psycopg.types.json import Jsonb

from drill import Drill
from fake_kms import FakeKms
from gate import Gate
from server import ROOT, Server
from shim import Shim
from support import Session, Tenant, grant, unique

sys.path.append(str(ROOT / "tests" / "crosscheck"))

DATABASE = "sessions"

# None has its default, so that a session that falls back to one is noticed.
SETTINGS = {
    "cmk_encrypt.local_keys": "on",
    "cmk_encrypt.cache_ttl": "299s",
    "cmk_encrypt.cache_size": "1023",
    "cmk_encrypt.failure_ttl": "2900ms",
    "cmk_encrypt.kms_connect_timeout": "900ms",
    "cmk_encrypt.kms_attempt_timeout": "1900ms",
    "cmk_encrypt.kms_operation_timeout": "4900ms",
    "cmk_encrypt.kms_max_attempts": "4",
}


@pytest.fixture(scope="session")
def kms_process(tmp_path_factory):
    kms = FakeKms(tmp_path_factory.mktemp("kms"))
    yield kms
    kms.close()


@pytest.fixture
def kms(kms_process):
    """The fake KMS, without faults left over from another test."""
    kms_process.clear_faults()
    yield kms_process
    kms_process.clear_faults()


@pytest.fixture(scope="session")
def make_server(kms_process):
    """Makes further servers for tests that stop theirs or need another configuration."""
    servers = []

    def make(conf=None, env=None):
        urls = {f"cmk_encrypt.{service}_endpoint_url": kms_process.url for service in ("kms", "sts")}
        conf = {**SETTINGS, **urls, **(conf or {})}
        server = Server(conf, env)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.destroy()


@pytest.fixture(scope="session")
def server(make_server, shim):
    server = make_server(env=shim.env)
    server.make_local_key("shared")
    server.execute(f"CREATE DATABASE {DATABASE}")
    server.execute("CREATE EXTENSION cmk_encrypt", DATABASE)
    return server


@pytest.fixture
def session(server):
    """Opens sessions, one backend each, as a role (default superuser) in a database."""
    opened = []

    def connect(role="postgres", dbname=DATABASE, on=server, **options):
        session = Session(on.connect(dbname, role, **options))
        opened.append((on, session))
        on.sessions.append(session)
        return session

    yield connect
    for on, session in opened:
        on.sessions.remove(session)
        session.close()


@pytest.fixture
def dba(session):
    return session()


@pytest.fixture
def role(server):
    """Makes login roles without any rights. Roles belong to the server and go with it."""

    def make(options="LOGIN"):
        name = unique("role")
        server.execute(f"CREATE ROLE {name} {options}")
        return name

    return make


@pytest.fixture
def app(session, role):
    """The application: a session of a role without rights but those that `tenant` grants it."""
    return session(role())


@pytest.fixture
def owner(dba, app):
    """The application with a schema of its own, in which it makes tables, and which reads plaintext."""
    dba.run(f"CREATE SCHEMA AUTHORIZATION {app.role}")
    app.run("SET cmk_encrypt.output = plaintext")
    return app


@pytest.fixture
def tenant(dba, app, kms):
    """Registers tenants, with a key in the fake KMS unless told otherwise, and lets `app` use them."""

    def make(key_uri=None, name=None, to=(app,), by=dba, activate=True, **options):
        made = Tenant(name or unique("tenant"), key_uri or kms.key())
        by.run("SELECT cmk.register_tenant(%s, %s, %s, %s)", made.name, made.key_uri, Jsonb(options), activate)
        for session in to:
            grant(by, made, session.role)
        return made

    return make


@pytest.fixture
def local_tenant(tenant):
    """As `tenant`, under a local key."""
    return lambda **arguments: tenant("local:shared", **arguments)


@pytest.fixture
def database(server):
    """Makes databases of their own for tests that drop or spoil the extension."""
    made = []

    def make(extension=True):
        name = unique("db")
        server.execute(f"CREATE DATABASE {name}")
        if extension:
            server.execute("CREATE EXTENSION cmk_encrypt", name)
        made.append(name)
        return name

    yield make
    for name in made:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


# For failure drills


@pytest.fixture(scope="session")
def shim():
    shim = Shim()
    yield shim
    shim.close()


@pytest.fixture
def gate(kms):
    gate = Gate(kms.port)
    yield gate
    gate.close()


@pytest.fixture(scope="session")
def make_drill(make_server, kms_process, shim):
    def make(preloaded, **conf):
        conf = {"max_connections": "260", "shared_preload_libraries": "cmk_encrypt" if preloaded else "", **conf}
        return Drill(make_server(conf, shim.env), kms_process, preloaded)

    return make


@pytest.fixture(scope="session")
def preloaded_drill(make_drill):
    return make_drill(preloaded=True)


@pytest.fixture(scope="session")
def lazy_drill(make_drill):
    return make_drill(preloaded=False)


@pytest.fixture
def drill(preloaded_drill, kms):
    """A server with the library in shared_preload_libraries."""
    return preloaded_drill


@pytest.fixture
def users(session, drill):
    """Some sessions, which have used nothing yet."""
    return [session(dbname="postgres", on=drill.server) for _ in range(5)]


@pytest.fixture(params=["preloaded", "lazy"])
def either_drill(request, kms):
    """One, then the other: the library in shared_preload_libraries, and loaded by the first call."""
    return request.getfixturevalue(f"{request.param}_drill")


def pytest_configure(config):
    config.addinivalue_line("markers", "last: runs after all others, because it looks at what they left")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
