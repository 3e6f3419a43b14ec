"""With cmk_encrypt.wire_type = text, clients are told that a protected column is text."""

import pytest

import test_client_psycopg
import test_orm_django
import test_orm_sqlalchemy
from twins import twins  # noqa: F401 (fixture)

PROGRAMS = {
    "django": test_orm_django.PROGRAM,
    "sqlalchemy": test_orm_sqlalchemy.PROGRAM,
    "psycopg, text": (*test_client_psycopg.PROGRAM, "text"),
    "psycopg, binary": (*test_client_psycopg.PROGRAM, "binary"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_statements_stay_as_they_are(twins, program):
    shop = twins(*PROGRAMS[program])
    shop.both("create")
    shop.protect(wire_type="text")
    shop.both("work", at_least=40)
    shop.protected.assert_sealed()


@pytest.mark.parametrize("binary", [False, True])
def test_an_array_arrives_as_a_list(twins, binary):
    shop = twins(*PROGRAMS["psycopg, text"])
    shop.both("create")
    shop.protect(wire_type="text")
    with shop.protected.connect() as connection:
        arrays = "SELECT array_agg(ssn) FROM customer WHERE number = 1"
        assert connection.execute(arrays, binary=binary).fetchone() == (["536-90-4399"] * 2,)


def test_a_prepared_select_survives_the_protection(twins):
    shop = twins(*PROGRAMS["psycopg, text"])
    shop.protected.run([*shop.command, "create"])
    shop.protected.prepare(wire_type="text")
    with shop.protected.connect() as connection:

        def prepared():
            cursor = connection.execute("SELECT note, ssn FROM customer WHERE id = 1", prepare=True)
            return cursor.fetchall(), [column.type_display for column in cursor.description]

        before = prepared()
        assert before == ([("pays in cash", "536-90-4399")], ["text", "varchar(20)"])
        shop.protected.protect()
        assert prepared() == before
    shop.protected.assert_sealed()
