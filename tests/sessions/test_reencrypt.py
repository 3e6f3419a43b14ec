"""cmk.reencrypt(): values get under the newest data keys, whatever table they are in; nothing else changes."""

import pytest

from protected import Table, hear, make_table
from reencryption import counted, make_envelopes, plain, rotate
from support import fails, fails_with, flip, grant, unique


def test_values_get_under_the_newest_data_key_of_their_rows_tenant(dba, owner, local_tenant):
    one, two = tenants = local_tenant(), local_tenant()
    table = make_envelopes(owner, tenants, rows=3000)
    assert table.usage() == {(one.name, 1): 1500, (two.name, 1): 1500}
    first, second = rotate(dba, one, two)
    heard = hear(owner)
    table.reencrypt(batch=700)
    assert table.usage() == {(one.name, first): 1500, (two.name, second): 1500}
    assert table.opened() == plain(3000)
    assert counted(heard) == [3000]
    assert table.progress() == ("done", 3000, 0, 0)
    # Once more there is nothing to do, and no row is touched.
    places = owner.all(f"SELECT ctid::text FROM {table} ORDER BY id")
    table.reencrypt()
    assert counted(heard) == [3000, 0]
    assert owner.all(f"SELECT ctid::text FROM {table} ORDER BY id") == places


def test_only_one_tenants_values_change_if_it_is_named(dba, owner, local_tenant):
    one, two = local_tenant(), local_tenant()
    table = make_envelopes(owner, [one, two])
    first, second = rotate(dba, one, two)
    table.reencrypt(only_tenant=one.name)
    assert table.usage() == {(one.name, first): 50, (two.name, 1): 50}
    # By its data key, without a column that says so.
    table.reencrypt(only_tenant=two.name, tenant_column=None)
    assert table.usage() == {(one.name, first): 50, (two.name, second): 50}
    assert table.opened() == plain()


def test_without_a_tenant_column_the_data_key_tells_the_tenant(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant])
    rotate(dba, tenant)
    table.reencrypt(tenant_column=None)
    assert (len(table.usage()), table.opened()) == (1, plain())


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL UNIQUE", ""])
def test_rows_that_fail_are_told_by_their_key_and_the_others_are_done(dba, owner, local_tenant, key):
    tenant, suspended, forbidden = local_tenant(), local_tenant(), local_tenant()
    table = make_envelopes(owner, [tenant, suspended, forbidden], rows=300, key=key)
    rotate(dba, tenant, suspended, forbidden)
    good = owner.one(f"SELECT c FROM {table} WHERE id = 9")
    owner.run(f"UPDATE {table} SET c = %b WHERE id = 3", flip(owner.one(f"SELECT c FROM {table} WHERE id = 3"), 8 * 60))
    owner.run(f"UPDATE {table} SET c = 'plain' WHERE id = 6")
    owner.run(f"UPDATE {table} SET c = %b WHERE id = 12", good)  # another row's
    owner.run(f"UPDATE {table} SET c = %b WHERE id = 15", b"\xc1\x01" + bytes(80))
    owner.run(f"UPDATE {table} SET c = NULL WHERE id = 18")
    owner.run(f"UPDATE {table} SET tenant_id = 'nobody' WHERE id = 21")
    dba.run("SELECT cmk.suspend_tenant(%s)", suspended.name)
    dba.run("SELECT cmk.revoke_access(%s, %s)", forbidden.name, owner.role)
    places = {n: place for n, place in owner.all(f"SELECT id, ctid::text FROM {table}")}
    heard = hear(owner)
    table.reencrypt()
    name = (lambda n: {"id": n}) if key else (lambda n: {"ctid": places[n]})
    failures = {str(name(3)): "not_authentic", str(name(6)): "not_an_envelope", str(name(12)): "not_authentic",
                str(name(15)): "unknown_data_key", str(name(21)): "unknown_tenant",
                str({"tenant": suspended.name}): "tenant_suspended", str({"tenant": forbidden.name}): "no_grant"}
    assert {str(of): reason for of, reason in table.failures()} == failures
    assert table.progress() == ("incomplete", 94, 205, 205)
    assert any("under version" in message for severity, message, _, _ in heard if severity == "WARNING")
    # What they lacked is there: only that is done.
    dba.run("SELECT cmk.resume_tenant(%s)", suspended.name)
    grant(dba, forbidden, owner.role)
    table.reencrypt()
    assert table.progress() == ("incomplete", 200, 5, 5)
    owner.run(f"DELETE FROM {table} WHERE id IN (3, 6, 12, 15, 21)")
    table.reencrypt()
    assert (table.progress()[0], table.failures()) == ("done", [])
    assert sorted(table.opened()) == [n for n in range(1, 301) if n not in (3, 6, 12, 15, 18, 21)]


