"""Django's and SQLAlchemy's look-ups find in a searchable column what they found in a text column, by its index."""

import pytest

import look_ups
import test_orm_django
import test_orm_sqlalchemy
from twins import twins  # noqa: F401 (fixture)


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
