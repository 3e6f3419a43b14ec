"""PgBouncer in transaction mode: the tenant, and what a client sees, last for one transaction."""

import os

import psycopg
import pytest

import look_ups
from bouncer import PORT, Bouncer
from twins import HERE, STATEMENTS, twins  # noqa: F401 (fixture)

DIARY = "CREATE TABLE diary (id serial PRIMARY KEY, entry text NOT NULL)"


@pytest.fixture
def shop(twins):
    return twins("node", HERE / "node" / "program.js", STATEMENTS)


@pytest.fixture
def bouncer(server, shop):
    bouncer = Bouncer(server, shop.protected.role)
    yield bouncer
    bouncer.close()


@pytest.fixture
def diary(shop, bouncer):
    """A table of entries, each of the tenant that the session names; two clients of one server connection."""
    database = shop.protected
    with database.connect() as connection:
        connection.execute(DIARY)
    database.prepare()
    database.dba("SELECT cmk.register_tenant('closed', 'local:shared')")
    database.dba("SELECT cmk.protect_column('diary', 'entry')")
    clients = [bouncer.connect(database) for _ in range(2)]
    yield clients
    for client in clients:
        client.close()


def one(client, sql, *parameters):
    (value,) = client.execute(sql, parameters or None).fetchone()
    return value


def write(client, tenant, entry):
    with client.transaction():
        client.execute(f"SET LOCAL cmk_encrypt.tenant = {tenant}")
        return one(client, "INSERT INTO diary (entry) VALUES (%s) RETURNING entry", entry)


def backend(client):
    return one(client, "SELECT pg_backend_pid()")


@pytest.mark.parametrize("mode", ["simple", "extended"])
def test_statements_stay_as_they_are(shop, bouncer, mode):
    shop.environment = {
        "NODE_PATH": os.environ["CLIENTS_NODE_PATH"], "PGHOST": str(bouncer.dir), "PGPORT": str(PORT),
    }  # fmt: skip
    shop.fill()
    shop.protect()
    shop.both(mode, at_least=40)
    shop.protected.assert_sealed()


@pytest.mark.parametrize("mode", ["simple", "extended"])
def test_look_ups_use_the_index(shop, server, bouncer, mode):
    shop.environment = {
        "NODE_PATH": os.environ["CLIENTS_NODE_PATH"], "PGHOST": str(bouncer.dir), "PGPORT": str(PORT),
    }  # fmt: skip
    shop.fill()
    look_ups.populate(shop)
    look_ups.make_searchable(shop)
    shop.command = (*shop.command[:-1], look_ups.STATEMENTS)
    look_ups.search(shop, server, mode, at_least=20)
    shop.protected.assert_sealed()


def test_each_transaction_writes_for_its_tenant(shop, diary):
    assert backend(diary[0]) == backend(diary[1])
    tenants = ["acme", "globex", "globex", "acme", "acme", "globex"]
    for n, tenant in enumerate(tenants):
        assert write(diary[n % 2], tenant, f"entry {n}") == f"entry {n}"
    sealed = shop.protected.dba(
        "SELECT i.tenant FROM diary, cmk.inspect(cmk.envelope(entry)) i ORDER BY id"
    )  # fmt: skip
    assert [tenant for (tenant,) in sealed] == tenants
    assert one(diary[0], "SELECT string_agg(entry, ', ' ORDER BY id) FROM diary") == ", ".join(
        f"entry {n}" for n in range(len(tenants))
    )
    shop.protected.assert_sealed("diary", ["entry"])


def test_the_tenant_ends_with_the_transaction(diary):
    first, second = diary
    write(first, "acme", "committed")
    for client in diary:
        assert not one(client, "SELECT current_setting('cmk_encrypt.tenant', true)")
    with pytest.raises(psycopg.Error) as caught:
        second.execute("INSERT INTO diary (entry) VALUES ('of nobody')")
    assert (caught.value.sqlstate, caught.value.diag.message_detail.split()[0]) == ("55000", "reason=tenant_unset")
    with first.transaction(force_rollback=True):
        first.execute("SET LOCAL cmk_encrypt.tenant = globex")
    with pytest.raises(psycopg.Error) as caught:
        second.execute("INSERT INTO diary (entry) VALUES ('of nobody')")
    assert caught.value.sqlstate == "55000"


def test_each_transaction_searches_for_its_tenant(shop, diary):
    """One query text, one server connection, and no tenant in the query."""
    shop.protected.dba("SELECT cmk.protect_column('diary', 'entry', searchable => true)")
    shop.protected.dba("CREATE INDEX diary_entry ON diary (entry cmk_token_ops)")
    assert backend(diary[0]) == backend(diary[1])
    tenants = ["acme", "globex", "globex", "acme", "globex"]
    for n, tenant in enumerate(tenants):
        write(diary[n % 2], tenant, "dull")

    def find(client, tenant, query="SELECT count(*) FROM diary WHERE entry = %s"):
        with client.transaction():
            client.execute("SET LOCAL enable_seqscan = off")
            if tenant:
                client.execute(f"SET LOCAL cmk_encrypt.tenant = {tenant}")
            return [value for (value,) in client.execute(query, ["dull"])]

    for n, tenant in enumerate(["acme", "globex", "acme", None, "globex", None]):
        assert find(diary[n % 2], tenant) == [tenants.count(tenant) if tenant else len(tenants)], tenant
        plan = "\n".join(find(diary[n % 2], tenant, "EXPLAIN SELECT id FROM diary WHERE entry = %s"))
        assert "diary_entry" in plan and "===" in plan, plan
    for tenant, failure in (
        ("closed", ("42501", "reason=no_grant")), ("nobody", ("42704", "reason=unknown_tenant")),
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as caught:
            find(diary[0], tenant)
        assert (caught.value.sqlstate, caught.value.diag.message_detail.split()[0]) == failure
    assert find(diary[1], "acme") == [2]


def test_a_refusal_costs_no_server_connection(diary):
    before = backend(diary[0])
    with pytest.raises(psycopg.Error) as caught:
        write(diary[0], "closed", "without a grant")
    assert (caught.value.sqlstate, caught.value.diag.message_detail.split()[0]) == ("42501", "reason=no_grant")
    with pytest.raises(psycopg.Error) as caught:
        write(diary[0], "nobody", "of an unknown tenant")
    assert (caught.value.sqlstate, caught.value.diag.message_detail.split()[0]) == ("42704", "reason=unknown_tenant")
    assert backend(diary[1]) == before
    assert write(diary[1], "acme", "goes on") == "goes on"


def test_the_output_can_be_chosen_for_one_transaction(shop, diary, bouncer):
    write(diary[0], "acme", "secret")
    for client in diary:
        with client.transaction():
            client.execute("SET LOCAL cmk_encrypt.output = ciphertext")
            assert one(client, "SELECT entry FROM diary").startswith("cmk1:")
        assert one(client, "SELECT entry FROM diary") == "secret"
