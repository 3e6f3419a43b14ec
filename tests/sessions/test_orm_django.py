"""Django's models, migrations and admin site work on protected columns as they did on text columns."""

import pytest

from twins import HERE, PYTHON, twins  # noqa: F401 (fixture)

PROGRAM = (PYTHON, HERE / "django_program.py")


@pytest.mark.parametrize("binding", ["client", "server"])
def test_models_migrations_and_admin_stay_as_they_are(twins, binding):
    shop, options = twins(*PROGRAM), '{"server_side_binding": %s}' % str(binding == "server").lower()
    shop.both("create", DJANGO_OPTIONS=options)
    shop.protect(rewrite=binding == "server")  # one way here, the other there
    shop.both("work", at_least=100, DJANGO_OPTIONS=options)
    shop.both("tidy", DJANGO_OPTIONS=options)
    shop.both("admin", at_least=12, DJANGO_OPTIONS=options)
    shop.protected.assert_sealed()


def test_a_migration_of_the_type_is_refused_and_the_dba_does_it(twins):
    shop = twins(*PROGRAM)
    created = shop.after("create")["created"]
    shop.protect()
    assert len(shop.after("tidy")["migrated"]) == len(created)
    told = shop.after("longer")
    assert told["longer"] == "42883"  # the CHECK constraint has no meaning for varchar
    assert [row[3] for row in told["still there"]] == [row[3] for row in created]
    shop.protected.dba("ALTER TABLE customer ALTER ssn TYPE cmk_text(40)")
    assert shop.after("longer by hand") == {"longer": 1, "too long": "22001"}
    shop.protected.assert_sealed()
