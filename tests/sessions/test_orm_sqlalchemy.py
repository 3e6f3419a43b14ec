"""SQLAlchemy's units of work and queries give on protected columns what they gave on text columns."""

from twins import HERE, PYTHON, twins  # noqa: F401 (fixture)

PROGRAM = (PYTHON, HERE / "sqlalchemy_program.py")


def test_models_and_queries_stay_as_they_are(twins):
    shop = twins(*PROGRAM)
    shop.both("create")
    shop.protect()
    shop.both("work", at_least=100)
    shop.protected.assert_sealed()


def test_reflection_knows_no_type_for_the_column_but_uses_it(twins):
    shop = twins(*PROGRAM)
    shop.after("create")
    shop.protect()
    told = shop.after("reflect")
    assert told["types"] == ["VARCHAR(length=80)", "NullType()", "NullType()"]
    assert "Did not recognize type 'cmk_text' of column 'ssn'" in told["warnings"]
    assert told["insert"] == told["select"] == ["('5-0-0', 'by reflection')"]
    shop.protected.assert_sealed()
