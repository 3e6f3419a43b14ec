"""What the pages warn of: casts that quote what they can't read, and a view whose trigger seals."""

import pytest

from support import fails_with, unique


@pytest.mark.parametrize("cast, sqlstate", [("date", "22007"), ("int", "22P02"), ("uuid", "22P02")])
def test_a_cast_quotes_the_plaintext_that_it_can_not_read(app, local_tenant, cast, sqlstate):
    """docs/operations.md, Logging. Should PostgreSQL stop doing so, the page can say less."""
    tenant, secret = local_tenant(), unique("not_a_value")
    with fails_with(sqlstate) as caught:
        app.one(f"SELECT cmk_decrypt_text(%s, cmk_encrypt(%s, '{secret}'))::{cast}", tenant.name, tenant.name)
    assert secret in caught.value.diag.message_primary


def test_on_conflict_does_not_work_with_an_instead_of_trigger(owner, local_tenant):
    """docs/applications.md, A view that opens and seals."""
    tenant, table, view = local_tenant(), unique("t"), unique("v")
    owner.run(f"CREATE TABLE {table} (id int PRIMARY KEY, sealed bytea)")
    owner.run(f"CREATE VIEW {view} AS SELECT id, cmk_decrypt_text('{tenant}', sealed) AS body FROM {table}")
    owner.run(f"CREATE FUNCTION {view}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {table} VALUES"
              f" (NEW.id, cmk_encrypt('{tenant}', NEW.body)); RETURN NEW; END $$")
    owner.run(f"CREATE TRIGGER seal INSTEAD OF INSERT ON {view} FOR EACH ROW EXECUTE FUNCTION {view}()")
    owner.run(f"INSERT INTO {view} VALUES (1, 'one')")
    assert owner.all(f"SELECT id, body FROM {view}") == [(1, "one")]
    with fails_with("42P10"):
        owner.run(f"INSERT INTO {view} VALUES (1, 'two') ON CONFLICT (id) DO NOTHING")
