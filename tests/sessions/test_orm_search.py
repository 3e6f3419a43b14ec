"""Django's and SQLAlchemy's look-ups find in a searchable column what they found in a text column, by its index."""

import pytest

import look_ups
import test_orm_django
import test_orm_sqlalchemy
from pages import docs
from twins import HERE, PYTHON, twins  # noqa: F401 (fixture)

# {name: code} of what docs/applications.md recommends
RECIPES = {code.splitlines()[0][2:].lower(): code for _, code in docs("applications.md").blocks("python")}


@pytest.mark.parametrize("wire_type", [None, "text"])
@pytest.mark.parametrize("binding", ["client", "server"])
def test_django_uses_the_index(twins, server, binding, wire_type):
    shop, options = twins(*test_orm_django.PROGRAM), '{"server_side_binding": %s}' % str(binding == "server").lower()
    shop.both("create", DJANGO_OPTIONS=options)
    look_ups.populate(shop, name="'somebody'", visits="0")
    look_ups.make_searchable(shop, wire_type)
    checks = look_ups.search(shop, server, "look-ups", at_least=20, DJANGO_OPTIONS=options)
    assert checks["get"] == "note 1000" and checks["also: not unique"] == "23505"
    shop.protected.assert_sealed()


@pytest.mark.parametrize("wire_type", [None, "text"])
def test_sqlalchemy_uses_the_index(twins, server, wire_type):
    shop = twins(*test_orm_sqlalchemy.PROGRAM)
    shop.both("create")
    look_ups.populate(shop, name="'somebody'")
    look_ups.make_searchable(shop, wire_type)
    checks = look_ups.search(shop, server, "look-ups", at_least=20)
    assert checks["where"] == [["note 1000"]] and checks["also: not unique"] == "23505"
    shop.protected.assert_sealed()


def test_both_have_a_recipe():
    assert sorted(RECIPES) == ["django", "sqlalchemy"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_finds_by_an_index_of_tokens(twins, name):
    database = twins(PYTHON, HERE / "recipes_program.py").protected
    database.prepare()
    database.dba("SELECT cmk.rotate_index_key('acme')")
    with database.connect() as connection:
        connection.execute("CREATE TABLE contact (id bigint PRIMARY KEY, tenant text NOT NULL, email_token bytea)")
        connection.execute("CREATE INDEX contact_email ON contact (tenant, email_token)")
        connection.execute(
            "INSERT INTO contact SELECT i, 'acme', cmk_search_token('acme', email, 'contact.email', 'lower')"
            " FROM generate_series(1, 2000) i, format('%sada@example.com', nullif(i, 7)) email"
        )
        connection.execute("ANALYZE contact")
    told = database.run([PYTHON, HERE / "recipes_program.py", name], RECIPE=RECIPES[name])
    assert told["found"] == [7]
    assert "contact_email" in told["plan"]