def test_failures_are_kept_up_to_a_thousand_and_then_counted(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=3000)
    rotate(dba, tenant)
    owner.run(f"UPDATE {table} SET c = 'plain' WHERE id <= 1500")
    table.reencrypt()
    assert table.progress() == ("incomplete", 1500, 1500, 1500)
    assert len(table.failures()) == 1000


def test_a_row_that_breaks_a_rule_of_the_table_does_not_stop_the_others(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant])
    rotate(dba, tenant)
    owner.run(f"ALTER TABLE {table} ADD CONSTRAINT low CHECK (id <> 7) NOT VALID")
    table.reencrypt()
    assert table.failures() == [({"id": 7}, "sqlstate=23514 constraint=low")]
    assert table.progress() == ("incomplete", 99, 1, 1)


def test_partitions_children_and_composite_keys(dba, owner, local_tenant):
    tenant = local_tenant()
    parent = make_envelopes(owner, [tenant], rows=0, key="", more=", PRIMARY KEY (tenant_id, id)) PARTITION BY RANGE (id")
    for number in range(3):
        owner.run(f"CREATE TABLE {parent}_{number} PARTITION OF {parent} FOR VALUES FROM ({number * 100}) TO ({number * 100 + 100})")
    parent.fill([tenant], 1, 299)
    [version] = rotate(dba, tenant)
    owner.run(f"UPDATE {parent} SET c = 'x' WHERE id = 150")
    parent.reencrypt()
    assert parent.usage() == {(tenant.name, version): 298, "not sealed": 1}
    states = owner.all('SELECT state, rows_done FROM cmk.reencrypt_progress WHERE "table"::text LIKE %s ORDER BY "table"::text',
                       f"%{parent}%")
    assert states == [("done", 99), ("incomplete", 99), ("done", 100)]
    keys = owner.all('SELECT key FROM cmk.reencrypt_failures WHERE "table" = %s::regclass', f"{parent}_1")
    assert keys == [({"tenant_id": tenant.name, "id": 150},)]
    # A child by inheritance, with columns in another order.
    child = unique("child")
    base = make_envelopes(owner, [tenant])
    owner.run(f"CREATE TABLE {child} (c bytea, id int NOT NULL, more int, tenant_id text NOT NULL)")
    owner.run(f"ALTER TABLE {child} INHERIT {base}")
    owner.run(f"INSERT INTO {child} SELECT c, id, 1, tenant_id FROM {base}")
    [version] = rotate(dba, tenant)
    base.reencrypt()
    assert base.usage() == {(tenant.name, version): 200}


def test_long_values_are_done_in_batches_of_some_megabytes(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=0)
    owner.run(f"INSERT INTO {table} SELECT n, %s, cmk_encrypt(%s, repeat('x', 3000000), n::text::bytea)"
              " FROM generate_series(1, 12) n", tenant.name, tenant.name)
    [version] = rotate(dba, tenant)
    before = owner.one("SELECT txid_current()")
    table.reencrypt()
    assert owner.one("SELECT txid_current()") - before >= 3
    assert table.usage() == {(tenant.name, version): 12}
    assert set(table.opened().values()) == {"x" * 3000000}


def test_generated_columns_indexes_and_domains_follow(dba, owner, local_tenant):
    tenant = local_tenant()
    domain = unique("sealed")
    owner.run(f"CREATE DOMAIN {domain} AS bytea CHECK (octet_length(value) > 3)")
    table = make_envelopes(owner, [tenant], more=", digest bytea GENERATED ALWAYS AS (sha256(c)) STORED, UNIQUE (c)")
    rotate(dba, tenant)
    table.reencrypt()
    assert owner.one(f"SELECT count(*) FROM {table} WHERE digest = sha256(c)") == 100
    other = make_envelopes(owner, [tenant])
    owner.run(f"ALTER TABLE {other} ALTER c TYPE {domain}")
    [version] = rotate(dba, tenant)
    other.reencrypt()
    assert other.usage() == {(tenant.name, version): 100}


