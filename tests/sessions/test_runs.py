"""Values that one statement seals share a message key: their nonces begin alike, and nothing else does. That key lies
in locked memory only, and dies with its data key."""

import time

import pytest

from column import ColumnEnvelope
from crowd import READ
from envelope import Envelope, open_envelope
from memory import derived_forms, find, flags_at, is_zero
from server import until
from support import CANARY, unique

TTL = 1.5
LATE = 0.3


def nonces(values):
    return [Envelope.parse(bytes(value)).nonce for value in values]


def prefixes(values):
    return [nonce[:12] for nonce in nonces(values)]


def seal(app, tenant, count):
    """So many values, sealed by one statement."""
    rows = app.all("SELECT cmk_encrypt(%s, %b) FROM generate_series(1, %s)", tenant.name, CANARY, count)
    return [value for (value,) in rows]


@pytest.fixture
def secret(tenant, kms, dba):
    made = tenant()
    wrapped = dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s", made.name)
    return made, kms.decrypt(made.key_uri, wrapped, made.context)


def test_values_of_one_statement_begin_alike_and_no_two_nonces_are_the_same(app, secret):
    made, dek = secret
    sealed = seal(app, made, 1000)
    assert len(set(nonces(sealed))) == 1000
    # Four runs of 256 values; of a slow statement each second begins a new one, too.
    assert 4 <= len(set(prefixes(sealed))) <= 6
    for value in sealed[:20] + sealed[-20:]:
        assert open_envelope(dek, made.name, bytes(value)) == CANARY
    opened = app.all("SELECT DISTINCT cmk_decrypt(%s, v) FROM unnest(%b::bytea[]) v", made.name, sealed)
    assert opened == [(CANARY,)]


def test_a_run_has_256_values_at_most(app, tenant):
    made = tenant()
    runs, values, distinct = app.row(
        "SELECT count(DISTINCT substr(v, 19, 12)), max(n), sum(nonces)::int FROM ("
        " SELECT substr(v, 1, 30) AS v, count(*) AS n, count(DISTINCT rest) AS nonces FROM ("
        "  SELECT v, substr(v, 19, 24) AS rest FROM generate_series(1, 70000) n,"
        "  LATERAL (SELECT cmk_encrypt(%s, int8send(n)) AS v) s) each GROUP BY substr(v, 1, 30)) each_run",
        made.name,
    )
    assert runs >= 70000 / 256 and 200 < values <= 256 and distinct == 70000


STATEMENTS = {
    "one a message": lambda app, call: [app.one(f"SELECT {call}") for _ in range(5)],
    "one a message, in a transaction": lambda app, call: in_transaction(app, call),
    "in one message": lambda app, call: in_one_message(app, call),
    "of a function's loop": lambda app, call: in_a_loop(app, call),
    "of COPY": lambda app, call: copied(app, call),
}


def in_transaction(app, call):
    with app.connection.transaction():
        return [app.one(f"SELECT {call}") for _ in range(5)]


def in_one_message(app, call):
    # Without parameters, so that the client sends it as one simple query.
    cursor = app.connection.execute("; ".join([f"SELECT {call}"] * 5))
    values = []
    for _ in range(5):
        values += [bytes.fromhex(value[2:]) if isinstance(value, str) else value for (value,) in cursor.fetchall()]
        cursor.nextset()
    return values


def in_a_loop(app, call):
    app.run("CREATE TEMP TABLE looped (v bytea)")
    app.run(f"DO $$ BEGIN FOR i IN 1 .. 5 LOOP INSERT INTO looped SELECT {call}; END LOOP; END $$")
    return [value for (value,) in app.all("SELECT v FROM looped")]


def copied(app, call):
    return [
        value
        for _ in range(5)
        for (value,) in copy_out(app, f"COPY (SELECT {call}) TO STDOUT")
    ]


def copy_out(app, command):
    with app.connection.cursor().copy(command) as copy:
        copy.set_types(["bytea"])
        return list(copy.rows())


@pytest.mark.parametrize("how", STATEMENTS)
def test_statements_of_one_value_have_nothing_in_common(app, tenant, how):
    made = tenant()
    sealed = STATEMENTS[how](app, f"cmk_encrypt('{made.name}', 'value')")
    assert len(sealed) == 5
    assert len(set(prefixes(sealed))) == 5


