"""cmk.reencrypt() where every block is full of rows to be done: they are not looked for first, and nothing else differs."""

import pytest

from reencryption import make_envelopes, plain, rotate
from server import until

ROWS, BATCH = 12_000, 1_000


@pytest.fixture
def full(dba, owner, local_tenant):
    """A table of a tenant with a newer data key: the table, the tenant, the version."""
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=ROWS)
    owner.run(f"VACUUM {table}")
    return table, tenant, rotate(dba, tenant)[0]


def batches(table, count):
    """(blocks that are full, rows) after each of the first batches, of which nothing stays."""
    session, seen = table.session, []
    session.run("BEGIN")
    behind, careful, full_blocks = "(0,0)", False, None
    for _ in range(count):
        last, full_blocks, careful, rows = session.row(
            "SELECT b.last::text, b.full_blocks, b.careful, b.rows"
            " FROM cmk_internal.reencrypt_targets(%s, 'c', 'tenant_id', %s, NULL) t,"
            " LATERAL cmk_internal.reencrypt_batch(t, %s, 100000, %s, '{}', %s, %s::int8) b",
            table.name, table.AAD, behind, BATCH, careful, full_blocks)
        seen.append((full_blocks, rows))
        behind = last or behind
    session.run("ROLLBACK")
    return seen


def test_only_the_first_rows_are_looked_for(full):
    table, tenant, version = full
    (blocks, rows), *others = batches(table, 4)
    assert blocks >= 8 and rows == BATCH
    for of, rows in others:
        assert of == blocks and BATCH * 0.8 <= rows <= BATCH * 1.2
    table.reencrypt(batch=BATCH)
    assert (table.usage(), table.opened()) == ({(tenant.name, version): ROWS}, plain(ROWS))
    assert table.progress("state, rows_done, rows_left, failed_rows") == ("done", ROWS, 0, 0)


def test_where_less_than_half_is_to_be_done_rows_are_looked_for_again(full):
    table, *_ = full
    table.session.run(f"UPDATE {table} SET c = NULL WHERE id > 1500 AND id % 3 > 0")
    table.session.run(f"CLUSTER {table} USING {table}_pkey")
    seen = batches(table, 12)
    assert seen[0][0] is not None and None in [of for of, _ in seen], seen
    assert sum(rows for _, rows in seen) == 1500 + 3500 and all(rows <= BATCH * 1.2 for _, rows in seen)


def test_long_values_are_no_batch_of_blocks(dba, owner, local_tenant):
    """Their blocks hold little of them."""
    tenant = local_tenant()
    table = make_envelopes(owner, [tenant], rows=3000)
    owner.run(f"INSERT INTO {table} SELECT 3001, tenant_id, cmk_encrypt(tenant_id, repeat('x', 20000), '3001') FROM {table} LIMIT 1")
    [version] = rotate(dba, tenant)
    assert [of for of, _ in batches(table, 3)] == [None] * 3
    table.reencrypt()
    assert table.usage() == {(tenant.name, version): 3001}


def test_what_fails_or_is_held_there_is_told_and_the_rest_is_done(full, session):
    table, tenant, version = full
    owner, holder = table.session, session(table.session.role)
    owner.run(f"UPDATE {table} SET c = '\\x00' WHERE id = 5000")
    owner.run(f"UPDATE {table} SET c = set_byte(c, 60, get_byte(c, 60) # 1) WHERE id = 9000")
    owner.run(f"VACUUM FULL {table}")
    holder.run("BEGIN")
    holder.run(f"SELECT FROM {table} WHERE id = 7000 FOR UPDATE")
    table.reencrypt(batch=BATCH)
    assert table.failures() == [({"id": 5000}, "not_an_envelope"), ({"id": 9000}, "not_authentic")]
    assert table.usage() == {(tenant.name, version): ROWS - 3, (tenant.name, 1): 2, "not sealed": 1}
    assert table.progress("state, rows_left") == ("incomplete", 3)
    holder.run("COMMIT")
    table.reencrypt(batch=BATCH)
    assert table.usage() == {(tenant.name, version): ROWS - 2, (tenant.name, 1): 1, "not sealed": 1}


def test_updates_of_others_are_kept(full, session):
    table, tenant, version = full
    writer = session(table.session.role)
    worker = session(table.session.role)
    done = worker.start(*table.call(batch=BATCH, pause=1))
    for row in range(1, ROWS, 40):
        writer.run(f"UPDATE {table} SET c = cmk_encrypt(tenant_id, 'new-' || id, {table.AAD}) WHERE id = %s", row)
    until(done.done, 60, "the run")
    assert done.exception() is None or "no results" in str(done.exception()) or "didn't produce" in str(done.exception())
    expected = {id: f"new-{id}" if id % 40 == 1 else value for id, value in plain(ROWS).items()}
    assert (table.usage(), table.opened()) == ({(tenant.name, version): ROWS}, expected)