KINDS = {"text": "'v' || n", "bytea": "convert_to('v' || n, 'UTF8')", "jsonb": "jsonb_build_object('v', n)"}


@pytest.mark.parametrize("kind", KINDS)
def test_protected_columns_of_every_type(dba, owner, local_tenant, kind):
    tenants = local_tenant(), local_tenant()
    table = Table(owner, unique("users"))
    owner.run(f"CREATE TABLE {table} (id int PRIMARY KEY, tenant_id text NOT NULL, ssn {kind})")
    table.protect(tenant_column="tenant_id")
    owner.run(f"INSERT INTO {table} SELECT n, (%s::text[])[1 + n %% 2], {KINDS[kind]} FROM generate_series(1, 200) n",
              [tenant.name for tenant in tenants])
    owner.run(f"INSERT INTO {table} VALUES (0, %s, NULL)", tenants[0].name)
    before = table.values()
    versions = rotate(dba, *tenants)
    owner.run(f"CALL cmk.reencrypt('{table}', 'ssn', pause => 0)")
    usage = owner.all(f"SELECT tenant, version, state, rows FROM cmk.data_key_usage('{table}', 'ssn')")
    wanted = [(tenant.name, version, "current", 100) for tenant, version in zip(tenants, versions, strict=True)] + [(None, None, "null", 1)]
    assert sorted(usage, key=str) == sorted(wanted, key=str)
    assert table.values() == before
    # What the tables say of themselves is left out.
    with fails("42809", "not_reencryptable") as caught:
        owner.run(f"CALL cmk.reencrypt('{table}', 'ssn', tenant_column => 'tenant_id')")
    assert "tenant_column and aad are known" in caught.value.diag.message_detail


def test_plaintext_in_a_protected_column_is_left_to_seal_table(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_table(owner, [tenant])
    table.protect(tenant_column="tenant_id", rewrite=False)
    owner.run(f"UPDATE {table} SET ssn = ssn || '' WHERE id <= 5")
    [version] = rotate(dba, tenant)
    owner.run(f"CALL cmk.reencrypt('{table}', 'ssn', pause => 0)")
    usage = owner.all(f"SELECT version, state, rows FROM cmk.data_key_usage('{table}', 'ssn')")
    assert sorted(usage, key=str) == [(version, "current", 5), (None, "not sealed", 15)]


def test_searchable_columns_keep_their_tokens_while_index_keys_rotate(dba, owner, local_tenant):
    tenant = local_tenant()
    dba.run("SELECT cmk.rotate_index_key(%s)", tenant.name)
    table = make_table(owner, [tenant], rows=0)
    table.protect(tenant_column="tenant_id", searchable=True)
    owner.run(f"CREATE UNIQUE INDEX ON {table} (tenant_id, ssn cmk_token_ops)")
    owner.run(f"INSERT INTO {table} SELECT n, %s, 'v' || n FROM generate_series(1, 50) n", tenant.name)
    find = f"SELECT id FROM {table} WHERE tenant_id = %s AND ssn = 'v7'"
    rotate(dba, tenant)
    owner.run(f"CALL cmk.reencrypt('{table}', 'ssn', pause => 0)")
    assert owner.one(find, tenant.name) == 7
    dba.run("SELECT cmk.rotate_index_key(%s)", tenant.name)
    rotate(dba, tenant)
    owner.run(f"CALL cmk.reencrypt('{table}', 'ssn', pause => 0)")
    assert owner.one(find, tenant.name) == 7
    lacking = (f"SELECT count(*) FROM {table}, cmk.protections() p WHERE p.relation = '{table}'::regclass"
               " AND cmk.needs_sealing(ssn, p.label, p.options)")
    assert owner.one(lacking) == 0
    with fails_with("23505"):
        owner.run(f"INSERT INTO {table} VALUES (99, %s, 'v7')", tenant.name)
    dba.run("SELECT cmk.cancel_index_rotation(%s)", tenant.name)
    # While there is a searchable column, every tenant that is registered gets an index key.
    owner.run(f"DROP TABLE {table}")


@pytest.fixture
def touched(owner, local_tenant, dba):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], more=", updated_at timestamptz")
    function = unique("touch")
    owner.run(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql"
              " AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'")
    owner.run(f"CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()")
    rotate(dba, tenant)
    grant(dba, tenant, "postgres")
    return table