def test_each_data_key_of_a_statement_has_a_run_of_its_own(app, tenant):
    made = [tenant() for _ in range(3)]
    names = [each.name for each in made]
    rows = app.all(
        "SELECT name, cmk_encrypt(name, %b) FROM generate_series(1, 50), unnest(%s::text[]) name", CANARY, names
    )
    for name in names:
        assert len(set(prefixes(value for of, value in rows if of == name))) <= 3
    assert len(set(nonces(value for _, value in rows))) == 150
    assert not set.intersection(*(set(prefixes(value for of, value in rows if of == name)) for name in names))


def test_a_long_value_has_a_message_key_of_its_own(app, tenant):
    made = tenant()
    rows = app.all("SELECT cmk_encrypt(%s, %b) FROM generate_series(1, 5)", made.name, bytes(1024))
    assert len(set(prefixes(value for (value,) in rows))) == 5


def test_a_statements_values_of_a_protected_column_begin_alike(owner, tenant):
    made = tenant()
    table = unique("runs")
    owner.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant text NOT NULL, ssn text)")
    owner.run(f"SELECT cmk.protect_column('{table}', 'ssn', tenant_column => 'tenant')")
    owner.run(f"INSERT INTO {table} SELECT n, '{made.name}', 'value' || n FROM generate_series(1, 50) n")
    for number in range(51, 54):
        owner.run(f"INSERT INTO {table} VALUES ({number}, '{made.name}', 'value{number}')")
    sealed = [bytes(value) for (value,) in owner.all(f"SELECT cmk.envelope(ssn) FROM {table} ORDER BY id")]
    seen = [ColumnEnvelope.parse(value).nonce for value in sealed]
    assert len(set(seen)) == 53
    assert len({nonce[:12] for nonce in seen[:50]}) <= 2
    assert len({nonce[:12] for nonce in seen[50:]}) == 3
    assert owner.one(f"SELECT count(*) FROM {table} WHERE ssn::text = 'value' || id") == 53


# The message key in memory


def test_a_runs_message_key_lies_in_locked_undumpable_pages_only(app, secret):
    made, dek = secret
    needles = derived_forms(dek, nonces(seal(app, made, 100))[-1])
    found = find(app.pid, needles)
    assert found, "the search doesn't find the key that the backend must hold"
    for address in found:
        assert {"lo", "dd", "dc"} <= flags_at(app.pid, address), f"{address:#x}"


def test_the_message_key_of_a_single_value_is_not_kept(app, secret):
    made, dek = secret
    sealed = [app.encrypt(made) for _ in range(3)]
    assert all(app.decrypt(made, value) == CANARY for value in sealed)
    for nonce in nonces(sealed):
        assert find(app.pid, derived_forms(dek, nonce)) == []


def test_the_message_key_of_a_long_value_is_not_kept(app, secret):
    made, dek = secret
    sealed = [app.encrypt(made, bytes(length)) for length in (800, 5000, 100_000)]
    assert [len(app.decrypt(made, value)) for value in sealed] == [800, 5000, 100_000]
    for nonce in nonces(sealed):
        assert find(app.pid, derived_forms(dek, nonce)) == []


def test_an_evicted_data_key_takes_its_message_keys_along(app, dba, secret):
    made, dek = secret
    sealed = seal(app, made, 100)
    assert app.one("SELECT count(cmk_decrypt(%s, v)) FROM unnest(%b::bytea[]) v", made.name, sealed) == 100
    needles = derived_forms(dek, nonces(sealed)[-1])
    assert find(app.pid, needles)
    dba.run("SELECT cmk.suspend_tenant(%s)", made.name)
    until(lambda: not app.all("SELECT FROM pg_sleep(0) WHERE cmk_try_decrypt(%s, %b, '', '{tenant_suspended}') IS NOT NULL",
                              made.name, sealed[0]))
    assert find(app.pid, needles) == []


def test_a_sleeping_sessions_message_keys_die_on_time(either_drill, session):
    with either_drill.server.settings(cache_ttl=f"{int(TTL * 1000)}ms"):
        made = either_drill.tenant()
        user = session(dbname="postgres", on=either_drill.server)
        assert user.one(READ, made.name) == CANARY
        sealed = seal(user, made, 100)
        ended = time.monotonic()
        needles = derived_forms(either_drill.dek(made), nonces(sealed)[-1])
        found = find(user.pid, needles)
        assert found, "the search doesn't find the key that the backend must hold"
        until(lambda: is_zero(user.pid, found), timeout=TTL + 1, what="the end of the message key")
        assert time.monotonic() <= ended + TTL + LATE
        assert not find(user.pid, needles)