def test_users_triggers_do_not_fire_for_a_superuser(dba, owner, touched):
    dba.run(*type(touched)(dba, f"{owner.role}.{touched}").call())
    assert owner.one(f"SELECT count(*) FROM {touched} WHERE updated_at IS NOT NULL") == 0
    assert dba.one("SHOW session_replication_role") == "origin"
    assert len(touched.usage()) == 1


def test_users_triggers_fire_for_others_and_that_is_said(owner, touched):
    heard = hear(owner)
    touched.reencrypt()
    assert owner.one(f"SELECT count(*) FROM {touched} WHERE updated_at IS NOT NULL") == 100
    assert any("triggers of" in message and "fire" in message for _, message, _, _ in heard)


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(dba, owner, local_tenant):
    tenant, suspended = local_tenant(), local_tenant()
    table = make_envelopes(owner, [tenant, suspended])
    rotate(dba, tenant, suspended)
    owner.run(f"UPDATE {table} SET c = 'x' WHERE id = 2")
    dba.run("SELECT cmk.suspend_tenant(%s)", suspended.name)
    before = owner.all(f"SELECT ctid::text, c FROM {table} ORDER BY id")
    heard = hear(owner)
    table.reencrypt(dry_run=True)
    assert {(severity, message.rpartition(": ")[2]) for severity, message, _, _ in heard} == {
        ("NOTICE", "49 values are to be re-encrypted"),
        ("WARNING", "1 values cannot be re-encrypted, reason=not_an_envelope"),
        ("WARNING", "50 values cannot be re-encrypted, reason=tenant_suspended"),
    }
    assert owner.all(f"SELECT ctid::text, c FROM {table} ORDER BY id") == before


def test_everything_that_is_in_the_way_is_named(dba, owner, local_tenant, session, role):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], more=", n int, g bytea GENERATED ALWAYS AS ('x'::bytea) STORED")

    def obstacles(column, by=owner, **arguments):
        parts = "".join(f", {argument} => %s" for argument in arguments)
        with fails("42809", "not_reencryptable") as caught:
            by.run(f"CALL cmk.reencrypt(%s, %s{parts})", full, column, *arguments.values())
        return caught.value.diag.message_detail.splitlines()[1:]

    owner.run("SET search_path = ''")
    full = f"{owner.role}.{table}"
    assert obstacles("nope") == [f"{full} has no column nope"]
    assert obstacles("n") == [f"column n of {full} is of type integer, which holds no envelopes of cmk_encrypt()"]
    assert obstacles("g") == [f"column g of {full} is generated"]
    assert obstacles("c", tenant_column="nope") == [f"{full} has no column nope for the tenant"]
    stranger = session(role())
    dba.run(f"GRANT USAGE ON SCHEMA {owner.role} TO {stranger.role}")
    assert obstacles("c", stranger) == [f"you do not own {full}"]
    owner.run(f"CREATE RULE r AS ON UPDATE TO {full} DO INSTEAD NOTHING")
    assert obstacles("c") == [f"rule r of {full} would change the update: have a superuser call this"]
    owner.run(f"DROP RULE r ON {full}")
    owner.run(f"ALTER TABLE {full} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    assert "row-level security" in obstacles("c")[0]
    with fails("22004", "null_argument"):
        owner.run("CALL cmk.reencrypt(NULL, 'c')")


def test_it_cannot_run_inside_a_transaction(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=10)
    rotate(dba, tenant)
    owner.run("BEGIN")
    with fails_with("2D000"):
        table.reencrypt()
    owner.run("ROLLBACK")
    # The lock is gone with the transaction.
    table.reencrypt()
    assert table.progress()[0] == "done"


def test_an_aad_that_does_not_fit_fails_rows_and_one_that_is_no_expression_fails_the_call(dba, owner, local_tenant):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=5)
    rotate(dba, tenant)
    table.reencrypt(aad=None)
    assert {reason for _, reason in table.failures()} == {"not_authentic"}
    before = table.progress("state, updated")
    with fails("42809", "not_reencryptable") as caught:
        table.reencrypt(aad="no_such_column")
    assert "sqlstate 42703" in caught.value.diag.message_detail
    assert table.progress("state, updated") == before, "nothing was begun"
    table.reencrypt(aad="id::text -- a comment")
    assert table.opened() == plain(5)


def test_an_aad_means_what_it_means_to_its_caller(dba, owner, local_tenant):
    tenant = local_tenant()
    table, bound_to = make_envelopes(owner, [tenant], rows=5), unique("bound_to")
    owner.run(f"CREATE FUNCTION {bound_to}(id int) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT id::text::bytea'")
    rotate(dba, tenant)
    table.reencrypt(aad=f"{bound_to}(id)")
    assert table.progress()[0] == "done"


def test_progress_is_shown_to_the_owner_and_to_monitors_only(dba, owner, local_tenant, session, role):
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=5)
    owner.run(f"UPDATE {table} SET c = 'x' WHERE id = 2")
    table.reencrypt()
    stranger, monitor = session(role()), session(role())
    dba.run(f"GRANT pg_monitor TO {monitor.role}")
    views = ("reencrypt_progress", "reencrypt_failures")
    full = f"{owner.role}.{table}"

    def seen(by):
        return [by.one(f'SELECT count(*) FROM cmk.{view} WHERE "table" = to_regclass(%s)', full) for view in views]

    dba.run(f"GRANT USAGE ON SCHEMA {owner.role} TO {monitor.role}, {stranger.role}")
    assert (seen(owner), seen(monitor), seen(stranger)) == ([1, 1], [1, 1], [0, 0])
    # Nobody writes down what was not done.
    number = owner.one("SELECT %s::regclass::oid", table.name)
    with fails("42501", "not_owner"):
        owner.run("SELECT cmk_internal.reencrypt_note(%s, 3::int2, 'done', '{}')", number)
    with fails("42501", "not_owner"):
        stranger.run("SELECT cmk_internal.reencrypt_begin(%s, 3::int2)", number)


EVENTS = """
    SELECT tenant, act, before, after::jsonb - 'left_over' FROM cmk.audit_event
     WHERE act = 'reencrypt' AND before ->> 'table' = %s ORDER BY at, after ->> 'state' DESC"""


def test_beginning_and_end_are_events_that_no_owner_can_forge(dba, owner, local_tenant):
    one, two = local_tenant(), local_tenant()
    table = make_envelopes(owner, [one, two])
    full = f"{owner.role}.{table}"
    rotate(dba, one, two)
    table.reencrypt(only_tenant=one.name)
    table.reencrypt()
    place = {"table": full, "column": "c"}
    assert dba.all(EVENTS, full) == [
        (one.name, "reencrypt", place, {"state": "running"}),
        (one.name, "reencrypt", place, {"state": "done", "rows_done": 50}),
        ("*", "reencrypt", place, {"state": "running"}),
        ("*", "reencrypt", place, {"state": "done", "rows_done": 50}),
    ]
    assert dba.all("SELECT after::jsonb -> 'left_over' FROM cmk.audit_event WHERE act = 'reencrypt' AND before ->> 'table' = %s"
                   " AND after ->> 'state' = 'done' AND tenant = '*'", full) == [({},)]
    # Nothing is to be done: nothing to tell. Nor of a table without a value of any tenant.
    table.reencrypt()
    empty = make_envelopes(owner, [one], rows=0)
    owner.run(f"INSERT INTO {empty} VALUES (1, %s, 'x')", one.name)
    empty.reencrypt()
    assert len(dba.all(EVENTS, full)) == 4
    assert dba.all(EVENTS, f"{owner.role}.{empty}") == []
    with fails_with("42501"):
        owner.run("SELECT cmk_internal.audit('reencrypt', '*')")
